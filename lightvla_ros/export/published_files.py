"""Reads single files of a download; any damage gives a one-line error that names the file.

Nothing is executed: weights come from safetensors, and ``.pt`` files are loaded as plain tensors.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightvla_ros.errors import CheckpointError, one_line
from lightvla_ros.files import LFS_POINTER, is_lfs_pointer
from lightvla_ros.vla.weights import check_dense, other_numbers

# Only dense floating-point numbers: a quantised weight is wrong without its scale.
STORED = {'F64', 'F32', 'F16', 'BF16'}
NAME_LENGTH = 200  # characters; the longest in a published checkpoint has 78


def check_file(path: Path, lead: str = 'download the whole folder') -> None:
    """Check that a file exists, can be read and is not a Git LFS pointer.

    :raises CheckpointError: When a check fails.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f'{path}: is missing; {lead}')
        if is_lfs_pointer(path):
            raise CheckpointError(f'{path}: {LFS_POINTER}')
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read: {error.strerror}') from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    :raises CheckpointError: When it is missing, not a JSON object, or names a field twice.
    """
    check_file(path)
    try:
        document = json.loads(path.read_text(encoding='utf-8'), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{path}: not JSON: {one_line(error)}') from None
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read: {error.strerror}') from None
    if not isinstance(document, dict):
        raise CheckpointError(f'{path}: does not hold a JSON object')
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the field {twice!r} occurs twice')
    return document


def check_fields(
    where: str,
    document: Mapping[str, Any],
    only: Mapping[str, Collection[Any]],
    harmless: Collection[str],
    off: Collection[Any] = (None,),
) -> None:
    """Refuse by name every field that could mean a different model.

    :param where: The file and the prefix of the fields' names, for messages.
    :param only: Allowed values of a field.
    :param harmless: Fields that have no effect here, or are read elsewhere.
    :param off: Values that mean that a field is not set.
    :raises CheckpointError: When a field is unknown or has another value.
    """
    for field, value in document.items():
        if field in harmless or value in off:
            continue
        found = one_line(repr(value))
        if field not in only:
            raise CheckpointError(
                f'{where}{one_line(field)} is {found}: this field is unknown and may change the '
                'model; remove it if it does not'
            )
        if value not in only[field]:
            listed = ' or '.join(repr(each) for each in only[field])
            raise CheckpointError(f'{where}{field} is {found}; only {listed} is supported')


def open_tensors(path: Path) -> Any:
    """Open a safetensors file, as a context.

    :raises CheckpointError: When it is missing or damaged.
    """
    check_file(path)
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f'{path}: damaged or cut short: {one_line(error)}; download it again'
        ) from None


def stored_shapes(file: Any, path: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an open file's tensors; no weight is read.

    :raises CheckpointError: When a tensor has an invalid name or an unsupported type.
    """
    shapes = {}
    for name in file.keys():  # noqa: SIM118 (not a dict)
        check_name(name, path)
        stored = file.get_slice(name)
        if stored.get_dtype() not in STORED:
            raise CheckpointError(other_numbers(path, name, stored.get_dtype()))
        shapes[name] = tuple(stored.get_shape())
    return shapes


def read_tensor(file: Any, name: str, path: Path) -> Tensor:
    """Read one tensor of an open file whose shapes were checked.

    :raises CheckpointError: When the file is damaged or ends too early.
    """
    try:
        return file.get_tensor(name)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f'{path}: {name}: damaged: {one_line(error)}; download it again'
        ) from None


def read_pt(path: Path) -> dict[str, Tensor]:
    """Load a dictionary of named tensors that ``torch.save`` wrote.

    :returns: Contiguous tensors that share no memory; views are copied.
    :raises CheckpointError: When it holds anything else.
    """
    check_file(path)
    try:
        with warnings.catch_warnings(action='ignore'):  # about tensors that are refused below
            state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged pickle may raise any type
        # PyTorch's own message advises executing the file's contents; it is not passed on
        wanted = re.search(r'GLOBAL ([\w.]+)', str(error))
        if wanted:
            raise CheckpointError(
                f'{path}: not plain weights: it holds a {wanted[1]}, and downloaded code is never '
                'executed; save only the state_dict, tensors by name'
            ) from None
        raise CheckpointError(
            f'{path}: not a file of weights, or damaged or cut short; download it again'
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f'{path}: does not hold named tensors')
    tensors = {}
    for name in list(state):
        check_name(name, path)
        value = state.pop(name)
        if not torch.is_tensor(value):
            raise CheckpointError(f'{path}: {name} is a {type(value).__name__}, not a tensor')
        check_dense(value, name, path)
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    return tensors


def check_name(name: str, path: Path) -> None:
    """Check that a tensor's name can be printed in a message.

    :raises CheckpointError: When it is too long, or not printable.
    """
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise CheckpointError(f'{path}: {name[:40]!r} is not a valid tensor name')
