"""The judgements of `lightvla doctor`, without ROS: streams, pictures, state, folder, libraries."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.doctor.findings import document, exit_code, failed, passed, report, warned
from lightvla_ros.doctor.installation import MODULES
from lightvla_ros.doctor.pictures import judge_pictures
from lightvla_ros.doctor.policy_folder import judge_engine, judge_folder
from lightvla_ros.doctor.robot_state import judge_gripper, judge_pose
from lightvla_ros.doctor.streams import Arrival, judge_clocks, judge_skews, judge_stream
from lightvla_ros.policy.golden import references
from lightvla_ros.policy.likeness import TURNS
from lightvla_ros.policy.state import RobotState
from lightvla_ros.runtime.inbox import Freshness

ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000
START = 1_000_000_000_000
LIMITS = Freshness(image_age=500 * MS, silence=500 * MS, camera_skew=30 * MS, state_skew=100 * MS)


def arrivals(rate=20.0, count=40, age=10 * MS, offset=0):
    """Return messages of a steady source."""
    stamps = [START + offset + round(index * 1e9 / rate) for index in range(count)]
    return [Arrival(stamp, stamp + age, stamp + age) for stamp in stamps]


def levels(findings):
    """Return the worst level of each subject."""
    order = {'pass': 0, 'warn': 1, 'fail': 2}
    return {f.subject: f.level for f in sorted(findings, key=lambda f: order[f.level])}


def of_stream(messages):
    found = levels(judge_stream('wrist', messages, LIMITS, 0.05))
    return found['wrist rate'], found['wrist stamps']


def test_a_steady_stream_passes():
    assert of_stream(arrivals()) == ('pass', 'pass')


@pytest.mark.parametrize(
    ('messages', 'found'),
    [
        (arrivals(rate=5.0, count=10), ('warn', 'pass')),
        (arrivals(rate=1.0, count=5), ('fail', 'pass')),
        (arrivals(count=2), ('fail', 'pass')),
        ([*arrivals()[:10], *arrivals()[13:]], ('warn', 'pass')),
        (arrivals(age=800 * MS), ('pass', 'fail')),
        (arrivals(age=300 * MS), ('pass', 'warn')),
        (arrivals(age=-200 * MS), ('pass', 'fail')),
        (arrivals(age=10**18), ('pass', 'fail')),
        ([Arrival(0, each.clock, each.steady) for each in arrivals()], ('pass', 'fail')),
        ([Arrival(START, each.clock, each.steady) for each in arrivals(count=6)], ('pass', 'warn')),
    ],
    ids=[
        'slow',
        'silent',
        'two',
        'dropped',
        'old',
        'late',
        'future',
        'simulated',
        'no stamp',
        'one',
    ],
)
def test_a_fault_of_a_stream_is_found(messages, found):
    assert of_stream(messages) == found


def test_the_volume_of_pictures_is_told():
    pictures = [replace(each, size=30_000) for each in arrivals(rate=20.0)]
    (finding,) = (f for f in judge_stream('wrist', pictures, LIMITS, 0.05) if 'Hz' in f.text)
    assert finding.text.startswith('20.0 Hz, 0.60 MB/s, jitter')


def test_stamps_of_another_clock_are_told_from_a_delay():
    (finding,) = (f for f in judge_stream('wrist', arrivals(age=10**18), LIMITS, 0.05) if f.cure)
    assert 'use_sim_time:=true' in finding.cure


def test_cameras_that_expose_apart_or_come_late_are_found():
    def camera_delay(other):
        pair = {'third_person': arrivals(), 'wrist': other}
        return levels(judge_skews(pair, {}, LIMITS))['camera delay']

    assert camera_delay(arrivals(offset=5 * MS)) == 'pass'
    assert camera_delay(arrivals(rate=60.0, count=120)) == 'pass'
    assert camera_delay(arrivals(rate=10.0, count=20, offset=24 * MS)) == 'pass'
    assert camera_delay(arrivals(age=150 * MS)) == 'warn'
    assert camera_delay(arrivals(age=1200 * MS)) == 'fail'
    # as far from each picture as the period allows
    slow = {'third_person': arrivals(rate=10.0), 'wrist': arrivals(rate=10.0, offset=50 * MS)}
    assert levels(judge_skews(slow, {}, LIMITS))['camera delay'] == 'fail'


def test_a_state_far_from_the_pictures_is_found():
    far = {'ee_pose': arrivals(count=3, offset=5_000 * MS)}
    assert levels(judge_skews({'wrist': arrivals()}, far, LIMITS))['ee_pose skew'] == 'fail'
    near = {'ee_pose': arrivals(rate=100.0, count=200)}
    assert levels(judge_skews({'wrist': arrivals()}, near, LIMITS))['ee_pose skew'] == 'pass'


@pytest.mark.parametrize(
    ('age', 'level'), [(30 * MS, 'pass'), (-20 * MS, 'warn'), (400 * MS, 'warn')]
)
def test_a_clock_that_differs_from_the_others_is_named(age, level):
    sources = {'third_person': arrivals(), 'wrist': arrivals(age=age)}
    (finding,) = judge_clocks(sources)
    assert finding.level == level
    assert level == 'pass' or 'wrist is' in finding.text


@pytest.fixture(scope='module')
def recorded(bundled_policy):
    return references(bundled_policy, load_manifest(bundled_policy))


TURNED = {
    'upside down (turned by 180 degrees)': lambda image: image[::-1, ::-1],
    'bottom-up (its lowest row first)': lambda image: image[::-1],
    'mirrored': lambda image: image[:, ::-1],
    'turned by 90 degrees to the right': lambda image: np.rot90(image, -1),
    'turned by 90 degrees to the left': lambda image: np.rot90(image, 1),
}


def without(recorded, index):
    """Return one recorded picture of each camera, and the references without it."""
    pictures = {name: images[index : index + 1] for name, images in recorded.pictures.items()}
    rest = {name: np.delete(images, index, axis=0) for name, images in recorded.pictures.items()}
    return pictures, rest


def judged(pictures, rest):
    return {f.subject: f for f in judge_pictures(pictures, rest)}


@pytest.mark.parametrize('index', range(6))
def test_pictures_of_the_robot_that_was_trained_on_pass(recorded, index):
    found = judged(*without(recorded, index))
    assert found['third_person view'].level == found['wrist view'].level == 'pass'


@pytest.mark.parametrize('turn', TURNED)
@pytest.mark.parametrize('camera', ['third_person', 'wrist'])
def test_a_turned_camera_is_found(recorded, turn, camera):
    assert set(TURNED) < set(TURNS)
    pictures, rest = without(recorded, 0)
    turned = {camera: np.array([TURNED[turn](image) for image in pictures[camera]])}
    finding = judged(pictures | turned, rest)[f'{camera} view']
    if (camera, turn) == ('wrist', 'mirrored'):  # the hand looks the same in a mirror
        assert 'this view cannot tell: mirrored' in finding.text
    else:
        assert finding.level == 'fail'
        assert f'if it is {turn}' in finding.text


def test_swapped_cameras_are_found(recorded):
    pictures, rest = without(recorded, 0)
    found = judged({'third_person': pictures['wrist'], 'wrist': pictures['third_person']}, rest)
    for camera in rest:
        assert found[f'{camera} view'].level == 'fail'
        assert 'swapped?' in found[f'{camera} view'].text


@pytest.mark.parametrize(
    ('gain', 'level'), [(1.1, 'pass'), (0.5, 'warn'), (0.2, 'fail'), (4.0, 'fail')]
)
def test_wrong_exposure_is_found(recorded, gain, level):
    pictures, rest = without(recorded, 0)
    dim = {name: np.clip(each * gain, 0, 255).astype(np.uint8) for name, each in pictures.items()}
    assert judged(dim, rest)['third_person exposure'].level == level


def test_exchanged_colours_are_found(recorded):
    pictures, rest = without(recorded, 0)
    found = judged({name: each[..., ::-1] for name, each in pictures.items()}, rest)
    assert found['wrist colours'].level == 'fail'
    assert 'wrist colours' not in judged(pictures, rest)


def test_a_view_of_something_else_is_a_warning(recorded):
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found = judged({'wrist': noise}, recorded.pictures)
    assert found['wrist view'].level == 'warn'


DOWN = (1.0, 0.0, 0.0, 0.0)


def of_pose(bundled_policy, recorded, position, quaternion=DOWN):
    spec = load_manifest(bundled_policy).proprio
    state = RobotState(np.array(position), np.array(quaternion) / np.linalg.norm(quaternion))
    return levels(judge_pose(spec, [state], recorded.states))


def test_the_start_pose_of_the_data_passes(bundled_policy, recorded):
    for quaternion in (DOWN, (-1.0, 0.0, 0.0, 0.0), (1.0, 0.05, 0.0, -0.03)):
        found = of_pose(bundled_policy, recorded, (-0.15, 0.0, 0.26), quaternion)
        assert set(found.values()) == {'pass'}


@pytest.mark.parametrize(
    ('position', 'quaternion', 'subject', 'level'),
    [
        ((0.307, 0.0, 0.487), DOWN, 'ee_position', 'fail'),  # an FR3's home in fr3_link0
        ((0.55, 0.1, 0.3), DOWN, 'ee_position', 'fail'),
        ((0.2, -0.1, 0.55), DOWN, 'start position', 'warn'),  # within the box of two tables
        ((-150.0, 5.0, 268.0), DOWN, 'ee_position', 'fail'),  # millimetres
        ((-0.15, 0.0, 0.26), (0.924, 0.383, 0.0, 0.0), 'start turn', 'warn'),  # the flange
        ((-0.15, 0.0, 0.26), (0.0, 0.0, 0.0, 1.0), 'quaternion', 'warn'),  # points up
        ((-0.15, 0.0, 0.26), (0.7, 0.0, 0.7, 0.0), 'start turn', 'warn'),
    ],
)
def test_a_pose_in_another_frame_is_found(
    bundled_policy, recorded, position, quaternion, subject, level
):
    assert of_pose(bundled_policy, recorded, position, quaternion)[subject] == level


def test_both_signs_of_the_quaternion_are_told(bundled_policy, recorded):
    spec = load_manifest(bundled_policy).proprio
    states = [
        RobotState(np.array([-0.15, 0.0, 0.26]), sign * np.array(DOWN)) for sign in (1, -1, 1)
    ]
    found = {f.subject: f for f in judge_pose(spec, states, recorded.states)}
    assert found['quaternion'].level == 'pass'
    assert 'both signs' in found['quaternion'].text


@pytest.mark.parametrize(
    ('finger', 'stands', 'level'),
    [
        (0.039, 'open', 'pass'),
        (0.001, 'closed', 'pass'),
        (0.001, 'open', 'fail'),
        (0.039, 'closed', 'fail'),
        (0.039, None, 'warn'),
        (0.020, 'open', 'warn'),
    ],
)
def test_the_sense_of_the_gripper(bundled_policy, finger, stands, level):
    spec = load_manifest(bundled_policy).proprio
    state = RobotState(fingers=np.array([finger, -finger]))
    assert levels(judge_gripper(spec, [state], stands))['gripper sense'] == level


def test_the_report_and_the_exit_code():
    found = [passed('a', 'fine'), warned('b', 'odd', 'look at it')]
    assert exit_code(found) == 0
    assert document(found)['passed']
    found.append(failed('c', 'broken', 'mend it'))
    assert exit_code(found) == 1
    text = report(found)
    assert re.search(r'^FAIL +c +broken\n +-> mend it\n1 pass, 1 warn, 1 fail$', text, re.MULTILINE)


def test_every_needed_library_is_looked_at():
    text = (ROOT / 'requirements/robot.txt').read_text()
    assert set(re.findall(r'^([\w-]+)>?=?', text, re.MULTILINE)) == set(MODULES)


def test_the_bundled_policy_passes(bundled_policy, tmp_path, capsys):
    out = tmp_path / 'found.json'
    assert main(['doctor', '--policy', str(bundled_policy), '--json', str(out)]) == 0
    assert ' 0 fail' in capsys.readouterr().out
    assert json.loads(out.read_text())['passed']


def test_a_damaged_folder_fails(bundled_policy, tmp_path, capsys):
    folder = shutil.copytree(bundled_policy, tmp_path / 'policy')
    (folder / 'act.onnx').write_bytes(b'')
    assert main(['doctor', '--policy', str(folder)]) == 1
    assert 'act.onnx' in capsys.readouterr().out


def test_drawn_observations_are_no_references(small_policy):
    assert references(small_policy, load_manifest(small_policy)) is None
    _, found = judge_folder(small_policy)
    by_subject = {f.subject: f for f in found}
    assert by_subject['references'].level == 'warn'
    assert by_subject['verified'].level == 'fail'
    engine = judge_engine(small_policy, 'onnxruntime', 1, provider='CPUExecutionProvider')
    assert engine.level == 'fail'
    assert 'lightvla verify' in engine.cure


def test_a_missing_engine_is_named(bundled_policy, capsys):
    assert main(['doctor', '--policy', str(bundled_policy), '--engine', 'tensorrt']) == 1
    said = capsys.readouterr().out
    assert re.search(r'FAIL +GPU', said)
    assert re.search(r'FAIL +tensorrt', said)


@pytest.mark.parametrize(
    'arguments', [['--live'], ['wrist_image:=/a'], ['--policy', 'x', '--live', 'wrist_image']]
)
def test_arguments_that_do_not_fit_are_refused(arguments, capsys, bundled_policy):
    arguments = [str(bundled_policy) if each == 'x' else each for each in arguments]
    assert main(['doctor', *arguments]) == 2
    assert capsys.readouterr().err.count('\n') == 1
