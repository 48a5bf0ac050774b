"""A source whose topic goes on while what it sends can no longer be used."""

import itertools

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from lightvla_ros.msg import VlaStatus
from rig import CAMERAS, PERIOD, rig
from sensor_msgs.msg import CompressedImage, JointState

from lightvla_ros.nodes.conversions import stamp_ns, time_message
from lightvla_ros.runtime.reasons import kind

RUNNING, HOLDING = VlaStatus.RUNNING, VlaStatus.HOLDING
PATIENT = {'max_image_age': 10.0, 'max_silence': 60.0}  # no hold for want of messages


class Compressed:
    """JPEG cameras; those in ``bad`` send what is no picture, ``every``-th frame of theirs."""

    def __init__(self, r, older=''):
        self.bad, self.every, self.bad_stamps = set(), 1, set()
        self._robot, self._older, self._ticks = r.robot, older, itertools.count()
        self._publishers = {
            name: r.robot.create_publisher(CompressedImage, f'{name}/image/compressed', 1)
            for name in CAMERAS
        }
        r.until(
            lambda: all(p.get_subscription_count() for p in self._publishers.values()), 'discovery'
        )
        r.robot.cameras = set()
        r.robot.create_timer(PERIOD, self._feed)

    def _feed(self):
        now, tick = self._robot.stamp(), next(self._ticks)
        for name, publisher in self._publishers.items():
            stamp = now - (10_000_000 if name == self._older else 0)
            data = cv2.imencode('.jpg', next(self._robot.pictures))[1].tobytes()
            if name in self.bad and tick % self.every == 0:
                data = b'\xff\xd8 this is no picture'
                self.bad_stamps.add(stamp)
            message = CompressedImage(format='jpeg', data=data)
            message.header.stamp = time_message(stamp)
            publisher.publish(message)


@pytest.mark.parametrize(('source', 'older'), itertools.product(CAMERAS, CAMERAS))
def test_fault_a_stream_goes_bad_while_its_topic_goes_on(bundled_policy, source, older):
    """Whichever image is the older one, and though none of them is ever stale."""
    with rig(bundled_policy, image_transport='compressed', **PATIENT) as r:
        cameras = Compressed(r, older)
        levels = {}

        def on_diagnostics(message):
            levels.update({s.name: (s.level, kind(s.message)) for s in message.status})

        r.robot.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)
        r.run()
        cameras.bad = {source}
        r.until_state(HOLDING, f'bad_data:{source}')
        moved = len(r.robot.moves())
        r.settle()
        assert r.robot.hold_kinds() == [f'bad_data:{source}']
        assert len(r.robot.moves()) == moved
        said = (DiagnosticStatus.ERROR, f'bad_data:{source}')
        r.until(lambda: said in levels.values(), 'diagnostics')
        cameras.bad = set()
        r.until_state(RUNNING)


def test_fault_one_bad_picture_among_many(bundled_policy):
    """Each bad one that is looked at takes the motion back, the next good one gives it again."""
    with rig(bundled_policy, image_transport='compressed', replan_steps=1) as r:
        cameras = Compressed(r)
        r.run()
        cameras.every, cameras.bad = 2, {'wrist'}
        r.until(lambda: len(r.robot.holds()) >= 4, 'four holds')
        assert set(r.robot.hold_kinds()) == {'bad_data:wrist'}
        seen = [bool(chunk.steps) for chunk in r.robot.chunks]
        first = seen.index(False)
        assert tuple(seen[first - 1 : first + 3]) == (True, False, True, False)
        used = {stamp_ns(chunk.stats.observation_stamp) for chunk in r.robot.moves()}
        assert not used & cameras.bad_stamps


def test_fault_one_bad_source_hides_the_reason_of_another(bundled_policy):
    with rig(bundled_policy, image_transport='compressed') as r:
        cameras = Compressed(r)
        r.run()
        for source in CAMERAS:
            cameras.bad = {source}
            line = f'message dropped: bad_data:{source}'
            r.until(lambda line=line: any(log.startswith(line) for log in r.robot.logs), line, 3.0)
        r.settle()
        assert sum(log.startswith(line) for log in r.robot.logs) == 1, 'once in 5 s'


@pytest.mark.parametrize('source', ['ee_pose', 'gripper_state'])
def test_fault_a_state_goes_bad_while_its_topic_goes_on(bundled_policy, source):
    def alter(message):
        if isinstance(message, PoseStamped) and source == 'ee_pose':
            message.pose.position.x = np.nan
        if isinstance(message, JointState) and source == 'gripper_state':
            message.position = [np.nan] * 2

    with rig(bundled_policy, **PATIENT) as r:
        r.run()
        r.robot.alter_state = alter
        r.until_state(HOLDING, f'bad_state:{source}')
        assert r.robot.hold_kinds() == [f'bad_state:{source}']


def test_fault_an_image_with_a_bad_header_is_noticed_only_when_the_last_one_is_stale(
    bundled_policy,
):
    def alter(message):
        message.encoding = 'yuv422'

    with rig(bundled_policy, **PATIENT) as r:
        r.run()
        r.robot.alter = alter
        r.until_state(HOLDING, 'bad_encoding:wrist')
