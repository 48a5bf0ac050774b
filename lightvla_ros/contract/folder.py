"""Reads, checks and writes the manifest of a policy folder.

A policy is a folder. Everything that training and deployment must agree on is stored in its
``manifest.json`` (``manifest.schema.json`` beside this file is the published schema) and nowhere
else. Loading checks everything before anything runs, so that no fault appears later on a robot.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema

from lightvla_ros.contract.manifest import (
    ACTION_SIZE,
    Action,
    BuiltEngine,
    Camera,
    Familiarity,
    Fp8,
    Golden,
    Graphs,
    Manifest,
    Model,
    Normalisation,
    Numbers,
    Preprocessing,
    Prompt,
    Proprio,
    Tokens,
    Trial,
    Verification,
    fingerprint,
)
from lightvla_ros.errors import ContractError
from lightvla_ros.files import LFS_POINTER, is_lfs_pointer, part_of, write_text

MANIFEST_NAME = 'manifest.json'
PART_NAME = part_of(Path(MANIFEST_NAME)).name  # its name while it is being written
SCHEMA_VERSION = 2
SCHEMA_PATH = Path(__file__).with_name('manifest.schema.json')


def load_manifest(policy_dir: Path) -> Manifest:
    """Read and check a policy folder.

    :param policy_dir: The folder that holds ``manifest.json``.
    :raises ContractError: When anything is missing, extra, changed or inconsistent.
    """
    policy_dir = Path(policy_dir)
    path = policy_dir / MANIFEST_NAME
    if not path.is_file():
        raise ContractError(f'{policy_dir}: no {MANIFEST_NAME}; is this a policy folder?')
    if is_lfs_pointer(path):
        raise ContractError(f'{path}: {LFS_POINTER}')
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ContractError(f'{path}: not JSON: {error}') from None
    manifest = parse_manifest(document, str(path))
    _check_files(policy_dir, manifest)
    return manifest


def parse_manifest(document: Any, where: str = MANIFEST_NAME) -> Manifest:
    """Check a manifest document and return it typed; no files are read.

    :param where: Name of the document for error messages.
    :raises ContractError: Naming the wrong field.
    """
    version = document.get('schema_version') if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ContractError(
            f'{where}: schema_version is {version!r}, this release reads {SCHEMA_VERSION}; create '
            'the policy folder again'
        )
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text()))
    fault = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if fault is not None:
        raise ContractError(f'{where}: {fault.json_path}: {fault.message}')
    for field in _not_finite(document):
        raise ContractError(f'{where}: {field}: every number must be finite')
    manifest = _typed(document)
    for problem in _inconsistencies(manifest):
        raise ContractError(f'{where}: {problem}')
    return manifest


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex; cached until its size or its time of change differs."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1024)
def _sha256(path: Path, *_status: int) -> str:
    # An export checks the same folder several times, and 15 GB take most of a minute.
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_manifest(policy_dir: Path, document: dict[str, Any]) -> Manifest:
    """Hash every file of the folder into ``document['files']``, check the manifest and write it.

    :raises ContractError: As :func:`load_manifest`; nothing is written then.
    """
    policy_dir = Path(policy_dir)
    files = {
        path.name: file_sha256(path)
        for path in sorted(policy_dir.iterdir())
        if path.name not in (MANIFEST_NAME, PART_NAME) and path.is_file()
    }
    document = {**document, 'schema_version': SCHEMA_VERSION, 'files': files}
    manifest = parse_manifest(document, str(policy_dir / MANIFEST_NAME))
    _check_files(policy_dir, manifest)
    _write(policy_dir, document)
    return manifest


def amend_manifest(
    policy_dir: Path,
    *,
    new_files: Sequence[str] = (),
    dropped_files: Sequence[str] = (),
    **fields: Any,
) -> Manifest:
    """Change fields of a folder's manifest, and list files that were added to the folder.

    Files that were listed before are checked, not hashed again, so that a damaged file cannot
    become valid.

    :param dropped_files: Listed files that were removed from the folder.

    :raises ContractError: As :func:`load_manifest`; nothing is written then.
    """
    policy_dir = Path(policy_dir)
    path = policy_dir / MANIFEST_NAME
    document = json.loads(path.read_text(encoding='utf-8'))
    added = {name: file_sha256(policy_dir / name) for name in new_files}
    files = {**document['files'], **added}
    files = {name: value for name, value in files.items() if name not in dropped_files}
    document = {**document, **fields, 'files': files}
    manifest = parse_manifest(document, str(path))
    _check_files(policy_dir, manifest)
    _write(policy_dir, document)
    return manifest


def _write(policy_dir: Path, document: dict[str, Any]) -> None:
    """Replace the manifest in one step: it is complete at any time, even on a full disk."""
    write_text(policy_dir / MANIFEST_NAME, json.dumps(document, indent=2) + '\n')


def _typed(document: dict[str, Any]) -> Manifest:
    """Turn a document that satisfies the schema into dataclasses."""
    preprocessing = document['preprocessing']
    return Manifest(
        schema_version=document['schema_version'],
        name=document['name'],
        cameras=tuple(Camera(**_tuples(camera)) for camera in document['cameras']),
        preprocessing=Preprocessing(
            jpeg_quality=preprocessing['jpeg_quality'],
            crop_area=preprocessing['crop_area'],
            normalisation=tuple(
                Normalisation(**_tuples(tower)) for tower in preprocessing['normalisation']
            ),
        ),
        prompt=Prompt(**_tuples(document['prompt'])),
        proprio=_or_none(Proprio, document['proprio']),
        action=Action(**_tuples(document['action'])),
        tokens=Tokens(**_tuples(document['tokens'])),
        model=_or_none(Model, document['model']),
        graphs=_or_none(Graphs, document['graphs']),
        golden=_or_none(Golden, document['golden']),
        engines=tuple(BuiltEngine(**each) for each in document['engines']),
        verified=tuple(map(_verification, document['verified'])),
        files=dict(document['files']),
        provenance=document['provenance'],
        fp8=_fp8(document.get('fp8')),
        familiarity=_familiarity(document.get('familiarity')),
    )


def _verification(fields: dict[str, Any]) -> Verification:
    trials = tuple(Trial(**each) for each in fields.get('trials', ()))
    return Verification(**fields | {'trials': trials})


def _fp8(fields: dict[str, Any] | None) -> Fp8 | None:
    if fields is None:
        return None
    return Fp8(tuple(map(tuple, fields['largest'])), fields['observations'])


def _familiarity(fields: dict[str, Any] | None) -> Familiarity | None:
    if fields is None:
        return None
    by_instruction = {key: _tuples(each) for key, each in fields['by_instruction'].items()}
    signals = _tuples(fields['signals'])
    return Familiarity(fields['observations'], fields['score'], signals, by_instruction)


def _or_none(kind: type, fields: dict[str, Any] | None) -> Any:
    return None if fields is None else kind(**_tuples(fields))


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def _not_finite(value: Any, path: str = '$') -> Iterator[str]:
    """Yield the fields that are NaN or infinite: Python's JSON and a schema's bounds accept NaN."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _not_finite(item, f'{path}.{key}')
    elif isinstance(value, float) and not math.isfinite(value):
        yield path


