"""Judges what the cameras show, against the pictures that a policy folder has recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lightvla_ros.doctor.findings import Finding, failed, passed, warned
from lightvla_ros.policy.likeness import UPRIGHT, alike_turns, doubt, likeness

LEAST = 0.3  # likeness below which nothing recorded looks like what arrives
BRIGHTNESS = (1.5, 2.5)  # times brighter or darker than any recorded picture: warn, fail
CLIPPED = (0.1, 0.3)  # share of black or white pixels beyond that of the recorded ones: warn, fail
BLACK, WHITE = 5, 250  # grey levels
TONE = 0.05  # by how much the exchanged colours must be nearer than the colours as they are


def judge_pictures(
    found: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Judge mounting, exposure and colours of the cameras from which pictures came.

    :param found: By camera, uint8 [N, H, W, 3] RGB, as the policy sees them before its resize.
    :param references: Recorded pictures of all cameras, likewise, of any size.
    """
    for camera, images in found.items():
        yield _mounting(camera, images, references)
        yield _exposure(camera, images, references[camera])
        yield from _colours(camera, images, references[camera])


def _mounting(camera: str, images: np.ndarray, references: Mapping[str, np.ndarray]) -> Finding:
    subject = f'{camera} view'
    scores = {name: likeness(images, each) for name, each in references.items()}
    own = scores[camera]
    shown = ', '.join(f'{turn.partition(" (")[0]} {value:.2f}' for turn, value in own.items())
    others = ', '.join(
        f'as {name} {max(each.values()):.2f}' for name, each in scores.items() if name != camera
    )
    text = f'likeness {shown}' + (f'; {others}' if others else '')
    blind = [turn for turn in alike_turns(references[camera]) if turn in own]
    if blind:
        text += f' (this view cannot tell: {", ".join(blind)})'
    said = doubt(camera, scores)
    if said:
        cure = (
            'look at the PNG; exchange the remappings of the cameras'
            if 'swapped' in said
            else "look at the PNG; turn the camera or set its driver's flip, so that the picture "
            'stands as the recorded ones do'
        )
        return failed(subject, f'{said}; {text}', cure)
    if own[UPRIGHT] < LEAST:
        cure = 'look at the PNG: is it this camera, and does it stand where it stood in the data?'
        return warned(subject, f'unlike all recorded pictures; {text}', cure)
    return passed(subject, text)


def _exposure(camera: str, images: np.ndarray, references: np.ndarray) -> Finding:
    subject, cure = f'{camera} exposure', 'set exposure, gain and light as in the training data'
    level = float(images.mean())
    known = references.mean(axis=(1, 2, 3))
    low, high = float(known.min()), float(known.max())
    off = max(low / max(level, 1e-3), level / high)
    clipped = _clipped(images).mean() - _clipped(references).max()
    text = (
        f'mean brightness {level:.0f}, recorded {low:.0f} to {high:.0f} of 255; '
        f'{_clipped(images).mean():.0%} black or white'
    )
    for judge, most, share in zip((failed, warned), BRIGHTNESS[::-1], CLIPPED[::-1], strict=True):
        if off > most or clipped > share:
            return judge(subject, text, cure)
    return passed(subject, text)


def _clipped(images: np.ndarray) -> np.ndarray:
    """Return the share of black and of white pixels of each picture, float64 [N]."""
    return ((images.max(axis=3) <= BLACK) | (images.min(axis=3) >= WHITE)).mean(axis=(1, 2))


def _colours(camera: str, images: np.ndarray, references: np.ndarray) -> Iterator[Finding]:
    """Compare the tone with the recorded one; silent about what has no tone."""
    found, wanted = _tone(images), _tone(references)
    nearer = np.linalg.norm(found - wanted) - np.linalg.norm(found[::-1] - wanted)
    if nearer > TONE:
        cure = 'correct the encoding (rgb8 or bgr8) where the pictures are published'
        text = f'red and blue seem to be exchanged: red {found[0]:.2f}, recorded {wanted[0]:.2f}'
        yield failed(f'{camera} colours', f'{text} of the mean', cure)


def _tone(images: np.ndarray) -> np.ndarray:
    """Return red, green and blue as fractions of their mean, float64 [3]."""
    means = images.mean(axis=(0, 1, 2))
    return means / max(float(means.mean()), 1e-3)
