"""`lightvla replay`: a recording answers the same again, and says what in it cannot be read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.demonstrations.bag_messages import header_stamp, stamp_of
from lightvla_ros.demonstrations.mapping import read_mapping
from lightvla_ros.demonstrations.reader import read_demonstrations
from lightvla_ros.demonstrations.reading import pictures_of, signals_of
from lightvla_ros.demonstrations.rosbag import bags_in, opened
from lightvla_ros.replay.recorded import INFERENCE, Hold, Recording

ROOT = Path(__file__).resolve().parents[2]


def _connections(recording):
    [piece] = bags_in(recording)
    with opened(piece) as reader:
        return list(reader.connections)


@pytest.fixture
def replayed(capsys):
    """Run the command; return its exit code and its document, or its line on stderr."""

    def run(*arguments):
        code = main(['replay', *map(str, arguments), '--json'])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else err.strip()

    return run


def rewrite(recording, folder, change):
    """Copy a recording; ``change(kind, message, index)`` alters a message or returns False."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    [piece] = bags_in(recording)
    with opened(piece) as reader:
        types = reader.typestore
        writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        with writer:
            connections, counts = {}, {}
            for connection, stamp, data in reader.messages():
                kind, topic = connection.msgtype, connection.topic
                message = types.deserialize_cdr(data, kind)
                counts[kind] = counts.get(kind, -1) + 1
                if change(kind, topic, message, counts[kind]) is False:
                    continue
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=types)
                writer.write(connections[topic], stamp, types.serialize_cdr(message, kind))
    return folder


def test_the_same_engine_gives_the_same_bits(recording, replayed):
    code, found = replayed(recording)
    assert code == 0
    assert found['passed']
    assert found['same_engine']
    assert found['identical'] == found['compared'] == found['recorded'] >= 6
    assert found['notes'] == found['faults'] == []


def test_another_engine_is_compared_in_millimetres(recording, replayed):
    code, found = replayed(recording, '--engine', 'openvino')
    assert code == 0
    assert not found['same_engine']
    assert found['same_kept']['compared']
    assert 0 < found['same_kept']['millimetres'] < 0.05


def test_another_policy_fails(recording, policy_dir, replayed):
    code, found = replayed(recording, '--policy', policy_dir)
    assert code == 1
    assert not found['same_engine']
    assert any(line.startswith('kept patches overlap') for line in found['faults'])


def test_one_bit_is_found(recording, tmp_path, replayed):
    def change(kind, topic, message, index):
        if kind == INFERENCE and index == 3:
            message.actions = message.actions.copy()
            message.actions[0] = np.nextafter(message.actions[0], np.float32(9))

    changed = rewrite(recording, tmp_path / 'changed', change)
    code, found = replayed(changed)
    assert (code, found['compared'] - found['identical']) == (1, 1)
    assert found['faults'][0].endswith('the first is that of inference 3')
    assert replayed(changed, '--tolerant')[0] == 0


def test_verify_writes_how_many_recorded_answers_an_engine_repeats(
    recording, bundled_policy, policy_dir, tmp_path, capsys
):
    def change(kind, topic, message, index):
        if kind == INFERENCE and index == 3:  # one step, by more than a rounding error
            message.actions = message.actions.copy()
            message.actions[0] += 0.2

    changed = rewrite(recording, tmp_path / 'changed', change)
    folder = shutil.copytree(bundled_policy, tmp_path / 'policy')
    options = ['--engine', 'onnxruntime', '--count', '0', '--json', '--recording']
    assert main(['verify', str(folder), *options, str(changed)]) == 1
    found = json.loads(capsys.readouterr().out)
    [fault] = found['faults']
    assert fault.startswith('with the same kept patches millimetres differ by')
    [written] = [each for each in load_manifest(folder).verified if each.trials]
    assert written.backend == 'onnxruntime-cpu'
    assert written.passed
    [trial] = written.trials
    assert (trial.kind, trial.count - trial.successes) == ('observations', 1)
    assert trial.source == 'changed, recorded with onnxruntime-cpu fp32'
    assert 0 < trial.low < trial.rate < trial.high < 1
    # the answers of another policy are no measure
    other = shutil.copytree(policy_dir, tmp_path / 'other')
    assert main(['verify', str(other), *options, str(recording)]) == 1
    assert 'is of another policy' in capsys.readouterr().err
    assert not any(each.trials for each in load_manifest(other).verified)


