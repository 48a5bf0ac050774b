"""``lightvla verify``: checks that the engines of a policy folder compute what was trained.

Every engine is compared with PyTorch if the folder holds weights and PyTorch is installed, and
otherwise with PyTorch's outputs for the golden observations, recorded at export. The kept tokens
are compared first, because actions can be compared only where they are equal. Then the actions are
compared in every bucket. Finally padding must not change a single bit of the output: the ids that
pad the prompt for every engine, and on a CPU also the content of dropped tokens. The results are
written into the manifest; a node runs only engines that have passed.
"""

from __future__ import annotations

import datetime
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.contract import Manifest, Trial, Verification, amend_manifest, load_manifest
from lightvla_ros.engine.base import Encoded, PromptIds, smallest_bucket
from lightvla_ros.errors import ContractError, EngineError
from lightvla_ros.policy.golden import random_inputs
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import Observation, observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.tolerances import (
    TOLERANCES,
    ActionDifference,
    action_difference,
    jaccard,
    worst,
)
from lightvla_ros.verify.prompts import check_prompts
from lightvla_ros.verify.variants import Variant, choose, variants

SEED = 20261125


@dataclass(frozen=True)
class Expected:
    """The reference's output for one observation.

    :param kept: int64 [K], ascending.
    :param actions: float32 [chunk_length, 7] by bucket.
    """

    kept: np.ndarray
    actions: dict[int, np.ndarray]


@dataclass(frozen=True)
class Reference:
    """The outputs with which engines are compared.

    :param kind: ``torch`` or ``golden``; both are in fp32.
    """

    kind: str
    cases: list[tuple[Observation, Expected]]


@dataclass
class Comparison:
    """The differences of one engine found so far."""

    jaccards: list[float] = field(default_factory=list)
    wrong_positions: int = 0  # observations whose position ids do not ascend
    same: list[ActionDifference] = field(default_factory=list)  # where the kept sets are equal
    other: list[ActionDifference] = field(default_factory=list)
    buckets: dict[int, float] = field(default_factory=dict)  # largest error, normalised
    padding_matters: bool = False
    not_finite: int = 0  # outputs with NaN or infinity


def verify(
    policy_dir: Path,
    *,
    only: str | None = None,
    precision: str | None = None,
    provider: str | None = None,
    compiled: bool = True,
    count: int = 8,
    threads: int = 1,
) -> tuple[list[Verification], list[str]]:
    """Compare engines with the reference; :func:`choose` selects the engines.

    :param only: Name of one engine, to verify only its variants.
    :param precision: Precision in which engines compute; the folder's own when None.
    :param provider: ONNX Runtime's name of an execution provider, to verify only its variants.
    :param compiled: Whether ``torch-cuda`` compiles its blocks.
    :param count: Number of random observations in addition to the golden ones; they need PyTorch.
    :returns: A verification of each engine that passed or had to pass, and a line for each engine
        that cannot be used here.
    :raises ContractError: When the folder cannot be trusted or holds no graphs, or when different
        instructions become the same prompt.
    :raises EngineError: When ONNX Runtime has no such provider here.
    """
    manifest = load_manifest(policy_dir)
    if manifest.golden is None:
        raise ContractError(
            f'{policy_dir}: it is not exported, so there is no engine yet; export it first: '
            f'lightvla export --policy {policy_dir} --out DIR'
        )
    if provider is not None:
        # imported here, because a robot may have only another engine
        from lightvla_ros.engine.onnxruntime import check_provider

        check_provider(provider)
    choice = choose(manifest, variants(manifest, only, compiled), only, precision, provider)
    reference = _reference(policy_dir, manifest, count, threads)
    check_prompts(policy_dir, manifest, [case.instruction for case, _ in reference.cases])
    found, unusable = [], []
    for variant in (*choice.deciding, *choice.trying):
        try:
            verification = _verification(policy_dir, variant, reference, threads)
        except EngineError as error:
            unusable.append(f'{variant}: {error}')
            continue
        if verification.passed or variant in choice.deciding:
            found.append(verification)
        else:
            unusable.append(f'{variant}: {"; ".join(verification.figures["faults"])}')
    why = f'{precision} was named'
    if precision is None and manifest.graphs is not None:
        why = f'the folder is in {manifest.graphs.precision}'
    unusable += [
        f'{variant}: not tried, because {why}; to try it, '
        f'add --engine {variant.name} --precision {variant.precision}'
        for variant in choice.left
    ]
    return found, unusable


