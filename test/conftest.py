"""Every pytest process gets a ROS domain of its own, before rclpy can be initialised."""

import atexit
import fcntl
import os
import tempfile
from functools import partial
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
def written_once(tmp_path_factory):
    """Call ``write(folder)`` in the first of several test processes; return the folder to all."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base

    def written(name, write):
        done = root / f'{name}.done'
        with (root / f'{name}.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                write(root / name)
                done.touch()
        return root / name

    return written


@pytest.fixture(scope='session')
def policy_dir(written_once):
    """An untrained policy as a robot is given it; copy it before changing anything."""
    from small_policy import write_robot_policy

    return written_once('robot', write_robot_policy)


@pytest.fixture(scope='session')
def bundled_policy():
    """The trained policy, which needs no PyTorch; copy it before changing anything."""
    from lightvla_ros.files import BUNDLED_POLICY, resource

    return resource(BUNDLED_POLICY)


@pytest.fixture(scope='session')
def small_weights(written_once):
    """The true model with small random weights; copy the folder before changing anything."""
    from small_policy import write_weights

    return written_once('weights', write_weights)


@pytest.fixture(scope='session')
def small_policy(small_weights, written_once):
    """Its export in fp32."""
    from small_policy import export

    return written_once('fp32', partial(export, small_weights))


@pytest.fixture(scope='session')
def small_policy_fp16(small_weights, written_once):
    """Its export in fp16, with the weights beside the graphs, as those of a large model are."""
    from small_policy import export

    from lightvla_ros.export import onnx_files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, 'INLINE_BYTES', 1000)
        return written_once('fp16', partial(export, small_weights, precision='fp16'))