def _inconsistencies(manifest: Manifest) -> Iterator[str]:
    """Yield one line for each fault that the schema cannot detect."""
    names = [camera.name for camera in manifest.cameras]
    for name in names:
        if names.count(name) > 1:
            yield f'cameras: {name!r} is listed twice'
    sizes = {camera.size for camera in manifest.cameras}
    if len(sizes) > 1:
        yield f'cameras: all run as one batch and must have the same size, not {sorted(sizes)}'
    aspects = {camera.aspect for camera in manifest.cameras}
    if len(aspects) > 1:  # golden observations are one array
        yield f'cameras: all must have the same aspect, not {sorted(aspects)}'
    height, width = manifest.cameras[0].size
    patch = manifest.tokens.patch_size
    if height % patch or width % patch:
        yield f'tokens.patch_size: {patch} does not divide the image size {height} x {width}'

    if manifest.prompt.template.count('{instruction}') != 1:
        yield 'prompt.template: must hold {instruction} exactly once'

    action = manifest.action
    for field in ('q01', 'q99', 'mask'):
        length = len(getattr(action, field))
        if length != ACTION_SIZE:
            yield f'action.{field}: {length} numbers, but {ACTION_SIZE} are needed'
    yield from _unordered('action', action.q01, action.q99, action.mask)
    if action.gripper_open == action.gripper_closed:
        yield 'action: gripper_open and gripper_closed must differ'

    if action.execution == 'spring' and action.reference != 'measured_pose':
        yield (
            f'action.execution: spring is relative to the measured pose, but action.reference is '
            f'{action.reference}; a step from the previous target is a displacement'
        )

    proprio = manifest.proprio
    if proprio is not None:
        for field in ('q01', 'q99'):
            length = len(getattr(proprio, field))
            if length != proprio.size:
                yield f'proprio.{field}: {length} numbers, but the layout needs {proprio.size}'
        if not any(proprio.quaternion_reference):
            yield 'proprio.quaternion_reference: must not be zero'
        yield from _unordered('proprio', proprio.q01, proprio.q99, [True] * proprio.size)

    buckets = manifest.tokens.buckets
    if list(buckets) != sorted(set(buckets)):
        yield f'tokens.buckets: must ascend without repetition, not {list(buckets)}'
    total = manifest.patches_per_camera * len(manifest.cameras)
    if buckets[-1] != total:
        yield f'tokens.buckets: the last must be all {total} visual tokens, not {buckets[-1]}'

    named = [('prompt.tokenizer', manifest.prompt.tokenizer)]
    if manifest.graphs is not None:
        named += [
            (f'graphs.{part}', getattr(manifest.graphs, part))
            for part in ('encode', 'act', 'embedding')
        ]
    if manifest.golden is not None:
        named.append(('golden.file', manifest.golden.file))
    if manifest.model is not None:
        named += [('model.weights', file) for file in manifest.model.weights]
    for engine in manifest.engines:
        named += [('engines.encode', engine.encode), ('engines.act', engine.act)]
        if fingerprint(engine.facts) != engine.fingerprint:
            yield f'engines: {engine.fingerprint[:12]} is not the fingerprint of its facts'
    if manifest.model is None and manifest.graphs is None:
        yield 'model and graphs: one of them must be given'
    if manifest.fp8 is not None and manifest.model is not None:
        layers = manifest.model.config.get('language', {}).get('layers')
        if len(manifest.fp8.largest) != layers:
            yield (
                f'fp8.largest: it has {len(manifest.fp8.largest)} layers, but the model has '
                f'{layers}; run `lightvla calibrate` again'
            )
    if manifest.familiarity is not None:
        everywhere = {'': manifest.familiarity.signals} | manifest.familiarity.by_instruction
        for signals in everywhere.values():
            if signals.keys() != manifest.familiarity.signals.keys():
                yield 'familiarity: not the same signals for each instruction'
            for name, found in signals.items():
                if list(found) != sorted(found):
                    yield f'familiarity: {name} must ascend, not {list(found)}'
    for field, file in named:
        if file not in manifest.files:
            yield f'{field}: {file!r} is not listed in files'