def _verification(
    policy_dir: Path, variant: Variant, reference: Reference, threads: int
) -> Verification:
    """Compare one engine.

    :raises EngineError: When it cannot be loaded.
    """
    policy = Policy.load(policy_dir, variant.name, threads, unchecked=True, **variant.options)
    try:
        figures, faults = _judge(_compare(policy, reference.cases), policy.engine.precision)
    except EngineError as error:
        figures, faults = {}, [str(error)]
    finally:
        policy.close()
    return Verification(
        fingerprint=policy.engine.fingerprint,
        backend=policy.engine.backend,
        precision=policy.engine.precision,
        date=datetime.date.today().isoformat(),
        reference=reference.kind,
        passed=not faults,
        figures=figures | {'faults': faults},
    )


def news(policy_dir: Path, found: list[Verification]) -> list[Verification]:
    """Return the verifications that the manifest does not contain yet.

    It contains one if the same engine has the same verdict against an equal or better reference;
    PyTorch is better than recorded outputs. Date and figures, which differ a little between
    processors, stay those of the first verification.

    :raises ContractError: When the folder cannot be trusted.
    """
    said = {each.fingerprint: each for each in load_manifest(policy_dir).verified}
    return [each for each in found if not _says(said.get(each.fingerprint), each)]


def _says(old: Verification | None, new: Verification) -> bool:
    if old is None or old.passed != new.passed:
        return False
    return old.reference == new.reference or old.reference == 'torch'


def write_verifications(policy_dir: Path, found: list[Verification]) -> None:
    """Write verifications into the manifest; they replace older ones of the same engines.

    The trials of an older one remain.

    :raises OSError: When the manifest cannot be written.
    """
    old = {each.fingerprint: each for each in load_manifest(policy_dir).verified}  # as it is now
    new = {
        each.fingerprint: replace(each, trials=old[each.fingerprint].trials)
        if each.fingerprint in old
        else each
        for each in found
    }
    _write(policy_dir, [*(each for key, each in old.items() if key not in new), *new.values()])


def write_trial(policy_dir: Path, fingerprint: str, trial: Trial) -> None:
    """Write a trial of a verified engine into the manifest; it replaces one of the same kind.

    :raises ContractError: When the manifest has no verification of this engine.
    :raises OSError: When the manifest cannot be written.
    """
    verified = {each.fingerprint: each for each in load_manifest(policy_dir).verified}
    if fingerprint not in verified:
        raise ContractError(
            f'{policy_dir}: the verification of the engine ({fingerprint[:12]}) was removed '
            'meanwhile; run the same command again'
        )
    others = (each for each in verified[fingerprint].trials if each.kind != trial.kind)
    verified[fingerprint] = replace(verified[fingerprint], trials=(*others, trial))
    _write(policy_dir, list(verified.values()))


def _write(policy_dir: Path, verified: list[Verification]) -> None:
    amend_manifest(policy_dir, verified=[each.as_dict() for each in verified])


def _reference(policy_dir: Path, manifest: Manifest, count: int, threads: int) -> Reference:
    golden = read_golden(policy_dir, manifest)
    if manifest.model is None or not importlib.util.find_spec('torch'):
        answers = zip(golden['kept'], golden['actions'], strict=True)
        expected = []
        for kept, actions in answers:
            bucket = smallest_bucket(manifest.tokens.buckets, int(kept.sum()))
            holding = [each for each in manifest.tokens.buckets if each >= bucket]
            expected.append(Expected(np.flatnonzero(kept), dict.fromkeys(holding, actions)))
        cases = list(zip(observations(manifest, golden), expected, strict=True))
        return Reference('golden', cases)
    drawn = random_inputs(manifest, count, SEED)
    seen = observations(manifest, golden) + observations(manifest, drawn)
    with Policy.load(policy_dir, 'torch', threads) as policy:
        cases = [(each, Expected(*_answer(policy, each))) for each in seen]
    answers = (actions for _, each in cases for actions in each.actions.values())
    if not all(np.isfinite(actions).all() for actions in answers):
        raise ContractError(f'{policy_dir}: PyTorch itself returns NaN or infinity for its weights')
    return Reference('torch', cases)


