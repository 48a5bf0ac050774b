"""How far an observation, and what the policy kept of it, are from the recorded ones.

The alarm uses what an inference has already: counts and places of the kept patches, state and
pictures. Each signal is compared with its range in recorded observations, of the same instruction
where there were enough of them (``docs/how-to/alarm.md``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.contract import Familiarity, Manifest, Proprio
from lightvla_ros.errors import ContractError
from lightvla_ros.policy.golden import references
from lightvla_ros.policy.likeness import Reference, thumbnail
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy, Prediction
from lightvla_ros.policy.preprocessor import fitted
from lightvla_ros.policy.state import LEAST_RANGE, RobotState, state_vector

QUANTILES = (0.01, 0.5, 0.99)
LEAST_OBSERVATIONS = 100  # fewer have no quantile of 1 %
LEAST_OF_INSTRUCTION = 20
ALARMING = 1.5  # score above which diagnostics warn: no observation of fresh layouts (docs/results)
# The least distance from the median to the quantiles, by the kind of signal: a signal that hardly
# varied in the recordings must not make an alarm of noise.
LEAST_DISTANCE = {
    'kept': 2.0,  # patches
    'spread': 0.02,  # of the picture's width
    'likeness': 0.02,  # of a correlation
    'brightness': 5.0,  # grey levels
    'contrast': 5.0,  # grey levels
    'state': 0.05,  # of the trained range
}
ONLY_BELOW, ONLY_ABOVE = ('likeness',), ('state',)  # the other side is no bad sign

Signals = dict[str, float]


@dataclass(frozen=True)
class Score:
    """What the alarm says of one observation.

    :param total: The largest of the parts. 1: as unusual as the most unusual 1 % of the recorded
        observations; 2: twice as far from what is usual.
    :param parts: By signal, in the same unit; 0 at the median.
    :param values: By signal, as measured.
    """

    total: float
    parts: dict[str, float]
    values: Signals

    @property
    def worst(self) -> str:
        """Name of the signal with the largest part."""
        return max(self.parts, key=self.parts.__getitem__)

    def __str__(self) -> str:
        return f'{self.total:.2f} by {self.worst} {self.values[self.worst]:.3g}'


class SignalReader:
    """Measures the signals of observations.

    :param references: By camera, what its recorded pictures have in common; empty: no likeness.
    """

    def __init__(self, manifest: Manifest, references: Mapping[str, Reference]) -> None:
        self._manifest = manifest
        self._references = references

    @classmethod
    def of(cls, policy_dir: Path, manifest: Manifest) -> SignalReader:
        """Make it with the folder's recorded pictures, if its golden ones are recorded.

        :raises ContractError: When it has no golden observations, or they are damaged.
        """
        found = references(policy_dir, manifest)
        pictures = found.pictures if found else {}
        return cls(manifest, {name: Reference.of(each) for name, each in pictures.items()})

    def measure(self, observation: Observation, prediction: Prediction) -> Signals:
        """Return the signals by name: ``KIND.CAMERA``, and ``state`` if the policy takes one.

        :param prediction: What the policy made of the observation.
        """
        manifest = self._manifest
        found: Signals = {}
        for slot, camera in enumerate(manifest.cameras):
            name = camera.name
            small = thumbnail(fitted(observation.images[name], camera))
            found[f'kept.{name}'] = float(prediction.kept[slot])
            found[f'spread.{name}'] = self._spread(prediction.kept_patches, slot)
            found[f'brightness.{name}'] = float(small.mean())
            found[f'contrast.{name}'] = float(small.mean(axis=2).std())
            if name in self._references:
                found[f'likeness.{name}'] = self._references[name].correlation(small)
        if manifest.proprio is not None and observation.state is not None:
            found['state'] = _excess(manifest.proprio, observation.state)
        return found

    def _spread(self, kept: np.ndarray, slot: int) -> float:
        """Return the root mean square distance of a camera's kept patches from their centre.

        :returns: As a fraction of the picture's width; 0 without a patch.
        """
        rows, columns = self._manifest.patch_grid
        own = kept[kept // (rows * columns) == slot] % (rows * columns)
        if not len(own):
            return 0.0
        places = np.stack(np.divmod(own, columns)) / columns
        return float(np.sqrt(places.var(axis=1).sum()))


def _excess(spec: Proprio, state: RobotState | np.ndarray) -> float:
    """Return how far the state's worst number is outside its bounds, as ``Outside.excess``.

    :returns: Negative inside of all bounds.
    """
    values = state_vector(spec, state) if isinstance(state, RobotState) else np.asarray(state)
    low, high = np.array(spec.q01), np.array(spec.q99)
    out = np.maximum(low - values, values - high) / np.maximum(high - low, LEAST_RANGE)
    return float(out.max())


class Alarm:
    """Scores observations by a folder's calibration."""

    def __init__(self, reader: SignalReader, usual: Familiarity, lowercase: bool) -> None:
        """Make it of a manifest's parts.

        :param lowercase: Whether the policy reads instructions in lower case.
        """
        self._reader = reader
        self._usual = usual
        self._lowercase = lowercase

    def judge(self, observation: Observation, prediction: Prediction) -> Score:
        """Return the score of an observation and of what the policy made of it."""
        values = self._reader.measure(observation, prediction)
        text = instruction_key(observation.instruction, self._lowercase)
        ranges = self._usual.by_instruction.get(text, self._usual.signals)
        parts = {
            name: deviation(name, value, ranges[name]) / self._usual.score
            for name, value in values.items()
            if name in ranges
        }
        return Score(max(parts.values()), parts, values)


