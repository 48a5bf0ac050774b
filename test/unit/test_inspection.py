"""`lightvla data inspect` names what ruins a training, and nothing where nothing does."""

import json
import shutil

import cv2
import data_rig as rig
import h5py
import numpy as np
import pytest
import yaml

from lightvla_ros.cli import main
from lightvla_ros.contract import MANIFEST_NAME, amend_manifest, load_manifest
from lightvla_ros.policy.golden_file import read_golden

ROWS = 60


def scene(camera, row):
    """A picture that has an up and a down, as the policy's reference below has."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[: 8 if camera == 0 else 24] = (200, 60, 40) if camera == 0 else (30, 160, 60)
    image[:, : 6 if camera == 0 else 16] //= 2
    image[20:28, row % 20 : row % 20 + 8] = 255
    return image


def write(path, order='before', lag=0, episodes=3):
    """An arm that covers each of its steps; with ``lag`` rows of delay."""
    with h5py.File(path, 'w') as file:
        for number in range(episodes):
            random = np.random.default_rng(number)
            steps = random.normal(0, 0.01, (ROWS + 1, 3))
            moved = np.vstack([np.zeros((lag, 3)), steps])[: ROWS + 1]
            position = np.vstack([[0.4, 0, 0.3], [0.4, 0, 0.3] + np.cumsum(moved, axis=0)])
            first = int(order == 'after')
            trial = file.create_group(f'trials/trial{number}')
            trial.attrs['task'] = rig.INSTRUCTION
            closed = np.arange(ROWS) >= ROWS // 2
            trial['state'] = np.column_stack(
                [
                    position[first : ROWS + first],
                    np.tile([1.0, 0, 0, 0], (ROWS, 1)),
                    np.where(np.arange(ROWS) >= ROWS // 2 + 5, 0.03, 0.08),
                ]
            )
            turns = random.normal(0, 0.02, (ROWS, 3))
            trial['action'] = np.column_stack([steps[:ROWS], turns, ~closed])
            for camera, name in enumerate(('front', 'hand')):
                trial[f'images/{name}'] = [scene(camera, row) for row in range(ROWS)]
    return path


@pytest.fixture
def inspect(tmp_path, capsys):
    """Inspect a file with the rig's data YAML, changed; return the warnings."""

    def work(path, edit=None, *more):
        document = rig.mapping('hdf5')
        if edit is not None:
            edit(document)
        mapping = tmp_path / 'data.yaml'
        mapping.write_text(yaml.safe_dump(document))
        sheet = tmp_path / 'sheet.png'
        arguments = ['data', 'inspect', str(path), '--mapping', str(mapping), '--sheet', str(sheet)]
        assert main([*arguments, *map(str, more)]) == 0
        work.said = capsys.readouterr().out
        work.sheet = cv2.imread(str(sheet))
        return [line for line in work.said.splitlines() if line.startswith('WARNING: ')]

    return work


@pytest.fixture(scope='session')
def reference(policy_dir, tmp_path_factory):
    """A policy whose recorded pictures are those of the scene."""
    folder = shutil.copytree(policy_dir, tmp_path_factory.mktemp('like') / 'policy')
    manifest = load_manifest(folder)
    arrays = read_golden(folder, manifest)
    count = len(arrays['images'])
    arrays['images'] = np.array(
        [[scene(camera, row) for camera in range(2)] for row in range(count)]
    )
    np.savez_compressed(folder / 'seen.npz', **arrays)
    golden = json.loads((folder / MANIFEST_NAME).read_text())['golden'] | {'file': 'seen.npz'}
    amend_manifest(folder, new_files=['seen.npz'], golden=golden)
    return folder


def change(path, name, edit):
    """Replace a dataset of each episode."""
    with h5py.File(path, 'a') as file:
        for trial in file['trials'].values():
            values = edit(trial[name][()])
            del trial[name]
            trial[name] = values
    return path