def _answer(policy: Policy, observation: Observation) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Run every bucket; a bucket smaller than the kept set takes its first tokens."""
    encoded = policy.engine.encode(*policy.prepare(observation))
    kept = policy.engine.kept_patches(encoded)
    buckets = policy.manifest.tokens.buckets
    return kept, {bucket: policy.engine.act(encoded, bucket) for bucket in buckets}


def _compare(policy: Policy, cases: list[tuple[Observation, Expected]]) -> Comparison:
    comparison = Comparison()
    for observation, expected in cases:
        kept, actions = _answer(policy, observation)
        comparison.jaccards.append(jaccard(expected.kept, kept))
        comparison.wrong_positions += int((np.diff(kept) <= 0).any())
        same = np.array_equal(expected.kept, kept)
        for bucket, wanted in expected.actions.items():
            if not same and bucket < max(len(kept), len(expected.kept)):
                continue  # the bucket would cut two different sets: their outputs do not compare
            if not np.isfinite(actions[bucket]).all():
                comparison.not_finite += 1
                continue
            error = action_difference(wanted, actions[bucket], policy.manifest.action)
            (comparison.same if same else comparison.other).append(error)
            if same:
                worst = float(np.abs(wanted - actions[bucket]).max())
                comparison.buckets[bucket] = max(worst, comparison.buckets.get(bucket, 0.0))
    comparison.padding_matters = not all(_padding_has_no_say(policy, cases[0][0]))
    return comparison


def _padding_has_no_say(policy: Policy, observation: Observation) -> Iterator[bool]:
    """Yield whether the actions stay bit for bit the same when padding has other content."""
    pixels, prompt, proprio = policy.prepare(observation)
    engine, full = policy.engine, policy.manifest.tokens.buckets[-1]
    encoded = engine.encode(pixels, prompt, proprio)
    before = engine.act(encoded, full)
    if encoded.tensors:  # only if the host can access them
        _overwrite_dropped(encoded)
        yield np.array_equal(before, engine.act(encoded, full))
    other = PromptIds(np.where(prompt.mask, prompt.ids, prompt.ids.max()), prompt.mask)
    yield np.array_equal(before, engine.act(engine.encode(pixels, other, proprio), full))


def _overwrite_dropped(encoded: Encoded) -> None:
    count = sum(encoded.kept)
    encoded.tensors['tokens'][:, count:] = 100
    encoded.tensors['positions'][:, count:] = 0


def _judge(found: Comparison, precision: str) -> tuple[dict[str, Any], list[str]]:
    """Return the figures, and a line for each fault in them."""
    limits = TOLERANCES[precision]
    figures = {
        'observations': len(found.jaccards),
        'jaccard_mean': float(np.mean(found.jaccards)),
        'jaccard_min': float(np.min(found.jaccards)),
        'wrong_positions': found.wrong_positions,
        'same_kept': worst(found.same),
        'other_kept': worst(found.other),
        'bucket_errors': {str(key): value for key, value in sorted(found.buckets.items())},
        'padding_matters': found.padding_matters,
        'not_finite': found.not_finite,
    }
    faults = []
    if figures['jaccard_mean'] < limits.mean_jaccard or figures['jaccard_min'] < limits.min_jaccard:
        faults.append(
            f'kept sets overlap {figures["jaccard_mean"]:.3f} on average and at worst '
            f'{figures["jaccard_min"]:.3f}; at least {limits.mean_jaccard} and '
            f'{limits.min_jaccard} are needed'
        )
    if found.wrong_positions:
        faults.append(f'position ids of {found.wrong_positions} observations do not ascend')
    largest = figures['same_kept']
    if largest['millimetres'] > limits.millimetres or largest['degrees'] > limits.degrees:
        faults.append(
            f'with the same kept set steps differ by {largest["millimetres"]:.3g} mm and '
            f'{largest["degrees"]:.3g} degrees; at most {limits.millimetres} and '
            f'{limits.degrees} are allowed'
        )
    if largest['gripper'] > limits.gripper:
        faults.append(
            f'with the same kept set the gripper differs by {largest["gripper"]:.3g} of its '
            f'opening; at most {limits.gripper} is allowed'
        )
    if largest['flips']:
        faults.append(f'with the same kept set {largest["flips"]} gripper commands are flipped')
    if not found.same:
        faults.append('no observation has the same kept set, so no action could be compared')
    if found.not_finite:
        faults.append(f'{found.not_finite} outputs hold NaN or infinity')
    if found.padding_matters:
        faults.append('the content of padding changes the actions')
    return figures, faults
