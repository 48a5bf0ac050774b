"""From trained weights to a policy folder, ready for ``models/export_trt.py``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lightvla_ros.contract import Manifest, write_manifest
from lightvla_ros.files import new_folder, replace_whole
from lightvla_ros.train.start import TOKENIZER

GROUP_BYTES = 4 * 2**30  # of weights in one file


def write_policy(
    folder: Path,
    weights: Mapping[str, Tensor],
    document: Mapping[str, Any],
    tokenizer: Path,
    provenance: Mapping[str, Any],
) -> Manifest:
    """Write a policy folder as a whole: it appears under its name when it is complete.

    :param weights: Of ``LightVLA``, by its names.
    :param document: The manifest's, without names of weights.
    :raises FileExistsError: When the folder holds something.
    :raises WriteError: When the disk is full; there is no such folder then.
    """
    new_folder(folder)
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in weights.items():
        if size + value.nbytes > GROUP_BYTES and groups[-1]:
            groups.append({})
            size = 0
        groups[-1][name] = value.detach().contiguous()
        size += value.nbytes
    names = ['model.safetensors']
    if len(groups) > 1:
        names = [f'model-{index:05d}.safetensors' for index in range(len(groups))]
    model = {**document['model'], 'weights': names}
    before = document.get('provenance') or {}
    needed = sum(value.nbytes for group in groups for value in group.values())
    with replace_whole(folder, needed) as part:  # an empty folder may be replaced
        part.mkdir()
        for name, group in zip(names, groups, strict=True):
            save_file(group, part / name)
        shutil.copyfile(tokenizer, part / TOKENIZER)
        return write_manifest(
            part,
            {
                **document,
                'model': model,
                'provenance': {**provenance, **({'from': before} if before else {})},
            },
        )
