"""One rclpy context for all tests of the process; each test's nodes have a namespace of their own."""

import pytest
import rclpy


@pytest.fixture(scope='session', autouse=True)
def _rclpy():
    rclpy.init()
    yield
    rclpy.shutdown()
