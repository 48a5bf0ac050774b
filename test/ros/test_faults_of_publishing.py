"""A message of our own cannot be published: nothing moves on, and the node says so."""

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lightvla_ros.msg import ActionChunk, VlaStatus
from rclpy.parameter import Parameter
from rig import rig
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.nodes.policy_node import PolicyNode

FAULT, RUNNING = VlaStatus.FAULT, VlaStatus.RUNNING


def _has_text(message):
    return bool(message.reason or message.instruction)


PUBLISHERS = {
    'chunk': (lambda node: node.runner.output._publisher, lambda chunk: chunk.steps),
    'hold': (lambda node: node.runner.output._publisher, lambda chunk: chunk.reason),
    'status': (lambda node: node._report._status, _has_text),
    'diagnostics': (lambda node: node._report._diagnostics, lambda _: True),
    'kept_patches': (lambda node: node.runner.output._kept_publishers[0], lambda _: True),
}


@pytest.mark.parametrize('what', PUBLISHERS)
def test_fault_publishing_fails(bundled_policy, monkeypatch, what):
    """As with a layer between that enforces the messages' bounds. No thread of ours may die."""
    with rig(bundled_policy) as r:
        r.robot.create_subscription(Image, 'lightvla/debug/kept_patches/third_person', id, 1)
        r.robot.create_subscription(DiagnosticArray, '/diagnostics', id, 1)
        r.run()
        find, refused = PUBLISHERS[what]
        publisher = find(r.node)
        publish = publisher.publish

        def strict(message):
            if refused(message):
                raise ValueError('out of bounds')
            publish(message)

        monkeypatch.setattr(publisher, 'publish', strict)
        if what == 'hold':
            r.robot.feeding = False
        r.until_state(FAULT, '' if what == 'status' else f'fault:publish_{what}')
        last = r.robot.chunks[-1]
        assert not last.steps
        if what in ('chunk', 'hold'):
            assert (last.reason, last.instruction) == ('', '')
            assert last.session_id == r.node.runner.output.session_id
        moved = len(r.robot.moves())
        r.settle()  # the heartbeat lives
        assert len(r.robot.moves()) == moved
        monkeypatch.setattr(publisher, 'publish', publish)
        reset = r.robot.create_client(Trigger, 'lightvla/reset')
        r.until(reset.service_is_ready, 'the service')
        answer = reset.call_async(Trigger.Request())
        r.until(answer.done, 'an answer')
        r.robot.feeding = True
        r.robot.say('pick up the milk')
        r.until(lambda: len(r.robot.moves()) > moved, 'motion after the reset')


def test_fault_an_instruction_within_its_characters_but_not_its_bytes(bundled_policy):
    with rig(bundled_policy) as r:
        r.run('pick up the milk')
        r.robot.say('pick up the ' + '牛' * 400)
        r.until_state(RUNNING, 'instruction_rejected')
        r.robot.say('pick up the ' + '牛' * 330)
        r.until(lambda: r.robot.moves()[-1].instruction.endswith('牛'), 'a chunk of it')


def test_all_text_of_a_chunk_fits_its_bounds(bundled_policy):
    bounds = {
        name: int(kind.removeprefix('string<').removesuffix('>'))
        for name, kind in ActionChunk.get_fields_and_field_types().items()
        if kind.startswith('string<')
    }
    assert set(bounds) == {'child_frame_id', 'session_id', 'instruction', 'reason'}
    with rig(bundled_policy, ee_frame='é' * 127) as r:
        r.run('pick up the ' + '牛' * 330)
        r.robot.feeding = False
        r.until(r.robot.holds, 'a hold')
        for chunk in r.robot.chunks:
            for name, bound in bounds.items():
                assert len(getattr(chunk, name).encode()) <= bound, name


def test_fault_a_frame_longer_than_its_field(bundled_policy):
    overrides = [Parameter('ee_frame', value='é' * 128)]
    with pytest.raises(ParameterError, match='256 bytes in UTF-8; at most 255'):
        PolicyNode(parameter_overrides=overrides)