def _unordered(field: str, q01: Numbers, q99: Numbers, mask: Sequence[bool]) -> Iterator[str]:
    for index, (low, high, used) in enumerate(zip(q01, q99, mask, strict=False)):
        if used and low > high:
            yield f'{field}: q01[{index}] = {low} is above q99[{index}] = {high}'


def _check_files(policy_dir: Path, manifest: Manifest) -> None:
    present = {path.name for path in policy_dir.iterdir()} - {MANIFEST_NAME, PART_NAME}
    for name in sorted(manifest.files.keys() - present):
        raise ContractError(f'{policy_dir / name}: listed in {MANIFEST_NAME} but missing')
    for name in sorted(present - manifest.files.keys()):
        raise ContractError(
            f'{policy_dir / name}: not listed in {MANIFEST_NAME}; remove it or export again'
        )
    for name, wanted in manifest.files.items():
        if not (policy_dir / name).is_file():
            raise ContractError(f'{policy_dir / name}: is a folder, not a file')
        found = file_sha256(policy_dir / name)
        if found != wanted and is_lfs_pointer(policy_dir / name):
            raise ContractError(f'{policy_dir / name}: {LFS_POINTER}')
        if found != wanted:
            raise ContractError(
                f'{policy_dir / name}: SHA-256 is {found[:12]}…, but {MANIFEST_NAME} says '
                f'{wanted[:12]}…; the file was changed or damaged'
            )
