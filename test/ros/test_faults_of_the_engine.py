"""The engine is missing, fails or hangs."""

import json
import shutil
import threading

import pytest
from fake_engine import FakeEngine
from lightvla_ros.msg import VlaStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rig import rig
from std_srvs.srv import Trigger

from lightvla_ros.contract import MANIFEST_NAME, amend_manifest, file_sha256
from lightvla_ros.policy.policy import Policy

HOLDING, RUNNING, FAULT = VlaStatus.HOLDING, VlaStatus.RUNNING, VlaStatus.FAULT
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.mark.parametrize('mode', ['nan', 'inf', 'shape', 'far'])
def test_fault_08_bad_output(bundled_policy, mode):
    with rig(bundled_policy, max_failures=100) as r:
        r.run()
        moved = len(r.robot.moves())
        r.engine.mode = mode
        r.until_state(HOLDING, 'bad_output')
        assert r.robot.hold_kinds()[-1] == 'bad_output'
        r.until(lambda: r.node.statistics.counts['failed'] >= 2, 'another try')
        r.engine.mode = 'ok'
        r.until_state(RUNNING)
        assert len(r.robot.moves()) > moved


def test_fault_08_three_bad_outputs_in_a_row_are_a_fault(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        r.engine.mode = 'nan'
        r.until_state(FAULT, 'fault:bad_output')
        assert r.node.statistics.counts['failed'] == 3
        assert not r.robot.chunks[-1].steps
        r.engine.mode = 'ok'
        r.settle()
        assert r.robot.state == (FAULT, 'fault:bad_output'), 'a fault must not end by itself'


def test_fault_09_long_step_is_shortened(bundled_policy):
    with rig(bundled_policy) as r:
        r.engine.mode = 'long'
        r.run()
        chunk = r.robot.moves()[0]
        assert chunk.clamped
        assert chunk.steps[2].translation.x == pytest.approx(0.087)
        assert chunk.steps[1].translation.x == pytest.approx(0.005, rel=1e-3)


def _break_missing(folder):
    (folder / 'act.onnx').unlink()
    return 'act.onnx: listed in manifest.json but missing'


def _break_changed(folder):
    with (folder / 'encode.onnx').open('ab') as file:
        file.write(b'x')
    return 'encode.onnx: SHA-256 is'


def _break_truncated(folder):
    path = folder / 'encode.onnx'
    path.write_bytes(path.read_bytes()[:1000])
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest['files']['encode.onnx'] = file_sha256(path)
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return 'encode.onnx: onnxruntime cannot load it'


def _break_unverified(folder):
    amend_manifest(folder, verified=[])
    return 'was never verified; run `lightvla verify'


@pytest.mark.parametrize(
    'damage', [_break_missing, _break_changed, _break_truncated, _break_unverified]
)
def test_fault_11_engine_file_is_damaged(bundled_policy, tmp_path, damage):
    folder = tmp_path / 'policy'
    shutil.copytree(bundled_policy, folder)
    message = damage(folder)
    with rig(folder, autostart=False, load=Policy.load) as r:
        r.matched_user()
        assert r.node.trigger_configure() == FAILURE
        r.until(lambda: any(message in log for log in r.robot.logs), message)
        r.until_state(VlaStatus.UNCONFIGURED, 'configure_failed')
        shutil.rmtree(folder)
        shutil.copytree(bundled_policy, folder)
        assert r.node.trigger_configure() == SUCCESS, 'a retry must work'


def test_fault_11_wrong_provider(bundled_policy):
    parameters = {'provider': 'CUDAExecutionProvider'}
    with rig(bundled_policy, autostart=False, load=Policy.load, **parameters) as r:
        r.matched_user()
        assert r.node.trigger_configure() == FAILURE
        wanted = 'has no CUDAExecutionProvider here'
        r.until(lambda: any(wanted in log for log in r.robot.logs), wanted)


def test_fault_11_what_is_refused_is_freed(bundled_policy, monkeypatch):
    """Else each try to configure would keep another engine in a GPU's memory."""
    engine = FakeEngine()  # which nobody has verified
    monkeypatch.setattr('lightvla_ros.policy.policy.load_engine', lambda *_, **__: engine)
    with rig(bundled_policy, autostart=False, load=Policy.load) as r:
        assert r.node.trigger_configure() == FAILURE
        assert engine.closed
    with rig(bundled_policy, autostart=False, replan_steps=9) as r:  # a chunk has 8
        assert r.node.trigger_configure() == FAILURE
        assert r.engine.closed


def test_fault_11_engine_that_was_never_built(bundled_policy):
    """Whatever this machine lacks, TensorRT or an engine for it, the log says what to do."""
    with rig(bundled_policy, autostart=False, load=Policy.load, engine='tensorrt') as r:
        r.matched_user()
        assert r.node.trigger_configure() == FAILURE
        wanted = 'tensorrt'
        r.until(lambda: any(wanted in log and 'cannot configure' in log for log in r.robot.logs))


def test_fault_12_inference_raises(bundled_policy):
    with rig(bundled_policy, max_failures=100) as r:
        r.run()
        r.engine.mode = 'raise'
        r.until_state(HOLDING, 'engine_error')
        r.engine.mode = 'ok'
        r.until_state(RUNNING)


def test_fault_12_engine_that_keeps_failing_is_a_fault_until_reset(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        session = r.robot.chunks[-1].session_id
        r.engine.mode = 'raise'
        r.until_state(FAULT, 'fault:engine_error')
        r.engine.mode = 'ok'
        reset = r.robot.create_client(Trigger, 'lightvla/reset')
        r.until(reset.service_is_ready, 'the service')
        answer = reset.call_async(Trigger.Request())
        r.until(answer.done, 'an answer')
        assert answer.result().success
        r.until_state(VlaStatus.WAITING, 'no_instruction')
        seen = len(r.robot.chunks)
        r.robot.say('pick up the soup')
        r.until(lambda: len(r.robot.chunks) > seen, 'a chunk')
        assert r.robot.chunks[-1].session_id != session
        assert r.robot.chunks[seen].sequence == 0


def test_fault_12_inference_thread_dies(bundled_policy, monkeypatch):
    """Whatever is wrong in our own code: a node that cannot infer must not say it runs."""
    monkeypatch.setattr(threading, 'excepthook', lambda _: None)
    with rig(bundled_policy) as r:
        r.run()
        monkeypatch.setattr(r.node.statistics, 'sent', None)
        r.until_state(FAULT, 'fault:inference_thread')
        assert r.robot.hold_kinds()[-1] == 'fault:inference_thread'


def test_fault_13_the_status_does_not_wait_for_the_inference_that_hangs(
    bundled_policy, monkeypatch
):
    """It said RUNNING for two seconds more."""
    with rig(bundled_policy, max_inference_time=0.3) as r:
        r.run()
        worker, said = r.node.runner._worker, []
        stop = worker.stop

        def recording_stop(timeout):
            said.append(r.node._report.state)
            return stop(timeout)

        monkeypatch.setattr(worker, 'stop', recording_stop)
        r.engine.mode = 'hang'
        r.until(lambda: said, 'the wait')
        assert said == [FAULT]


def test_fault_13_inference_hangs(bundled_policy):
    with rig(bundled_policy, max_inference_time=0.3) as r:
        r.run()
        r.engine.mode = 'hang'
        r.until_state(FAULT, 'inference_timeout')
        assert r.robot.hold_kinds()[-1] == 'inference_timeout'
        assert 'max_inference_time 0.300 s' in r.robot.holds()[-1].reason
        reset = r.robot.create_client(Trigger, 'lightvla/reset')
        r.until(reset.service_is_ready, 'the service')
        answer = reset.call_async(Trigger.Request())
        r.until(answer.done, 'an answer')
        assert not answer.result().success, 'it still hangs'
        seen = len(r.robot.chunks)
        r.engine.mode = 'ok'
        r.engine.released.set()
        r.settle()
        assert len(r.robot.chunks) == seen, 'the late result must be thrown away'
        answer = reset.call_async(Trigger.Request())
        r.until(answer.done, 'an answer')
        assert answer.result().success
