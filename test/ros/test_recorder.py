"""A node records what it gets and does; the disk never makes it wait."""

import errno
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from recordings import recorded_run
from rig import rig
from sensor_msgs.msg import Image

from lightvla_ros.demonstrations.bag_writer import BagWriter
from lightvla_ros.demonstrations.rosbag import bags_in, opened
from lightvla_ros.nodes.parameters import ParameterError

NAMES = (
    'third_person/image',
    'wrist/image',
    'ee_pose',
    'gripper_state',
    'instruction',
    'lightvla/action_chunk',
    'lightvla/inference',
    'lightvla/status',
)


def _diagnosis(r):
    """Collect the newest diagnostics of the recording."""
    found = {}

    def take(message):
        for status in message.status:
            if status.name.endswith(': recording'):
                values = {each.key: each.value for each in status.values}
                found.update(level=status.level, message=status.message, values=values)

    r.robot.create_subscription(DiagnosticArray, '/diagnostics', take, 10)
    return found


def test_everything_that_came_and_was_said_is_recorded(recording):
    [piece] = bags_in(recording)
    assert (piece / 'metadata.yaml').is_file()
    seen, last = Counter(), 0
    with opened(piece) as reader:
        for connection, received, data in reader.messages():
            reader.deserialize(data, connection.msgtype)
            assert received > last
            last = received
            seen[connection.topic] += 1
    namespace = next(topic for topic in seen if topic.endswith('/ee_pose'))[: -len('ee_pose')]
    own = {f'{namespace}{name}' for name in NAMES}
    assert set(seen) == own | {'/parameter_events', '/diagnostics'}
    assert seen[f'{namespace}wrist/image'] >= 6
    # every chunk is there with its inference; the hold had none
    chunks, inferences = (seen[f'{namespace}lightvla/{n}'] for n in ('action_chunk', 'inference'))
    assert inferences >= chunks - 1 >= 6


def test_a_disk_that_hangs_never_makes_the_node_wait(bundled_policy, tmp_path, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr('lightvla_ros.nodes.recorder.QUEUE', 300_000)
    monkeypatch.setattr(BagWriter, 'write', lambda *_, **__: released.wait(20.0))
    with rig(bundled_policy, record=True, record_folder=str(tmp_path)) as r:
        found = _diagnosis(r)
        try:
            r.run()
            r.until(lambda: len(r.robot.moves()) >= 4, 'chunks while the disk hangs')
            r.until(lambda: found.get('level') == DiagnosticStatus.WARN, 'a warning')
            recorder, image = r.node.recorder, Image(data=bytes(280_000))
            started = time.perf_counter()
            for _ in range(100):
                recorder.put('/wrist/image', image)
            assert time.perf_counter() - started < 0.1
        finally:
            released.set()
        assert found['message'].endswith('messages were not recorded')
        dropped = {key: int(value) for key, value in found['values'].items() if 'dropped' in key}
        assert dropped[f'dropped{r.namespace}/third_person/image'] >= 1
        assert float(found['values']['queue_megabytes_max']) <= 0.3


def test_a_full_disk_ends_the_recording_and_nothing_else(bundled_policy, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with rig(bundled_policy, record=True, record_folder=str(tmp_path)) as r:
        found = _diagnosis(r)
        r.matched_user()
        r.run()
        monkeypatch.setattr(BagWriter, 'flush', full)
        before = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) > before + 2, 'chunks after the disk is full')
        r.until(lambda: found.get('level') == DiagnosticStatus.WARN, 'a warning')
        assert 'No space left on device' in found['message']
        assert any('recording has ended' in line for line in r.robot.logs)


def test_a_change_of_a_parameter_is_recorded(bundled_policy, tmp_path):
    from rclpy.parameter import Parameter

    with rig(bundled_policy, record=True, record_folder=str(tmp_path)) as r:
        r.node.set_parameters([Parameter('encoding_8uc3', value='bgr8')])
        [session] = tmp_path.iterdir()
    [piece] = bags_in(session)
    with opened(piece) as reader:
        kind = 'rcl_interfaces/msg/ParameterEvent'
        events = [
            reader.deserialize(data, kind)
            for connection, _, data in reader.messages()
            if connection.msgtype == kind
        ]
    texts = [
        {each.name: each.value.string_value for each in event.new_parameters} for event in events
    ]
    assert [text['encoding_8uc3'] for text in texts] == ['refuse', 'bgr8']


@pytest.mark.parametrize(
    ('folder', 'budget', 'said'),
    [('file', 1.0, 'cannot be written'), ('full', 0.01, 'remove old recordings')],
)
def test_what_cannot_be_recorded_is_told_before_anything_moves(
    bundled_policy, tmp_path, folder, budget, said
):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/old.mcap').write_bytes(bytes(10_000_000))
    with pytest.raises(ParameterError, match=said):
        recorded_run(tmp_path / folder, Path(bundled_policy), record_budget=budget)