def test_nothing_is_said_of_sound_data(tmp_path, inspect, reference):
    figures = tmp_path / 'figures.json'
    path = write(tmp_path / 'own.hdf5')
    assert inspect(path, None, '--like', reference, '--json', figures) == []
    assert '3 episodes of 60 to 60 steps, 9.0 s at 20 Hz; 180 rows with pictures' in inspect.said
    assert f'     3  "{rig.INSTRUCTION}"' in inspect.said
    found = json.loads(figures.read_text())
    assert found['gain'] == pytest.approx(1, abs=0.01)
    assert found['by_lag']['0'] > 0.99
    assert found['rows_without_pictures'] == 0
    assert found['action']['gripper']['mean'] == 0.5


def test_the_contact_sheet_shows_both_cameras_upright(tmp_path, inspect):
    inspect(write(tmp_path / 'own.hdf5', episodes=2))
    sheet = inspect.sheet[..., ::-1]  # RGB
    assert sheet.shape[1] == 6 * 164
    # below two lines of text: the third person's first picture, red above and dark below
    first = sheet[40 : 40 + 160, :160]
    assert first[10, 100].tolist() == [200, 60, 40]
    assert first[150, 5].tolist() == [0, 0, 0]


def test_a_slow_arm_is_no_wrong_order(tmp_path, inspect):
    assert inspect(write(tmp_path / 'own.hdf5', lag=1)) == []


def test_the_wrong_order_is_found_from_the_states(tmp_path, inspect):
    (said,) = inspect(write(tmp_path / 'own.hdf5', order='after'))
    assert 'changes of the motion are those of the next step' in said
    assert 'observations were made after their actions' in said

    def after(document):
        document['order'] = 'after'

    assert inspect(write(tmp_path / 'right.hdf5', order='after'), after) == []
    (said,) = inspect(write(tmp_path / 'slow.hdf5', order='before', lag=1), after)
    assert 'a slow controller, or observations were made before their actions' in said


def of_action(**fields):
    def edit(document):
        document['action']['translation'] |= fields

    return edit


@pytest.mark.parametrize(
    ('edit', 'said'),
    [
        (of_action(unit='mm'), 'the arm moves 1e+03 m for each metre of its steps'),
        (of_action(unit=0.05), 'the arm moves 20 m for each metre of its steps'),
        (of_action(unit=1000.0), 'the arm moves 0.001 m for each metre'),
        (of_action(unit=-1.0), 'the arm moves against its steps'),
        (of_action(at=[3, 4, 5]), None),
    ],
    ids=['mm', 'metres for numbers', '1000', 'sign', 'elsewhere'],
)
def test_units_and_places_of_actions(tmp_path, inspect, edit, said):
    found = inspect(write(tmp_path / 'own.hdf5'), edit)
    if said is None:  # steps that have nothing to do with the motion: the figures show it
        assert 'likeness 0.0' in inspect.said or 'likeness -0.0' in inspect.said
    else:
        assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ('name', 'edit', 'said'),
    [
        ('state', lambda v: v * ([1000] * 3 + [1] * 5), 'is the unit mm'),
        ('state', lambda v: v * ([1e-4] * 3 + [1] * 5), 'the hand does not move'),
        ('state', lambda v: v * ([1] * 7 + [1000]), 'a finger stands at'),
        ('state', lambda v: v * ([1] * 7 + [0]), 'the fingers do not move'),
        ('action', lambda v: v * [0, 1, 1, 1, 1, 1, 1], 'the action x never changes'),
        ('action', lambda v: v * [1, 1, 1, 100, 100, 100, 1], 'is the unit deg'),
        (
            'action',
            lambda v: np.where(np.arange(ROWS)[:, None] % 2, v, v * ([0] * 6 + [1])),
            'of the steps do nothing',
        ),
        ('action', lambda v: v * [1, 1, 1, 1, 1, 1, 0.08], 'the gripper command hardly changes'),
        ('action', lambda v: v * [1, 1, 1, 1, 1, 1, 255], 'the gripper command goes from'),
        (
            'action',
            lambda v: np.column_stack([v[:, :6], 1 - v[:, 6]]),
            'open and closed are exchanged',
        ),
        ('images/hand', lambda v: v * 0, 'wrist: 18 of 18 pictures looked at are blank'),
        ('images/hand', lambda v: v[:1].repeat(ROWS, axis=0), 'the picture stands'),
    ],
)
def test_planted_faults_are_named(tmp_path, inspect, name, edit, said):
    found = inspect(change(write(tmp_path / 'own.hdf5'), name, edit))
    assert any(said in line for line in found), found


