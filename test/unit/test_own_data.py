"""Recordings of any robot come back as LIBERO's do, through a data YAML."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import data_rig as rig
import h5py
import numpy as np
import pytest
import yaml

from lightvla_ros.demonstrations.mapping import read_mapping
from lightvla_ros.demonstrations.reader import read_demonstrations
from lightvla_ros.errors import ConfigError, DemonstrationError

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {'lerobot': ('pyarrow', 'av'), 'rosbag': ('rosbags',), 'hdf5': ()}


def write(form, folder, **changes):
    """Write a recording of a format."""
    for name in NEEDED[form]:
        pytest.importorskip(name)
    folder.mkdir(parents=True, exist_ok=True)
    if form == 'lerobot':
        return rig.write_lerobot(folder / 'set', **changes)
    if form == 'rosbag':
        return rig.write_bag(folder / 'bag', **changes)
    return rig.write_hdf5(folder / 'own.hdf5', **changes)


def mapped(folder, form, edit=None, **changes):
    document = rig.mapping(form, **changes)
    if edit is not None:
        edit(document)
    path = folder / 'data.yaml'
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return read_mapping(path)


def load(path, mapping):
    return read_demonstrations(path, mapping=mapping).load(progress=False)


def check(frames, rows, episode=0, number=None):
    """Check the frames of one of the rig's episodes, by its number in the frames."""
    chosen = np.flatnonzero(frames.episode == (episode if number is None else number))
    for camera in range(2):
        assert rig.rows_shown(frames.images[chosen, camera], camera) == rows
    expected = rig.states(episode, 40)[rows, :3]
    np.testing.assert_allclose(frames.proprio[chosen, :3], expected, atol=1e-6)
    # half a turn about x, whichever sign the quaternion had
    turn = [np.pi, 0, 0]
    np.testing.assert_allclose(
        frames.proprio[chosen, 3:6], np.tile(turn, (len(rows), 1)), atol=1e-6
    )
    steps = frames.chunks[chosen, :, :3] * 0.05
    np.testing.assert_allclose(steps, np.broadcast_to(rig.STEP, steps.shape), atol=1e-6)
    np.testing.assert_allclose(frames.chunks[chosen, :, 3:6], 0, atol=1e-6)


@pytest.mark.parametrize(
    ('form', 'changes'),
    [
        ('lerobot', {'version': 'v2.1'}),
        ('lerobot', {'version': 'v3.0'}),
        ('lerobot', {'version': 'v2.1', 'video': False}),
        ('hdf5', {}),
    ],
    ids=['v2.1', 'v3.0', 'embedded pictures', 'hdf5'],
)
def test_rows_come_back_with_their_pictures_states_and_actions(tmp_path, form, changes):
    frames = load(write(form, tmp_path, **changes), mapped(tmp_path, form))
    assert frames.instructions == (rig.INSTRUCTION,)
    assert frames.images.shape[1:] == (2, *rig.SIZE, 3)
    assert (frames.images[:, 0, 5, 5] > 240).all()  # upright
    for episode, rows in enumerate((5, 7)):  # the last 7 rows of 12 and 14 start no chunk
        check(frames, list(range(rows)), episode)
    assert frames.robot.control_period == 1 / rig.RATE
    assert frames.robot.action.execution == 'displacement'
    closed = np.arange(12) >= 6
    np.testing.assert_array_equal(frames.chunks[0, :, 6], np.where(closed, 1, -1)[:8])
    fingers = frames.proprio[frames.episode == 1][0, 6:]
    np.testing.assert_allclose(fingers, [0.04, -0.04], atol=1e-6)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_bag_becomes_rows(tmp_path, storage):
    path = write('rosbag', tmp_path, storage=storage)
    frames = load(path, mapped(tmp_path, 'rosbag'))
    check(frames, list(range(5)))
    assert frames.chunks[0, :, 6].tolist() == [-1] * 6 + [1] * 2
    np.testing.assert_allclose(frames.proprio[0, 6:], [0.02, -0.02], atol=1e-6)
    (lone,) = path.glob(f'*.{"mcap" if storage == "mcap" else "db3"}')
    np.testing.assert_array_equal(load(lone, mapped(tmp_path, 'rosbag')).images, frames.images)


def test_actions_of_a_bag_from_successive_poses(tmp_path):
    action = {'kind': 'next_pose', 'gripper': {'name': rig.TOPICS[5], 'open': 1, 'closed': 0}}
    mapping = mapped(tmp_path, 'rosbag', action=action)
    frames = load(write('rosbag', tmp_path), mapping)
    check(frames, list(range(4)))  # the last row has no next pose


