"""The alarm: its signals, its calibration, and the measure of how well it tells faults."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import MANIFEST_NAME, amend_manifest, load_manifest, parse_manifest
from lightvla_ros.errors import ContractError
from lightvla_ros.evaluate.planted_faults import planted_faults
from lightvla_ros.evaluate.ranking import auroc, auroc_interval
from lightvla_ros.policy.familiarity import (
    LEAST_OBSERVATIONS,
    SignalReader,
    calibrate,
    deviation,
    load_alarm,
)
from lightvla_ros.policy.golden import references
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy

ORDER = 'pick up the milk and place it in the basket'


def like_recorded(folder, count, seed=0):
    """Observations: the folder's golden pictures with a little noise and other light."""
    manifest = load_manifest(folder)
    random = np.random.default_rng(seed)
    golden = observations(manifest, read_golden(folder, manifest))
    for index in range(count):
        seen = golden[index % len(golden)]
        gain = random.uniform(0.95, 1.05)
        images = {
            name: np.clip(image * gain + random.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
            for name, image in seen.images.items()
        }
        yield replace(seen, images=images, instruction=ORDER)


@pytest.fixture(scope='module')
def calibrated(bundled_policy, tmp_path_factory):
    """The bundled policy with an alarm that knows its golden observations."""
    folder = tmp_path_factory.mktemp('alarm') / 'policy'
    shutil.copytree(bundled_policy, folder)
    with Policy.load(folder) as policy:
        found = calibrate(policy, like_recorded(folder, LEAST_OBSERVATIONS))
    amend_manifest(folder, familiarity=found)
    return folder


@pytest.fixture(scope='module')
def policy(calibrated):
    with Policy.load(calibrated) as loaded:
        yield loaded


def totals(policy, seen):
    alarm = load_alarm(policy)
    return np.array([alarm.judge(each, policy.infer(each)).total for each in seen])


def test_recorded_observations_are_familiar_and_a_covered_lens_is_not(policy, calibrated):
    recorded = list(like_recorded(calibrated, 30, seed=1))
    assert np.quantile(totals(policy, recorded), 0.9) < 1.2
    cover = planted_faults('third_person', (ORDER,))['third_person covered']
    assert totals(policy, map(cover, recorded)).min() > 2


def test_a_score_names_its_largest_part_and_what_was_measured(policy, calibrated):
    seen = next(like_recorded(calibrated, 1))
    far = replace(seen, state=np.array([9.0, *seen.state[1:]]))
    score = load_alarm(policy).judge(far, policy.infer(far))
    assert (score.worst, score.total) == ('state', score.parts['state'])
    spec = policy.manifest.proprio
    assert score.values['state'] == pytest.approx((9 - spec.q99[0]) / (spec.q99[0] - spec.q01[0]))
    wanted = {f'{kind}.{camera}' for kind in KINDS for camera in ('third_person', 'wrist')}
    assert set(score.parts) == wanted | {'state'}
    assert str(score).startswith(f'{score.total:.2f} by state ')


KINDS = ('kept', 'spread', 'brightness', 'contrast', 'likeness')


def test_kept_patches_are_counted_and_their_spread_is_one_camera_s(policy, calibrated):
    seen = next(like_recorded(calibrated, 1))
    corners = np.array([0, 7, 56, 63, 64 + 9])
    prediction = replace(policy.infer(seen), kept=(4, 1), kept_patches=corners)
    reader = SignalReader.of(calibrated, policy.manifest)
    found = reader.measure(seen, prediction)
    assert (found['kept.third_person'], found['kept.wrist']) == (4, 1)
    assert found['spread.third_person'] == pytest.approx(np.hypot(3.5, 3.5) / 8)
    assert found['spread.wrist'] == 0
    nothing = replace(prediction, kept=(0, 1), kept_patches=np.array([64]))
    assert reader.measure(seen, nothing)['spread.third_person'] == 0


def test_deviation_is_one_at_the_quantiles_and_knows_the_harmless_side():
    assert deviation('kept.wrist', 14, (4, 10, 14)) == 1
    assert deviation('kept.wrist', 4, (4, 10, 14)) == 1
    assert deviation('kept.wrist', 12, (10, 10, 10)) == 1  # two patches, where none varied
    assert deviation('likeness.wrist', 1.0, (0.8, 0.9, 0.92)) == 0
    assert deviation('state', -9.0, (-0.4, -0.2, 0.0)) == 0
    assert deviation('state', 0.2, (-0.4, -0.2, 0.0)) == pytest.approx(2)


def test_instructions_with_enough_observations_have_ranges_of_their_own(policy, calibrated):
    usual = policy.manifest.familiarity
    assert usual.observations == LEAST_OBSERVATIONS
    assert set(usual.by_instruction) == {ORDER}
    for name, wanted in usual.signals.items():
        assert usual.by_instruction[ORDER][name] == pytest.approx(wanted, abs=2e-6)
    seen = next(like_recorded(calibrated, 1))
    alarm = load_alarm(policy)
    told = [ORDER, f'  {ORDER.upper()} ', 'another instruction']
    found = [alarm.judge(replace(seen, instruction=t), policy.infer(seen)) for t in told]
    assert found[0] == found[1]
    assert found[2].total == pytest.approx(found[0].total, rel=1e-3)


def test_too_few_observations_are_refused(policy, calibrated):
    with pytest.raises(ContractError, match='9 observations are too few to tell what is usual'):
        calibrate(policy, like_recorded(calibrated, 9))


def test_a_folder_without_calibration_has_no_alarm(small_policy):
    with Policy.load(small_policy, unchecked=True) as policy:
        assert policy.manifest.familiarity is None
        assert load_alarm(policy) is None
        assert references(small_policy, policy.manifest) is None
        reader = SignalReader.of(small_policy, policy.manifest)
        (seen, *_) = observations(policy.manifest, read_golden(small_policy, policy.manifest))
        found = reader.measure(seen, policy.infer(seen))
    assert not any(name.startswith('likeness') for name in found), 'its pictures are drawn'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda usual: usual['signals'].update(state=[0, 2, 1]), 'state must ascend'),
        (lambda usual: usual['signals'].pop('state'), 'not the same signals for each instruction'),
        (lambda usual: usual.update(score=0), r'\$.familiarity.score'),
        (lambda usual: usual.update(signals={}), r'\$.familiarity.signals'),
    ],
)
def test_a_damaged_calibration_is_refused(calibrated, change, message):
    document = json.loads((calibrated / MANIFEST_NAME).read_text())
    change(document['familiarity'])
    with pytest.raises(ContractError, match=message):
        parse_manifest(document)