def load_alarm(policy: Policy) -> Alarm | None:
    """Return the alarm of a policy; None if it was not calibrated.

    :raises ContractError: When its golden observations are damaged.
    """
    manifest = policy.manifest
    if manifest.familiarity is None:
        return None
    reader = SignalReader.of(policy.policy_dir, manifest)
    return Alarm(reader, manifest.familiarity, manifest.prompt.lowercase)


def deviation(name: str, value: float, usual: Sequence[float]) -> float:
    """Return how far a signal is from its median; 1 at its 1 % and 99 % quantiles.

    :param usual: 1 % quantile, median, 99 % quantile.
    """
    low, middle, high = usual
    sort = name.partition('.')[0]
    least = LEAST_DISTANCE[sort]
    if value < middle:
        return 0.0 if sort in ONLY_ABOVE else (middle - value) / max(middle - low, least)
    return 0.0 if sort in ONLY_BELOW else (value - middle) / max(high - middle, least)


def calibrate(policy: Policy, seen: Iterable[Observation]) -> dict[str, Any]:
    """Measure what is usual.

    :param seen: Recorded observations of everything that the policy is meant to do.
    :returns: The field ``familiarity`` of the manifest.
    :raises ContractError: When there are too few, or the folder has no golden observations.
    """
    manifest = policy.manifest
    reader = SignalReader.of(policy.policy_dir, manifest)
    rows: list[Signals] = []
    keys: list[str] = []
    for observation in seen:
        rows.append(reader.measure(observation, policy.infer(observation)))
        keys.append(instruction_key(observation.instruction, manifest.prompt.lowercase))
    if len(rows) < LEAST_OBSERVATIONS:
        raise ContractError(
            f'{policy.policy_dir}: {len(rows)} observations are too few to tell what is usual; '
            f'give at least {LEAST_OBSERVATIONS}, of several episodes of each task'
        )
    overall = _ranges(rows)
    by_instruction = _ranges_by_instruction(rows, keys)
    largest = [
        max(deviation(n, v, by_instruction.get(key, overall)[n]) for n, v in row.items())
        for row, key in zip(rows, keys, strict=True)
    ]
    return {
        'observations': len(rows),
        'score': max(float(np.quantile(largest, QUANTILES[2])), 1.0),
        'signals': overall,
        'by_instruction': by_instruction,
    }


def instruction_key(text: str, lowercase: bool) -> str:
    """Return the form in which an instruction is looked up."""
    text = ' '.join(text.split())
    return text.lower() if lowercase else text


def _ranges(rows: list[Signals]) -> dict[str, list[float]]:
    found = {name: np.quantile([row[name] for row in rows], QUANTILES) for name in rows[0]}
    return {name: each.round(6).tolist() for name, each in found.items()}


def _ranges_by_instruction(
    rows: list[Signals], keys: list[str]
) -> dict[str, dict[str, list[float]]]:
    """Return the ranges of each instruction with enough observations.

    Its median is its own. The distances from there to the quantiles are those of all such
    instructions together, because 1 % of some 30 observations is no number.
    """
    groups: dict[str, list[Signals]] = {}
    for row, key in zip(rows, keys, strict=True):
        groups.setdefault(key, []).append(row)
    groups = {key: group for key, group in groups.items() if len(group) >= LEAST_OF_INSTRUCTION}
    found: dict[str, dict[str, list[float]]] = {key: {} for key in groups}
    for name in rows[0] if groups else ():
        values = {key: np.array([row[name] for row in group]) for key, group in groups.items()}
        medians = {key: float(np.median(each)) for key, each in values.items()}
        apart = np.concatenate([each - medians[key] for key, each in values.items()])
        low, high = np.quantile(apart, (QUANTILES[0], QUANTILES[2]))
        for key, middle in medians.items():
            ends = middle + min(float(low), 0.0), middle, middle + max(float(high), 0.0)
            found[key][name] = [round(each, 6) for each in ends]
    return found