def test_a_lost_image_of_a_bag_costs_its_row_alone(tmp_path):
    frames = load(write('rosbag', tmp_path, skip=(3,)), mapped(tmp_path, 'rosbag'))
    check(frames, [0, 1, 2, 4])


def test_images_of_a_bag_that_are_too_far_apart_are_refused(tmp_path):
    path = write('rosbag', tmp_path, late=0.02)
    mapping = mapped(tmp_path, 'rosbag', rosbag={'max_camera_skew': 0.01})
    with pytest.raises(DemonstrationError, match='no images of all cameras within max_camera_skew'):
        load(path, mapping)


@pytest.mark.parametrize(
    ('form', 'unit'), [('mm', 'mm'), ('centimetres', 'cm'), ('speed', 'm/s'), ('number', 0.001)]
)
def test_units_are_converted(tmp_path, form, unit):
    factor = {'mm': 1e-3, 'cm': 1e-2, 'm/s': 1 / rig.RATE, 0.001: 1e-3}[unit]
    path = write('hdf5', tmp_path)
    with h5py.File(path, 'a') as file:
        for trial in file['trials'].values():
            trial['action'][:, :3] /= factor

    def edit(document):
        document['action']['translation']['unit'] = unit

    check(load(path, mapped(tmp_path, 'hdf5', edit)), list(range(5)))


def test_deltas_in_the_tool_frame_are_turned_into_the_base(tmp_path):
    path = write('hdf5', tmp_path)
    with h5py.File(path, 'a') as file:
        for trial in file['trials'].values():
            trial['action'][:, 1:3] *= -1  # the hand is turned by half a turn about x

    def edit(document):
        document['action']['frame'] = 'tool'

    check(load(path, mapped(tmp_path, 'hdf5', edit)), list(range(5)))


def test_target_poses_become_steps_from_the_measured_pose(tmp_path):
    path = write('hdf5', tmp_path)
    with h5py.File(path, 'a') as file:
        for trial in file['trials'].values():
            state = trial['state'][()]
            trial['target'] = np.column_stack(
                [state[:, :3] + rig.STEP, np.tile([180.0, 0, 0], (len(state), 1))]
            )

    def edit(document):
        document['action'] |= {
            'kind': 'pose',
            'translation': {'name': 'target', 'at': [0, 1, 2]},
            'rotation': {'name': 'target', 'at': [3, 4, 5], 'form': 'euler_xyz', 'unit': 'deg'},
        }

    check(load(path, mapped(tmp_path, 'hdf5', edit)), list(range(5)))


def test_rows_that_were_observed_after_their_action(tmp_path):
    frames = load(write('hdf5', tmp_path), mapped(tmp_path, 'hdf5', order='after'))
    check(frames, list(range(4)))  # action 0 has no observation


def test_pictures_are_turned_upright_and_shrunk(tmp_path):
    path = write('hdf5', tmp_path)
    with h5py.File(path, 'a') as file:
        for trial in file['trials'].values():
            for name, turn in (
                ('front', lambda p: p[:, ::-1]),
                ('hand', lambda p: p[:, ::-1, ::-1]),
            ):
                pictures = turn(trial[f'images/{name}'][()])
                del trial[f'images/{name}']
                trial[f'images/{name}'] = pictures

    def edit(document):
        document['cameras']['third_person'] = {'name': 'images/front', 'bottom_up': True}
        document['cameras']['wrist']['rotate'] = 180

    frames = load(path, mapped(tmp_path, 'hdf5', edit, size=[24, 32]))
    assert frames.images.shape[1:] == (2, 24, 32, 3)
    assert (frames.images[:, 0, 3, 3] > 240).all()
    check(frames, list(range(5)))


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'config/data').glob('*.yaml')), ids=lambda p: p.stem
)
def test_the_files_that_come_along_are_valid(path):
    assert read_mapping(path).rate == 20


# --- what is refused


def say(error):
    text = str(error.value)
    assert '\n' not in text
    return text


