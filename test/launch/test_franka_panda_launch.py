"""The robot's launch file on a full ROS install, without arguments: from bring-up to a clean end.

pytest test/launch        after `colcon build` and sourcing the workspace
"""

import subprocess
import threading
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
from rig import Robot  # noqa: E402

from lightvla_ros.files import resource  # noqa: E402


@pytest.mark.launch_test
def generate_test_description():
    launch_file = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(resource('launch/franka_panda.launch.py'))),
        launch_arguments={'respawn': 'false'}.items(),
    )
    return LaunchDescription([launch_file, launch_testing.actions.ReadyToTest()])


class TestBringUp(unittest.TestCase):
    def test_instruction_brings_a_chunk(self):
        rclpy.init()
        robot = Robot('')
        robot.feeding = True
        stop = threading.Event()

        def spin():
            while not stop.is_set():
                rclpy.spin_once(robot, timeout_sec=0.1)

        thread = threading.Thread(target=spin)
        thread.start()
        try:
            subprocess.run(
                [
                    *('ros2', 'topic', 'pub', '--times', '3', '-w', '1'),
                    *('/instruction', 'std_msgs/msg/String', '{data: pick up the milk}'),
                ],
                check=True,
                timeout=60,
            )
            deadline = time.monotonic() + 30
            while not robot.moves():
                assert time.monotonic() < deadline, f'no chunk; {robot.state}'
                time.sleep(0.05)
            assert robot.moves()[0].instruction == 'pick up the milk'
            assert robot.moves()[0].header.frame_id == 'panda_link0'
        finally:
            stop.set()
            thread.join()
            robot.destroy_node()
            rclpy.shutdown()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_everything_ends_with_0(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
