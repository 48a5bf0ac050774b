"""The simulation's launch file on a full ROS install: a result comes, and SIGINT ends with 0."""

import json
import time
import unittest

import pytest

pytest.importorskip('launch_testing', reason='needs a full ROS 2 install')
pytest.importorskip('launch_ros', reason='needs a full ROS 2 install')

import launch_testing.actions  # noqa: E402
import launch_testing.asserts  # noqa: E402
import rclpy  # noqa: E402
from launch import LaunchDescription  # noqa: E402
from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from lightvla_ros.files import resource  # noqa: E402

pytestmark = pytest.mark.sim


@pytest.mark.launch_test
def generate_test_description():
    launch_file = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(resource('launch/libero.launch.py'))),
        launch_arguments={'suite': 'libero_spatial'}.items(),
    )
    return LaunchDescription([launch_file, launch_testing.actions.ReadyToTest()])


class TestEpisode(unittest.TestCase):
    def test_an_episode_runs_to_its_end(self):
        rclpy.init()
        user = rclpy.create_node('user')
        results = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        user.create_subscription(String, 'libero_bridge/result', results.append, latched)
        instruction = user.create_publisher(String, 'instruction', 1)
        deadline = time.monotonic() + 180
        while not results:
            assert time.monotonic() < deadline, 'no result'
            instruction.publish(String(data='pick up the black bowl'))
            rclpy.spin_once(user, timeout_sec=0.5)
        user.destroy_node()
        rclpy.shutdown()
        result = json.loads(results[0].data)
        assert result['error'] == ''
        assert result['chunks'] > 3


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_everything_ends_with_0(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