def test_a_hand_between_q_and_minus_q_is_named(tmp_path, inspect):
    def edit(values):
        # half a turn about y, and a little to either side: at right angles to pointing down
        angle = 0.1 * (np.arange(ROWS) % 2 - 0.5)
        turn = np.column_stack([np.sin(angle), np.cos(angle), 0 * angle, 0 * angle])
        return np.column_stack([values[:, :3], turn, values[:, 7]])

    found = inspect(change(write(tmp_path / 'own.hdf5'), 'state', edit))
    assert any('q and -q change places' in line for line in found), found


def cameras(**changes):
    def edit(document):
        for name, fields in changes.items():
            document['cameras'][name] |= fields

    def named(document):
        document['cameras']['third_person'] = {'name': 'images/front'}
        edit(document)

    return named


@pytest.mark.parametrize(
    ('edit', 'said'),
    [
        (
            cameras(third_person={'name': 'images/hand'}, wrist={'name': 'images/front'}),
            "third_person: looks more like the policy's wrist",
        ),
        (cameras(wrist={'rotate': 180}), 'wrist: is most like the policy'),
        (cameras(third_person={'bottom_up': True}), 'if it is bottom-up'),
        (
            cameras(third_person={'name': 'images/hand'}),
            'both cameras show the same pictures; one is named twice',
        ),
    ],
    ids=['swapped', 'upside down', 'bottom-up', 'one twice'],
)
def test_cameras_are_compared_with_those_of_a_policy(tmp_path, inspect, reference, edit, said):
    found = inspect(write(tmp_path / 'own.hdf5'), edit, '--like', reference)
    assert any(said in line for line in found), found


def test_what_is_assumed_of_a_file_is_part_of_the_report(tmp_path, capsys):
    path = tmp_path / 'pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5'
    with h5py.File(path, 'w') as file:
        demo = file.create_group('data/demo_0')
        demo['actions'] = np.random.default_rng(0).uniform(-1, 1, (20, 7))
        for name, shape in (('ee_states', (20, 6)), ('gripper_states', (20, 2))):
            demo[f'obs/{name}'] = np.random.default_rng(0).normal(0, 0.1, shape)
        for camera, name in enumerate(('agentview', 'eye_in_hand')):
            demo[f'obs/{name}_rgb'] = [scene(camera, row) for row in range(20)]
    assert main(['data', 'inspect', str(path), '--sheet', str(tmp_path / 's.png')]) == 0
    said = capsys.readouterr().out
    assert f'left out or assumed: {path}: has no macros_image_convention' in said


def test_gaps_of_a_bag_are_named(tmp_path, capsys):
    pytest.importorskip('rosbags')
    path = rig.write_bag(tmp_path / 'bag', rows=30, skip=(8, 9, 10))
    mapping = tmp_path / 'data.yaml'
    mapping.write_text(yaml.safe_dump(rig.mapping('rosbag')))
    arguments = ['data', 'inspect', str(path), '--mapping', str(mapping)]
    assert main([*arguments, '--sheet', str(tmp_path / 's.png')]) == 0
    said = capsys.readouterr().out
    assert 'rows without pictures, within episodes: 3' in said
    assert '1 gaps of more than 1.5 control periods between pictures, the longest 0.20 s' in said


@pytest.mark.parametrize('form', ['lerobot', 'rosbag', 'hdf5'])
def test_without_a_data_yaml_the_names_are_listed(tmp_path, capsys, form):
    pytest.importorskip({'rosbag': 'rosbags', 'lerobot': 'pyarrow', 'hdf5': 'h5py'}[form])
    if form == 'hdf5':
        path, name = rig.write_hdf5(tmp_path / 'own.hdf5'), 'trials/trial0/state: float64 (12, 8)'
    elif form == 'rosbag':
        path, name = rig.write_bag(tmp_path / 'bag'), '/ee_pose: geometry_msgs/msg/PoseStamped, 70'
    else:
        path = rig.write_lerobot(tmp_path / 'set', video=False)
        name = "observation.state: float32 [8] ['x', 'y'"
    assert main(['data', 'inspect', str(path)]) == 0
    said = capsys.readouterr().out
    assert name in said
    assert f'config/data/{form}.yaml' in said
