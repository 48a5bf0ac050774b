"""One rclpy context for all tests of the process; each rig has a namespace of its own."""

import pytest
import rclpy


@pytest.fixture(scope='session', autouse=True)
def _rclpy():
    rclpy.init()
    yield
    rclpy.shutdown()
