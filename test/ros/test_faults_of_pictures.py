"""Pictures that decode well and must not be acted on: frozen, blank, equal, of unknown shape."""

from array import array

import numpy as np
import pytest
from lightvla_ros.msg import VlaStatus
from rclpy.parameter import Parameter
from rig import changing_pictures, rig

from lightvla_ros.nodes.conversions import stamp_ns
from lightvla_ros.runtime.reasons import kind

RUNNING, HOLDING = VlaStatus.RUNNING, VlaStatus.HOLDING
FROZEN = np.random.default_rng(5).integers(0, 256, 96 * 96 * 3, np.uint8).tobytes()


def freeze(message):
    message.data = FROZEN


def whiten(message):
    count = len(message.data)
    message.data = (255 - (np.random.default_rng().random(count) < 0.05)).astype(np.uint8).tobytes()


def widen(message):
    message.height, message.width, message.step = 72, 128, 384


def unname(message):
    message.encoding = '8UC3'


def nothing(message):
    pass


@pytest.mark.parametrize(
    ('alter', 'why'),
    [
        (freeze, 'camera_frozen:wrist'),
        (whiten, 'camera_blank:wrist'),
        (widen, 'bad_aspect:wrist'),
        (unname, 'bad_encoding:wrist'),
    ],
    ids=['frozen', 'white', 'other aspect', '8UC3'],
)
def test_pictures_that_must_not_be_acted_on_lead_to_a_hold(bundled_policy, alter, why):
    with rig(bundled_policy) as r:
        r.run()
        r.robot.alter = alter
        r.until(lambda: r.robot.holds(), why)
        assert kind(r.robot.holds()[0].reason) == why
        assert not r.robot.chunks[-1].steps
        r.robot.alter = nothing
        r.until(lambda: r.robot.state == (RUNNING, ''), 'motion again')


def test_a_frozen_camera_holds_one_second_after_it_froze(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        stamps = []

        def alter(message):
            freeze(message)
            stamps.append(stamp_ns(message.header.stamp))

        r.robot.alter = alter
        r.until(r.robot.holds, 'the hold')
        held = stamp_ns(r.robot.holds()[0].header.stamp)
        assert held - stamps[0] >= 1.0e9
        assert r.robot.holds()[0].reason.startswith('camera_frozen:wrist 1.')


def test_one_camera_under_two_names(bundled_policy):
    with rig(bundled_policy) as r:
        r.robot.pictures = (picture for picture in changing_pictures() for _ in range(2))
        r.matched()
        r.robot.feeding = True
        r.robot.say('pick up the milk')
        r.until(lambda: kind(r.robot.state[1]) == 'cameras_equal:wrist', 'the reason')
        assert r.engine.calls == 0
        r.node.set_parameters([Parameter('allow_equal_cameras', value=True)])
        r.until(r.robot.moves, 'motion')


def test_what_a_simulator_needs_can_be_switched_off(bundled_policy):
    with rig(bundled_policy, max_frozen=0.0, min_contrast=0.0, encoding_8uc3='bgr8') as r:

        def alter(message):
            unname(message)
            message.data = array('B', bytes(len(message.data)))

        r.robot.alter = alter
        r.run()
        first = stamp_ns(r.robot.moves()[0].header.stamp)
        r.until(lambda: stamp_ns(r.robot.chunks[-1].header.stamp) > first + 1.3e9, 'motion')
        assert r.robot.holds() == []


def test_a_reset_forgets_for_how_long_a_camera_was_frozen(bundled_policy):
    with rig(bundled_policy) as r:
        r.robot.alter = freeze
        r.run()
        r.until(r.robot.holds, 'the hold')
        assert r.node.runner.inputs.pictures._frozen._first
        r.robot.feeding = False
        r.settle()
        r.node.runner.inputs.clear()
        assert not r.node.runner.inputs.pictures._frozen._first
