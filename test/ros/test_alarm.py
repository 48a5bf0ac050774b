"""The alarm in the node: reported in diagnostics, and a hold only if asked for."""

import shutil

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from rig import rig

from lightvla_ros.contract import amend_manifest
from lightvla_ros.runtime.supervisor import State

USUAL = 20.0  # kept patches; the engine of these tests keeps 2


@pytest.fixture(scope='module')
def folder(bundled_policy, tmp_path_factory):
    """A policy whose alarm knows one signal, which is far off."""
    folder = tmp_path_factory.mktemp('alarm') / 'policy'
    shutil.copytree(bundled_policy, folder)
    signals = {'kept.third_person': [USUAL, USUAL, USUAL]}
    familiarity = {'observations': 100, 'score': 1.0, 'signals': signals, 'by_instruction': {}}
    amend_manifest(folder, familiarity=familiarity)
    return folder


def watch(r):
    """Return the newest status of the alarm, in a list."""
    seen = []
    name = f'{r.namespace}/lightvla: familiarity'

    def take(message):
        seen[:] = [status for status in message.status if status.name == name] or seen

    r.robot.create_subscription(DiagnosticArray, '/diagnostics', take, 10)
    return seen


def test_it_is_reported_and_holds_only_if_asked(folder):
    with rig(folder) as r:
        seen = watch(r)
        r.run()
        r.until(lambda: seen and seen[0].level == DiagnosticStatus.WARN, 'a warning')
        assert seen[0].message == 'score 9.00 by kept.third_person 2'
        values = {each.key: each.value for each in seen[0].values}
        assert values == {'score': '9.00', 'kept.third_person': '9.00 (2)'}
        assert not r.robot.holds()
        assert r.robot.state[0] == State.RUNNING

        r.node.set_parameters([Parameter('max_unfamiliarity', value=8.5)])
        r.until_state(State.HOLDING, 'unfamiliar:kept.third_person')
        why = 'unfamiliar:kept.third_person 9.00, max_unfamiliarity 8.5'
        assert {chunk.reason for chunk in r.robot.holds()} == {why}
        count = len(r.robot.moves())
        r.settle()
        assert len(r.robot.moves()) == count

        r.node.set_parameters([Parameter('max_unfamiliarity', value=9.5)])
        r.until(lambda: len(r.robot.moves()) > count, 'a chunk')


def test_a_limit_needs_a_calibration(bundled_policy, tmp_path):
    folder = tmp_path / 'policy'
    shutil.copytree(bundled_policy, folder)
    amend_manifest(folder, familiarity=None)
    with rig(folder) as r:
        seen = watch(r)
        r.run()
        r.until(lambda: seen and seen[0].message == 'not calibrated', 'the diagnostics')
        assert seen[0].level == DiagnosticStatus.OK
        (result,) = r.node.set_parameters([Parameter('max_unfamiliarity', value=2.0)])
        assert not result.successful
        assert 'is not calibrated; run lightvla alarm calibrate' in result.reason
