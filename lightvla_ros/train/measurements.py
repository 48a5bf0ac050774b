"""Measurements on held-out frames: errors, and what the kept patches show."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lightvla_ros.train.alignment import NO_LABEL
from lightvla_ros.train.losses import Batch, Losses
from lightvla_ros.train.object_words import ROBOT, ObjectClasses

DIMENSIONS = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper')
PLACES = ('named', 'robot', 'other', 'background')


def places_of(
    labels: Tensor, instruction: np.ndarray, texts: list[str], classes: ObjectClasses
) -> Tensor:
    """Sort patches by what they show.

    :param labels: int64 [B, Lv] (``alignment.patch_labels``).
    :param instruction: int64 [B], index into ``texts``.
    :returns: int64 [B, Lv], index into ``PLACES``: an object named in the instruction, the robot
        (only its gripper; the arm is background), another object, background.
    """
    named = torch.from_numpy(np.stack([classes.named_in(texts[index]) for index in instruction]))
    table = torch.full((len(labels), len(classes.words) + 1), PLACES.index('other'))
    table[:, :-1][named] = PLACES.index('named')
    if ROBOT in classes.words:
        table[:, classes.words.index(ROBOT)] = PLACES.index('robot')
    table[:, 0] = PLACES.index('background')
    # the last column: an object without words counts as another object
    return table.gather(1, labels.where(labels != NO_LABEL, len(classes.words)))


@torch.no_grad()
def measure(
    losses: Losses,
    batches: Iterable[tuple[Batch, Tensor | None]],
    cameras: tuple[str, ...],
    mode: str,
) -> dict[str, float]:
    """Run the model in evaluation mode.

    :param batches: Batches with the places of their patches (:func:`places_of`), or None.
    :param mode: See :meth:`Losses.forward`.
    :returns: Means by name, for the log.
    """
    losses.eval()
    found: list[dict[str, Tensor]] = []
    shares: list[tuple[Tensor, Tensor]] = []  # counts over PLACES of kept patches, and of all
    for batch, places in batches:
        values = losses(batch, mode=mode, measure=True)
        found.append(values)
        if places is not None and 'kept' in values:
            kept = values['kept'].cpu()
            shares.append((_count(places[kept]), _count(places.flatten())))
    losses.train()
    if not found:
        return {}
    report: dict[str, float] = {}
    if 'error' in found[0]:
        error = torch.cat([each['error'].flatten(0, 1) for each in found]).mean(0)  # [7]
        report['held_out_l1'] = float(error.mean())
        report |= {
            f'held_out_l1_{name}': float(value)
            for name, value in zip(DIMENSIONS, error, strict=True)
        }
    for name in ('alignment', 'where', 'right', 'right_objects'):
        if name in found[0]:
            report[f'held_out_{name}'] = float(torch.stack([each[name] for each in found]).mean())
    if 'kept' in found[0]:
        kept = torch.cat([each['kept'] for each in found])
        counts = kept.sum(1).float()
        report['kept'] = float(counts.mean())
        report['kept_sd'] = float(counts.std(correction=0))
        per_camera = kept.unflatten(1, (len(cameras), -1)).sum(-1).float().mean(0)
        report |= {
            f'kept_{name}': float(count) for name, count in zip(cameras, per_camera, strict=True)
        }
        report['tied'] = float(torch.cat([each['tied'] for each in found]).float().mean())
    if 'spread' in found[0]:
        report['query_cosine'] = float(torch.cat([each['spread'] for each in found]).mean())
    if shares:
        for label, counts in zip(('kept', 'all'), map(sum, zip(*shares, strict=True)), strict=True):
            total = float(counts.sum())
            report |= {
                f'{label}_on_{place}': float(count) / total
                for place, count in zip(PLACES, counts, strict=True)
            }
    return report


def _count(places: Tensor) -> Tensor:
    return torch.bincount(places, minlength=len(PLACES))
