"""An episode's files: two plots, key frames, an animation, and the numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.files import write_text
from lightvla_ros.show.concentration import figures
from lightvla_ros.show.pictures import write_animation, write_key_frames
from lightvla_ros.show.plots import write_concentration, write_kept_over_time
from lightvla_ros.show.watch import Moment, Seen


def write_episode(
    seen: Seen, manifest: Manifest, header: dict[str, Any], out: Path
) -> dict[str, Any]:
    """Write ``NAME-frames.png``, ``-kept.png``, ``-concentration.png``, ``.gif`` and ``.json``.

    :param header: First fields of the JSON.
    :returns: Contents of the JSON.
    """
    files = [
        out / f'{seen.name}{end}' for end in ('-frames.png', '-kept.png', '-concentration.png')
    ]
    write_key_frames(seen, manifest, files[0])
    write_kept_over_time(seen, files[1])
    write_concentration(seen.shares, f'"{seen.instruction}"', files[2])
    files.append(write_animation(seen, manifest, out / f'{seen.name}.gif'))
    path = out / f'{seen.name}.json'
    document = {
        **header,
        'instruction': seen.instruction,
        'episodes': 1,
        'successes': int(seen.success),
        'steps': seen.total_steps,
        'events': asdict(seen.events),
        **figures(seen.shares),
        'all_chunks': [_chunk(moment, seen) for moment in seen.acted],
        'files': [str(file) for file in (*files, path)],
    }
    write_text(path, json.dumps(document, indent=1) + '\n')
    return document


def _chunk(moment: Moment, seen: Seen) -> dict[str, Any]:
    kept = zip(seen.cameras, moment.kept.sum(axis=1).tolist(), strict=True)
    return {'step': moment.step, 'kept': dict(kept)}
