"""The policy node when nothing is wrong: what it publishes, and its services."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lightvla_ros.msg import ActionChunk, VlaStatus
from rig import rig
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.contract import MANIFEST_NAME, amend_manifest
from lightvla_ros.nodes.conversions import stamp_ns
from lightvla_ros.policy.policy import Policy
from lightvla_ros.runtime.reasons import kind
from lightvla_ros.runtime.supervisor import State


def _call(r, kind, name, request):
    client = r.robot.create_client(kind, name)
    r.until(client.service_is_ready, name)
    future = client.call_async(request)
    r.until(future.done, f'{name} to answer')
    return future.result()


def test_a_chunk_says_what_was_seen_and_when_it_starts(bundled_policy):
    with rig(bundled_policy) as r:
        r.run('  pick up the milk ')
        r.until(lambda: len(r.robot.moves()) >= 3, 'three chunks')
        chunks = r.robot.moves()
        for sequence, chunk in enumerate(chunks):
            assert chunk.schema_version == ActionChunk.SCHEMA_VERSION
            assert chunk.reference == ActionChunk.REFERENCE_MEASURED_POSE
            assert (chunk.header.frame_id, chunk.child_frame_id) == (
                'panda_link0',
                'panda_hand_tcp',
            )
            assert (len(chunk.steps), len(chunk.gripper), chunk.first_step) == (8, 8, 0)
            assert stamp_ns(chunk.period) == 50_000_000
            assert stamp_ns(chunk.valid_until) - stamp_ns(chunk.header.stamp) == 200_000_000
            assert (chunk.sequence, chunk.instruction) == (sequence, 'pick up the milk')
            assert (chunk.reason, chunk.clamped) == ('', False)
            stats = chunk.stats
            assert list(stats.cameras) == ['third_person', 'wrist']
            assert list(stats.tokens_total) == [64, 64]
            assert list(stats.tokens_kept) == [2, 2]
            assert stamp_ns(stats.observation_stamp) < stamp_ns(chunk.header.stamp)
        gaps = np.diff([stamp_ns(chunk.stats.observation_stamp) for chunk in chunks])
        assert (gaps >= 387_500_000).all(), 'a chunk of 8 steps is executed before the next is due'
        assert len({chunk.session_id for chunk in chunks}) == 1


def test_the_real_engine_in_the_node(bundled_policy):
    with rig(bundled_policy, load=Policy.load) as r:
        r.run()
        stats = r.robot.moves()[0].stats
        assert stats.backend == 'onnxruntime-cpu'
        assert stats.precision == 'fp32'
        assert all(0 <= kept <= 64 for kept in stats.tokens_kept)
        assert stamp_ns(stats.inference_time) > 0


def test_pause_holds_and_goes_on(bundled_policy):
    with rig(bundled_policy, replan_steps=1) as r:
        r.run()
        assert _call(r, SetBool, 'lightvla/pause', SetBool.Request(data=True)).success
        r.until_state(VlaStatus.HOLDING, 'paused')
        r.until(lambda: r.robot.chunks[-1].reason == 'paused', 'the hold')
        moved = len(r.robot.moves())
        r.settle()
        assert len(r.robot.moves()) == moved
        assert _call(r, SetBool, 'lightvla/pause', SetBool.Request(data=False)).success
        r.until(lambda: len(r.robot.moves()) > moved, 'motion')


def test_fault_a_pause_is_forgotten_at_activation(bundled_policy):
    """Nobody may be told that the robot is paused, and then see it move."""
    with rig(bundled_policy, autostart=False) as r:
        for bring_up in (r.node.trigger_configure, r.node.trigger_activate):
            answer = _call(r, SetBool, 'lightvla/pause', SetBool.Request(data=True))
            assert (answer.success, 'not active' in answer.message) == (False, True)
            bring_up()
        r.run()


def test_fault_an_instruction_to_stop_starts_motion(bundled_policy):
    """It pauses at once; another instruction does not end that, whoever sends it."""
    with rig(bundled_policy, replan_steps=1, min_instruction_interval=10.0) as r:
        r.matched_user()
        r.run()
        r.robot.say('Stop!')
        r.until_state(VlaStatus.HOLDING, 'paused')
        assert r.robot.chunks[-1].reason == 'paused'
        moved = len(r.robot.moves())
        r.robot.say('pick up the soup')
        r.settle()
        assert len(r.robot.moves()) == moved
        assert any("says 'stop'" in line and '~/pause' in line for line in r.robot.logs)
        assert _call(r, SetBool, 'lightvla/pause', SetBool.Request(data=False)).success
        r.until(lambda: len(r.robot.moves()) > moved, 'motion')


def test_fault_words_that_the_policy_never_met(bundled_policy):
    with rig(bundled_policy, min_instruction_interval=0.0) as r:
        r.matched_user()
        r.matched()
        r.robot.feeding = True
        r.robot.say('gostak distim')
        r.until_state(VlaStatus.WAITING, 'no_instruction')
        r.settle()
        assert not r.robot.chunks
        r.robot.say('stir the milk')
        r.until(r.robot.moves, 'motion')
        for text in (
            "knows none of its words: 'gostak distim'",
            "does not know the words 'stir'",
        ):
            r.until(lambda text=text: any(text in line for line in r.robot.logs), text)


def test_fault_an_instruction_never_expires(bundled_policy):
    """Motion must not resume by itself when nobody expects it any more."""
    with rig(bundled_policy, instruction_timeout=1.0) as r:
        r.run()
        r.robot.feeding = False
        r.until_state(VlaStatus.HOLDING, 'camera_stale:third_person')
        r.until(lambda: r.robot.statuses[-1].instruction == '', 'the instruction to expire')
        moved = len(r.robot.moves())
        r.robot.feeding = True
        r.until_state(VlaStatus.WAITING, 'instruction_expired')
        assert 'instruction_timeout 1.0 s' in r.robot.statuses[-1].reason
        r.settle()
        assert len(r.robot.moves()) == moved
        r.robot.say('pick up the milk')
        r.until(lambda: len(r.robot.moves()) > moved, 'motion')


def test_an_instruction_that_is_repeated_does_not_expire(bundled_policy):
    with rig(bundled_policy, instruction_timeout=1.0) as r:
        r.run()
        r.robot.feeding = False
        timer = r.robot.create_timer(0.3, lambda: r.robot.say('pick up the milk'))
        r.settle()
        r.settle()
        assert r.robot.statuses[-1].instruction == 'pick up the milk'
        timer.cancel()
        r.until(lambda: r.robot.statuses[-1].instruction == '', 'the instruction to expire')


def test_reset_forgets_the_instruction(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        assert _call(r, Trigger, 'lightvla/reset', Trigger.Request()).success
        r.until_state(VlaStatus.WAITING, 'no_instruction')
        assert r.robot.chunks[-1].reason == 'reset'
        assert r.robot.statuses[-1].instruction == ''


def test_kept_patches_come_in_the_upright_view(bundled_policy, tmp_path):
    """Of a policy that sees mirrored images, patch 1 of a row of 8 is column 6 upright."""
    folder = shutil.copytree(bundled_policy, tmp_path / 'mirrored')
    cameras = json.loads((folder / MANIFEST_NAME).read_text())['cameras']
    amend_manifest(folder, cameras=[camera | {'mirror': True} for camera in cameras])
    with rig(folder) as r:
        masks = []
        r.robot.create_subscription(
            Image, 'lightvla/debug/kept_patches/third_person', masks.append, 10
        )
        r.run()
        r.until(lambda: masks, 'a mask')
        mask = np.frombuffer(masks[0].data, np.uint8).reshape(8, 8)
        assert sorted(zip(*np.nonzero(mask), strict=True)) == [(0, 2), (0, 6)]
        stamps = {stamp_ns(c.stats.observation_stamp) for c in r.robot.moves()}
        assert stamp_ns(masks[0].header.stamp) in stamps


def test_diagnostics_tell_each_part_apart(bundled_policy):
    with rig(bundled_policy) as r:
        seen = {}
        name = f'{r.namespace}/lightvla'  # the same names would mix two robots

        def on_diagnostics(message):
            # all robots of the domain publish there
            own = [s for s in message.status if s.hardware_id == name]
            seen.update({status.name: status for status in own})

        r.robot.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)
        r.run()

        def measured():
            status = seen.get(f'{name}: inference')
            return status and any(value.key == 'overhead_ms' for value in status.values)

        r.until(measured, 'figures')
        parts = ('cameras', 'engine', 'inference', 'output', 'familiarity')
        assert set(seen) == {f'{name}: {part}' for part in parts}
        levels = {key.rpartition(' ')[2]: status.level for key, status in seen.items()}
        # pictures of noise are like nothing that was recorded
        assert levels.pop('familiarity') == DiagnosticStatus.WARN
        assert set(levels.values()) == {DiagnosticStatus.OK}
        r.robot.cameras = {'third_person'}
        r.until(
            lambda: kind(seen[f'{name}: cameras'].message) == 'camera_stale:wrist',
            'the camera to stale',
        )
        assert seen[f'{name}: cameras'].level == DiagnosticStatus.ERROR
        assert seen[f'{name}: engine'].level == DiagnosticStatus.OK


@pytest.mark.parametrize('steps', [2, 4])
def test_replanning_earlier(bundled_policy, steps):
    with rig(bundled_policy, replan_steps=steps) as r:
        r.run()
        count = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) >= count + 5, 'five chunks')
        # behind a hold, for instance of a machine that stood still, the next chunk comes at once
        pairs = [p for p in pairwise(r.robot.chunks) if all(chunk.steps for chunk in p)]
        stamps = [[stamp_ns(chunk.stats.observation_stamp) for chunk in pair] for pair in pairs]
        assert (np.diff(stamps) >= (steps - 0.25) * 50_000_000).all()


def test_states_are_numbered_as_in_the_message():
    constants = {name: getattr(VlaStatus, name) for name in dir(VlaStatus) if name.isupper()}
    states = {name: value for name, value in constants.items() if isinstance(value, int)}
    assert {state.name: state.value for state in State} == states