def test_a_test_is_made_of_it(recording, bundled_policy, tmp_path, replayed):
    folder = tmp_path / 'stale_camera'
    code, _ = replayed(recording, '--to-test', folder, '--observations', 2)
    assert code == 0
    kept = list(Recording(folder / 'observations'))
    whole = [each for each in Recording(recording) if not isinstance(each, Hold)]
    # the first inference, and the last one before the node held
    assert [each.stamp for each in kept if not isinstance(each, Hold)] == [
        whole[0].stamp,
        whole[-1].stamp,
    ]
    assert [each.reason.split(':')[0] for each in kept if isinstance(each, Hold)] == [
        'camera_stale'
    ]
    size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    assert size < 200_000  # four pictures of 96 x 96 px
    pytest_runs = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(folder)]
    ran = subprocess.run(pytest_runs, cwd=ROOT, capture_output=True, text=True, check=False)
    assert '1 passed' in ran.stdout, ran.stdout
    code, said = replayed(recording, '--to-test', folder)
    assert code == 2
    assert 'is not empty' in said


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(recording, tmp_path, replayed):
    [file] = recording.rglob('*.mcap')
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    code, found = replayed(cut)
    assert code == 0
    assert 0 < found['compared'] < replayed(recording)[1]['compared']
    [note] = found['notes']
    assert note.startswith(f'{cut}: its end is missing; it is read up to byte ')


def test_faults_in_a_recording_are_named_and_the_rest_is_read(recording, tmp_path, replayed):
    sixth = [each for each in Recording(recording) if not isinstance(each, Hold)][5]
    wrist = next(each for each in sixth.messages if each.topic.endswith('wrist/image'))
    gone = header_stamp(wrist.topic, wrist.data)

    def change(kind, topic, message, index):
        if kind == INFERENCE and index == 12:
            message.position = np.array([0.0, 0.0, np.nan])
        if kind == INFERENCE and index == 20:
            message.header.stamp.sec -= 60
        # the picture of one inference is lost
        return not (topic.endswith('wrist/image') and stamp_of(message.header.stamp) == gone)

    whole = replayed(recording)[1]['compared']
    changed = rewrite(recording, tmp_path / 'changed', change)
    code, found = replayed(changed)
    assert code == 0
    assert found['compared'] == whole - 2
    notes = '\n'.join(found['notes'])
    assert f'{changed}: ' in notes
    assert 'lightvla/inference: position is [0.0, 0.0, nan], not 3 finite numbers' in notes
    assert 'lightvla/inference: time goes back by' in notes
    assert 'wrist/image is not in the recording' in notes


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', 'cannot be read as a bag'),
        (b'no bag at all', 'cannot be read as a bag'),
        (None, 'there is no such file or folder'),
    ],
)
def test_what_is_no_recording(content, said, tmp_path, replayed):
    file = tmp_path / 'file.mcap'
    if content is not None:
        file.write_bytes(content)
    code, line = replayed(file)
    assert code == 1
    assert str(file) in line
    assert said in line
    assert '\n' not in line


def test_a_bag_that_no_node_wrote(tmp_path, replayed):
    from data_rig import write_bag

    bag = write_bag(tmp_path / 'bag')
    code, line = replayed(bag)
    assert code == 1
    assert f'{bag}: has no topic of the type {INFERENCE}' in line
    assert '/ee_pose' in line


@pytest.mark.parametrize('end', ['zeros', 'whole'])
def test_damage_is_told_and_what_is_before_is_read(recording, tmp_path, replayed, end):
    [file] = recording.rglob('*.mcap')
    data = bytearray(file.read_bytes())
    begin, stop = len(data) * 3 // 5, len(data) * 4 // 5
    if end == 'zeros':  # as a power cut leaves them
        stop = len(data)
    data[begin:stop] = bytes(stop - begin)
    copy = tmp_path / 'damaged.mcap'
    copy.write_bytes(data)
    code, found = replayed(copy)
    assert code == 0
    assert found['compared']
    assert found['notes'][0].startswith(str(copy))


def test_a_recording_becomes_a_data_set(recording, tmp_path, capsys):
    namespace = next(
        connection.topic[: -len('/ee_pose')]
        for connection in _connections(recording)
        if connection.topic.endswith('/ee_pose')
    )
    text = (ROOT / 'config/data/recording.yaml').read_text()
    for name in ('/third_person', '/wrist', '/ee_pose', '/gripper_state', '/lightvla'):
        text = text.replace(f' {name}', f' {namespace}{name}')
    described, out = tmp_path / 'recording.yaml', tmp_path / 'lerobot'
    described.write_text(text)
    command = ['data', 'to-lerobot', str(recording), '--mapping', str(described), '--out', str(out)]
    assert main(command) == 0, capsys.readouterr().err
    found = read_demonstrations(out, mapping=read_mapping(out / 'data.yaml'))
    assert found.instructions == ('pick up the milk',)
    episode = max(found.episodes, key=lambda each: each.steps)
    assert episode.steps >= 5
    # one can be traced back: its pictures were recorded, and the policy was given some of them
    [read] = pictures_of(out, [(episode, np.arange(episode.steps))])
    recorded = [each for each in Recording(recording) if not isinstance(each, Hold)]
    given = {each.observation.images['wrist'].tobytes() for each in recorded}
    assert any(image.tobytes() in given for image in read.images[:, 1])
    [signals] = signals_of(out, [episode])
    np.testing.assert_allclose(signals.states[:, 6:], [[0.04, -0.04]] * episode.steps, atol=1e-6)
    steps = np.concatenate([each.actions for each in recorded])
    assert np.abs(signals.actions[:, :6]).max() <= np.abs(steps[:, :6]).max() * 1.01