@pytest.mark.parametrize(
    ('edit', 'said'),
    [
        ({'format': 'rlds'}, "format 'rlds' is not one of lerobot, hdf5, rosbag"),
        ({'order': ''}, "order '' is not one of before, after"),
        ({'rate': 0}, 'rate 0.0 must be a positive number'),
        ({'execution': 'torque'}, "execution 'torque' is not one of spring, displacement"),
        ({'cameras': {'wrist': 'a'}}, 'cameras: wrist; exactly third_person and wrist'),
        ({'size': [240]}, 'must be height and width'),
        ({'speed': 3}, 'speed is unknown'),
        ({'action.kind': 'joints'}, "action.kind 'joints' is not one of delta, pose, next_pose"),
        ({'action.translation.unit': 'inch'}, "action.translation.unit 'inch'"),
        ({'state.rotation.form': 'matrix'}, "state.rotation.form 'matrix' is not one of"),
        ({'state.rotation.at': [3, 4, 5]}, 'state.rotation.at: 4 places are needed, not 3'),
        ({'action.gripper.open': 0}, 'open and closed are equal'),
        ({'action.kind': 'next_pose'}, 'come from the state where kind is next_pose'),
        ({'action.rotation': None}, 'translation and rotation are needed for kind delta'),
        ({'cameras.wrist.rotate': 45}, 'rotate 45 is not 0, 90, 180 or 270'),
        ({'state.position.unit': 'mm/s'}, "state.position.unit 'mm/s' is not a number"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else '',
)
def test_an_invalid_mapping_names_its_field(tmp_path, edit, said):
    def change(document):
        for place, value in edit.items():
            *parts, last = place.split('.')
            for part in parts:
                document = document[part]
            document[last] = value

    with pytest.raises(ConfigError) as error:
        mapped(tmp_path, 'hdf5', change)
    assert said in say(error)
    assert say(error).startswith(str(tmp_path / 'data.yaml'))


@pytest.mark.parametrize(
    ('form', 'changes', 'said'),
    [
        (
            'lerobot',
            {'rate': 10},
            "is recorded at 20 rows per second, but the mapping's rate is 10",
        ),
        (
            'lerobot',
            {'cameras': {'third_person': 'top', 'wrist': 'b'}},
            "has no camera 'top', which",
        ),
        (
            'rosbag',
            {'cameras': {'third_person': '/top', 'wrist': '/b'}},
            "has no topic '/top', which",
        ),
        ('hdf5', {'hdf5': {'episodes': 'demos'}}, "has no group of episodes 'demos', which"),
        ('hdf5', {'hdf5': {'episodes': 'trials'}}, 'has no instruction; give one in the mapping'),
        ('hdf5', {'size': [100, 100]}, 'is another shape'),
    ],
    ids=['rate', 'camera', 'topic', 'group', 'instruction', 'size'],
)
def test_a_recording_that_does_not_fit_is_refused_in_a_line(tmp_path, form, changes, said):
    path = write(form, tmp_path)
    with pytest.raises(DemonstrationError) as error:
        read_demonstrations(path, mapping=mapped(tmp_path, form, **changes))
    assert said in say(error)
    assert str(path) in say(error)


def left_out(caplog, path, mapping):
    """Read what is whole, and return the line about the rest."""
    with caplog.at_level(logging.WARNING):
        frames = load(path, mapping)
    (said,) = caplog.messages
    assert '\n' not in said
    return frames, said


@pytest.mark.parametrize(
    ('tables', 'said'),
    [
        (
            {'observation.state': [[float('nan')] * 8] * 12},
            'state.position: observation.state is not',
        ),
        ({'action': [[0.0] * 6] * 12}, 'action: rows of 6 numbers, but meta/info.json says 7'),
        ({'action': [[0.0] * 7] * 6 + [[0.0] * 6] * 6}, 'action: its rows have different widths'),
        ({'timestamp': [0.0, 0.05, 0.02] * 4}, 'timestamp: time does not advance after row 1'),
        ({'observation.state': [[0.0] * 8] * 12}, 'row 0: a quaternion of length 0'),
    ],
    ids=['nan', 'width', 'ragged', 'time', 'quaternion'],
)
@pytest.mark.parametrize('version', ['v2.1', 'v3.0'])
def test_a_bad_episode_of_lerobot_is_left_out_in_a_line(tmp_path, caplog, version, tables, said):
    path = write('lerobot', tmp_path, version=version, **tables)
    frames, line = left_out(caplog, path, mapped(tmp_path, 'lerobot'))
    assert f'{path}, episode_000000: is left out; ' in line
    assert said in line
    check(frames, list(range(7)), episode=1, number=0)


@pytest.mark.parametrize('how', ['missing', 'damaged', 'short'])
def test_an_episode_whose_video_is_bad_is_left_out_in_a_line(tmp_path, caplog, how):
    path = write('lerobot', tmp_path, version='v2.1')
    video = path / 'videos/chunk-000/observation.images.hand/episode_000000.mp4'
    if how == 'missing':
        video.unlink()
    elif how == 'damaged':
        video.write_bytes(b'nothing that a decoder knows' * 50)
    else:
        video.unlink()
        rig.write_video(video, 1, [3])
    frames, line = left_out(caplog, path, mapped(tmp_path, 'lerobot'))
    said = {
        'missing': 'is missing',
        'damaged': 'cannot be decoded',
        'short': 'has no picture at 0.150',
    }
    assert f'{path}, episode_000000: {video}: {said[how]}' in line
    assert rig.rows_shown(frames.images[:, 1], 1) == list(range(7))


def test_a_damaged_table_of_version_2_costs_its_episode_alone(tmp_path, caplog):
    path = write('lerobot', tmp_path, version='v2.1')
    (path / 'data/chunk-000/episode_000001.parquet').write_bytes(b'PAR1 and no more')
    frames, line = left_out(caplog, path, mapped(tmp_path, 'lerobot'))
    assert 'episode_000001.parquet: cannot be read as Parquet' in line
    check(frames, list(range(5)))


def test_foreign_fields_of_lerobots_info_are_refused(tmp_path):
    path = write('lerobot', tmp_path)
    info = json.loads((path / 'meta/info.json').read_text())
    for change, said in (
        ({'fps': 'fast'}, "meta/info.json: fps: 'fast' is not of type 'number'"),
        ({'features': {'action': 3}}, "meta/info.json: features.action: 3 is not of type 'object'"),
        ({'codebase_version': 'v1.6'}, "is of version 'v1.6'; v2.1 and v3.0 are read"),
        ({'data_path': '../../{file_index}.parquet'}, 'leads out of the folder'),
        ({'data_path': 'data/{nobody}.parquet'}, 'is no usable pattern'),
    ):
        (path / 'meta/info.json').write_text(json.dumps(info | change))
        with pytest.raises(DemonstrationError) as error:
            read_demonstrations(path, mapping=mapped(tmp_path, 'lerobot'))
        assert said in say(error)


def test_a_bag_that_is_cut_off_is_named_and_the_rest_is_read(tmp_path, caplog):
    whole = write('rosbag', tmp_path)
    cut = rig.write_bag(tmp_path / 'cut')
    (file,) = cut.glob('*.mcap')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    frames, line = left_out(caplog, [cut, whole], mapped(tmp_path, 'rosbag'))
    assert f'{cut}: cannot be read as a bag' in line
    check(frames, list(range(5)))


def test_fault_a_bag_without_its_end_is_told(tmp_path, caplog):
    """It was training data without a word."""
    (whole,) = write('rosbag', tmp_path).glob('*.mcap')
    bag = tmp_path / 'lone.mcap'
    bag.write_bytes(whole.read_bytes()[:-20])
    frames, line = left_out(caplog, [bag], mapped(tmp_path, 'rosbag'))
    assert line.startswith(f'{bag}: its end is missing; ')
    check(frames, list(range(5)))


def test_a_clock_that_was_set_back_in_a_bag_is_named(tmp_path):
    for name in NEEDED['rosbag']:
        pytest.importorskip(name)
    from lightvla_ros.demonstrations.bag_messages import accept

    stamps = [5_000_000_000]
    assert not accept('/a', 4_999_000_000, stamps)  # a repetition
    with pytest.raises(
        DemonstrationError, match=r'/a: time goes back by 3.00 s; cut the bag there'
    ):
        accept('/a', 2_000_000_000, stamps)


def test_a_delta_command_that_stops_is_not_guessed(tmp_path):
    def edit(document):
        document['action'] |= {
            'kind': 'delta',
            'translation': {'name': rig.TOPICS[4], 'at': ['x', 'y', 'z']},
            'rotation': {
                'name': rig.TOPICS[4],
                'at': ['qx', 'qy', 'qz'],
                'form': 'axis_angle',
            },
        }

    mapping = mapped(tmp_path, 'rosbag', edit)
    with pytest.raises(
        DemonstrationError, match=r'/target_pose: no command for 0.40 s before row 10'
    ):
        load(write('rosbag', tmp_path, quiet=range(3, 11)), mapping)


def test_a_library_that_is_not_there_is_named(tmp_path):
    path = write('lerobot', tmp_path)
    mapped(tmp_path, 'lerobot')
    script = (
        'import sys; sys.modules["pyarrow"] = None\n'
        'from lightvla_ros.demonstrations.mapping import read_mapping\n'
        'from lightvla_ros.demonstrations.mapped import index_mapped\n'
        'from lightvla_ros.cli.exit_code import exit_code\n'
        'from pathlib import Path\n'
        f'mapping = read_mapping({str(tmp_path / "data.yaml")!r})\n'
        f'sys.exit(exit_code("x", lambda: list(index_mapped(Path({str(path)!r}), mapping))))'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "this needs pip install 'lightvla_ros[data]'" in done.stderr
