"""Every pytest process gets a ROS domain of its own, before rclpy can be initialised."""

import atexit
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'  # else Jazzy's setters check nothing


def _claim_domain() -> tuple[int, object]:
    """Lock the first free domain of 1 to 101; the lock ends with the process."""
    for domain in range(1, 102):
        file = (Path(tempfile.gettempdir()) / f'lightvla_ros_domain_{domain}.lock').open('w')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return domain, file
    raise RuntimeError('all ROS domains from 1 to 101 are taken by running tests')


_domain, _lock = _claim_domain()
atexit.register(_lock.close)
os.environ['ROS_DOMAIN_ID'] = str(_domain)


@pytest.fixture(scope='session')
def policy_dir(tmp_path_factory):
    """An untrained policy folder; copy it before changing anything."""
    from lightvla_ros.export.untrained import write_untrained_policy

    folder = tmp_path_factory.mktemp('policy') / 'untrained'
    write_untrained_policy(folder)
    return folder