def test_the_area_counts_pairs_and_halves_ties():
    assert auroc(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert auroc(np.array([1.0]), np.array([1.0, 1])) == 0.5
    assert auroc(np.array([0.0, 2]), np.array([1.0])) == 0.5
    random = np.random.default_rng(0)
    high, low = random.integers(0, 9, 50), random.integers(0, 9, 70)
    pairs = high[:, None] - low
    assert auroc(high, low) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
    lower, upper = auroc_interval(high[:, None], low[:, None])
    assert lower < auroc(high, low) < upper


def test_faults_change_what_they_say_and_nothing_else(calibrated):
    seen = next(like_recorded(calibrated, 1))
    texts = tuple(sorted({ORDER, 'open the drawer', 'push the plate'}))
    for name, fault in planted_faults('third_person', texts).items():
        bad = fault(seen)
        changed = {
            camera for camera in seen.images if bad.images[camera] is not seen.images[camera]
        }
        told = bad.instruction != seen.instruction
        assert told == name.startswith('wrong instruction')
        assert changed == (
            set() if told else set(seen.images) if 'light' in name else {'third_person'}
        )
        assert all(image.dtype == np.uint8 for image in bad.images.values())
        assert bad.state is seen.state


def test_files_of_observations_are_calibrated_on_and_measured(bundled_policy, tmp_path, capsys):
    """The two commands on files as `lightvla alarm observe` writes them."""
    folder, files = tmp_path / 'policy', tmp_path / 'seen'
    shutil.copytree(bundled_policy, folder)
    amend_manifest(folder, familiarity=None)
    files.mkdir()
    for number in range(4):
        seen = list(like_recorded(folder, 26, number))
        np.savez(
            files / f'{number}.npz',
            images=np.array([list(each.images.values()) for each in seen]),
            instruction=np.array([each.instruction for each in seen]),
            proprio=np.array([each.state for each in seen]),
            success=np.array(number > 0),
        )
    measure = ['alarm', 'measure', str(folder), '--observations', str(files / '0.npz')]
    assert main(measure) == 1
    assert 'its alarm is not calibrated; run lightvla alarm calibrate' in capsys.readouterr().err
    assert main(['alarm', 'calibrate', str(folder), '--observations', str(files)]) == 0
    assert 'calibrated on 104 observations; 1 instructions' in capsys.readouterr().out
    out = tmp_path / 'found.json'
    assert main([*measure, str(files / '1.npz'), '--json', str(out)]) == 0
    found = json.loads(out.read_text())
    rows = {row['fault']: row for row in found['planted']}
    assert rows['third_person covered']['auroc'] > 0.99
    assert rows['third_person covered']['exceeded']['2'] == 1
    assert (found['failed']['failed'], found['failed']['solved']) == (1, 1)
    printed = capsys.readouterr().out
    assert all(f'{name} ...' in printed for name in rows)
    assert '1 episodes failed, 1 were solved' in printed
