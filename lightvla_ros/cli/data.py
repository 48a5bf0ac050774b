"""`lightvla data`: looks at recordings before a policy is trained on them, and converts them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightvla_ros.errors import DemonstrationError
from lightvla_ros.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``lightvla data inspect``, and the conversion to LeRobot."""
    parts = parser.add_subparsers(dest='data', required=True, metavar='WHAT', help='what is done')
    text = 'episodes, rates, ranges, pictures, and signs of what ruins a training'
    inspect = parts.add_parser('inspect', help=text, description=f'Shows {text}.')
    inspect.set_defaults(prog=inspect.prog, work=_inspect)
    inspect.add_argument('path', type=Path, metavar='PATH', help='a recording, or a folder of them')
    inspect.add_argument(
        '--mapping',
        type=Path,
        metavar='FILE',
        help="data YAML; without it LIBERO's files are inspected, and of others the names are "
        'listed that a data YAML needs',
    )
    inspect.add_argument(
        '--like',
        type=Path,
        metavar='DIR',
        help='policy folder; the cameras are compared with its recorded observations',
    )
    inspect.add_argument(
        '--sheet',
        type=Path,
        default=Path('out/contact_sheet.png'),
        metavar='FILE',
        help='PNG with pictures of some episodes; default: out/contact_sheet.png',
    )
    inspect.add_argument(
        '--json', type=Path, metavar='FILE', help='write the figures into this file'
    )
    text = 'recordings of any format to a LeRobot data set, version 3.0'
    convert = parts.add_parser('to-lerobot', help=text, description=f'Converts {text}.')
    convert.set_defaults(prog=convert.prog, work=_to_lerobot)
    convert.add_argument('path', type=Path, metavar='PATH', help='a recording, or a folder of them')
    convert.add_argument(
        '--mapping',
        type=Path,
        metavar='FILE',
        help="data YAML, such as config/data/recording.yaml; without it LIBERO's files are read",
    )
    convert.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='a new folder for the data set'
    )


def run(parsed: argparse.Namespace) -> int:
    """Inspect or convert.

    :returns: 0.
    """
    return parsed.work(parsed)


def _to_lerobot(parsed: argparse.Namespace) -> int:
    from lightvla_ros.demonstrations.lerobot_writer import DATA_YAML, write_lerobot
    from lightvla_ros.demonstrations.mapping import read_mapping
    from lightvla_ros.demonstrations.reader import read_demonstrations

    mapping = None if parsed.mapping is None else read_mapping(parsed.mapping)
    demonstrations = read_demonstrations(parsed.path, mapping=mapping)
    written = write_lerobot(demonstrations, parsed.out)
    for note in (*demonstrations.notes, *written.notes):
        print(f'note: {note}')
    print(f'{parsed.out}: {written.episodes} episodes, {written.rows} rows; look at them:')
    print(f'lightvla data inspect {parsed.out} --mapping {parsed.out / DATA_YAML}')
    return 0


def _inspect(parsed: argparse.Namespace) -> int:
    """Inspect, print the report and write the contact sheet."""
    from lightvla_ros.demonstrations.inspection.contact_sheet import write_contact_sheet
    from lightvla_ros.demonstrations.inspection.doubts import doubts
    from lightvla_ros.demonstrations.inspection.figures import inspect
    from lightvla_ros.demonstrations.inspection.names import names_in
    from lightvla_ros.demonstrations.inspection.report import document, report
    from lightvla_ros.demonstrations.mapping import read_mapping
    from lightvla_ros.demonstrations.reader import read_demonstrations

    mapping = None if parsed.mapping is None else read_mapping(parsed.mapping)
    if mapping is None:
        names = names_in(parsed.path)
        if names is not None:
            form, lines = names
            print('\n'.join(lines))
            print(
                f'\nnext: a data YAML (config/data/{form}.yaml is one to start from), and --mapping'
            )
            return 0
    references = None if parsed.like is None else _pictures_of(parsed.like)
    demonstrations = read_demonstrations(parsed.path, mapping=mapping)
    found = inspect(demonstrations.episodes)
    doubted = doubts(found, references)
    print(report(found, demonstrations.notes, doubted))
    if not found.shown:
        raise DemonstrationError(f'{parsed.path}: no picture could be read; see above')
    parsed.sheet.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(found.shown, parsed.sheet)
    print(f'{parsed.sheet}: written; look at it: upright, and not exchanged?')
    if parsed.json is not None:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        content = document(found, demonstrations.notes, doubted)
        write_text(parsed.json, json.dumps(content, indent=1) + '\n')
    return 0


def _pictures_of(folder: Path) -> dict:
    """Return the recorded pictures of a policy by camera, uint8 [N, H, W, 3], upright."""
    from lightvla_ros.contract import load_manifest
    from lightvla_ros.policy.golden_file import read_golden

    manifest = load_manifest(folder)
    images = read_golden(folder, manifest)['images']
    return {camera.name: images[:, slot] for slot, camera in enumerate(manifest.cameras)}
