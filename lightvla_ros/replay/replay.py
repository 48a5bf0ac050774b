"""Compares a policy's answers now with those of a recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightvla_ros.errors import DemonstrationError, EngineError, PolicyOutputError, one_line
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.tolerances import (
    TOLERANCES,
    ActionDifference,
    Tolerance,
    action_difference,
    jaccard,
    worst,
)
from lightvla_ros.replay.recorded import Inference


@dataclass(frozen=True)
class Difference:
    """One answer against the recorded one.

    :param identical: Whether kept patches and actions are the same, bit for bit.
    :param overlap: Of the kept patches: 1 when they are the same.
    :param actions: In the robot's motion.
    """

    number: int
    identical: bool
    overlap: float
    actions: ActionDifference


@dataclass
class Replay:
    """Runs recorded observations through a policy, and keeps the differences.

    :param exact: Whether the same engine must give the same bits; if not, the tolerances of its
        precision hold, as for another engine.
    """

    policy: Policy
    exact: bool = True
    differences: list[Difference] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    engines: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)

    def run(self, recorded: Inference) -> Difference | None:
        """Run one observation; None when it fails, which is noted.

        :raises DemonstrationError: When the policy is of another form.
        """
        policy = self.policy
        self.engines.add(f'{recorded.backend} {recorded.precision}')
        self.policies.add(recorded.policy)
        expected = policy.manifest.action.chunk_length
        if len(recorded.actions) != expected:
            raise DemonstrationError(
                f'inference {recorded.number}: a chunk has {len(recorded.actions)} steps, but '
                f'{policy.manifest.name} gives {expected}: it is another policy'
            )
        try:
            found = policy.infer(recorded.observation)
        except (ValueError, EngineError, PolicyOutputError) as error:
            self.failures.append(f'inference {recorded.number} fails: {one_line(error)}')
            return None
        same_kept = np.array_equal(found.kept_patches, recorded.kept)
        difference = Difference(
            recorded.number,
            same_kept and found.normalised.tobytes() == recorded.actions.tobytes(),
            jaccard(found.kept_patches, recorded.kept),
            action_difference(recorded.actions, found.normalised, policy.manifest.action),
        )
        self.differences.append(difference)
        return difference

    @property
    def engine(self) -> str:
        """Engine and precision that answer now."""
        return f'{self.policy.engine.backend} {self.policy.engine.precision}'

    @property
    def same_engine(self) -> bool:
        """Whether engine and policy are those of the recording."""
        return self.engines == {self.engine} and self.policies == {self.policy.manifest.fingerprint}

    @property
    def limits(self) -> Tolerance:
        """The tolerance of the coarsest precision among the compared ones."""
        recorded = {engine.split()[-1] for engine in self.engines} & TOLERANCES.keys()
        found = (TOLERANCES[name] for name in {self.policy.engine.precision, *recorded})
        return max(found, key=lambda each: each.millimetres)

    def agrees(self, difference: Difference) -> bool:
        """Return whether an answer has the recorded patches, and its steps within tolerance."""
        return difference.overlap == 1 and self.limits.allows(difference.actions)

    def faults(self) -> list[str]:
        """Return one line for everything that is not as it should be."""
        faults = list(self.failures)
        if not self.differences:
            return [*faults, 'no inference could be compared']
        other = [each.number for each in self.differences if not each.identical]
        if self.exact and self.same_engine:
            if other:
                faults.append(
                    f'{len(other)} of {len(self.differences)} answers of the same engine are not '
                    f'the recorded ones, the first is that of inference {other[0]}'
                )
            return faults
        limits = self.limits
        overlaps = [each.overlap for each in self.differences]
        if np.mean(overlaps) < limits.mean_jaccard or min(overlaps) < limits.min_jaccard:
            faults.append(
                f'kept patches overlap {np.mean(overlaps):.3f} on average and at worst '
                f'{min(overlaps):.3f}; at least {limits.mean_jaccard} and {limits.min_jaccard} are '
                'needed'
            )
        largest = self.figures()['same_kept']
        for name, limit in (
            ('millimetres', limits.millimetres),
            ('degrees', limits.degrees),
            ('gripper', limits.gripper),
            ('flips', 0),
        ):
            if largest[name] > limit:
                faults.append(
                    f'with the same kept patches {name} differ by {largest[name]:.3g}; at most '
                    f'{limit:g} is allowed'
                )
        return faults

    def figures(self) -> dict[str, Any]:
        """Return the differences in numbers."""
        overlaps = [each.overlap for each in self.differences]
        same = [each.actions for each in self.differences if each.overlap == 1]
        other = [each.actions for each in self.differences if each.overlap < 1]
        return {
            'compared': len(self.differences),
            'identical': sum(each.identical for each in self.differences),
            'overlap_mean': float(np.mean(overlaps)) if overlaps else None,
            'overlap_min': min(overlaps, default=None),
            'same_kept': worst(same),
            'other_kept': worst(other),
        }
