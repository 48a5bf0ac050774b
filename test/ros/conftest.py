"""One rclpy context for the tests of a file; each rig has a namespace of its own.

A context is one DDS participant, and a process that is killed can leave the shared memory of its
partners full: images then arrive nowhere (github.com/eProsima/Fast-DDS/issues/5469). So a file that
kills processes must not share its participant with the files after it.

These tests have deadlines, as robots have. When one fails while the machine stands still, as
virtual machines do, it is run again (the Makefile: ``--only-rerun MachineStoodStill``).
"""

import threading
import time

import pytest
import rclpy

STANDSTILL = 0.2  # s; a picture is stale after 0.5 s, a pose or a tick of the executor earlier
PERIOD = 0.02  # s


class MachineStoodStill(Exception):
    """A test failed while this process did not run for a while."""


class _Watch:
    """A thread that notices when it is woken late, and not because this process was computing."""

    def __init__(self):
        self.longest = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        last = time.monotonic(), time.process_time()
        while True:
            time.sleep(PERIOD)
            now = time.monotonic(), time.process_time()
            # code of ours that holds Python's lock is a fault, and uses processor time
            late = now[0] - last[0] - PERIOD - (now[1] - last[1])
            self.longest = max(self.longest, late)
            last = now


_watch = _Watch()


def _watched():
    """Say of a failure that it came with a standstill."""
    _watch.longest = 0.0
    try:
        return (yield)
    except Exception as error:
        if _watch.longest > STANDSTILL:
            raise MachineStoodStill(f'for {_watch.longest:.2f} s: {error!r}') from error
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _watched())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _watched())


@pytest.fixture(scope='module', autouse=True)
def _rclpy():
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope='module')
def recording(bundled_policy, tmp_path_factory):
    """The folder of a recording of the bundled policy, some chunks and a hold."""
    from recordings import recorded_run

    return recorded_run(tmp_path_factory.mktemp('recordings'), bundled_policy)
