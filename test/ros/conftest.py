"""One rclpy context for all tests of the process; each rig has a namespace of its own."""

import pytest
import rclpy


@pytest.fixture(scope='session', autouse=True)
def _rclpy():
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope='session')
def recording(bundled_policy, tmp_path_factory):
    """The folder of a recording of the bundled policy, some chunks and a hold."""
    from recordings import recorded_run

    return recorded_run(tmp_path_factory.mktemp('recordings'), bundled_policy)
