"""The action run_instruction with a real client: how a run ends, and that the robot holds then."""

import json

import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from lightvla_ros.action import RunInstruction
from lightvla_ros.msg import VlaStatus
from rclpy.action import ActionClient
from rig import rig
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.nodes.qos import LATCHED

Goal, Result = RunInstruction.Goal, RunInstruction.Result
MILK, DRESSING = 'pick up the milk', 'pick up the salad dressing'


class User:
    """An action client, and what it has been told."""

    def __init__(self, r):
        self.r = r
        self.feedback = []
        self.client = ActionClient(r.robot, RunInstruction, 'lightvla/run_instruction')
        r.until(self.client.server_is_ready, 'the action server')

    def send(self, instruction=MILK, seconds=30.0, success_by=Goal.SUCCESS_BY_USER):
        limit = Duration(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
        goal = Goal(instruction=instruction, time_limit=limit, success_by=success_by)
        sending = self.client.send_goal_async(
            goal, lambda message: self.feedback.append(message.feedback)
        )
        self.r.until(sending.done, 'the goal to be accepted')
        assert sending.result().accepted
        return sending.result()

    def end(self, handle):
        """Wait for the result; return the goal's status and the result."""
        ending = handle.get_result_async()
        self.r.until(ending.done, 'the result')
        return ending.result().status, ending.result().result

    def call(self, kind, name, request):
        client = self.r.robot.create_client(kind, f'lightvla/{name}')
        self.r.until(client.service_is_ready, name)
        answer = client.call_async(request)
        self.r.until(answer.done, name)
        return answer.result()


@pytest.fixture
def user(bundled_policy):
    # how old pictures may be is not tested here, and a busy machine is late
    with rig(bundled_policy, replan_steps=1, max_image_age=5.0, max_silence=5.0) as r:
        r.matched()
        r.robot.feeding = True
        yield User(r)


def holds_without_an_instruction(r, why):
    r.until_state(VlaStatus.WAITING, 'run_ended')
    assert r.robot.hold_kinds()[-1] == why
    moved = len(r.robot.moves())
    r.settle()
    assert len(r.robot.moves()) == moved
    assert r.robot.statuses[-1].instruction == ''


def test_the_user_says_that_it_succeeded(user):
    r = user.r
    handle = user.send()
    r.until(lambda: len(r.robot.moves()) > 3, 'motion')
    assert r.robot.moves()[0].instruction == MILK
    r.until(lambda: user.feedback and user.feedback[-1].chunks > 1, 'feedback')
    told = user.feedback[-1]
    assert (told.state, told.reason) == (VlaStatus.RUNNING, '')
    assert told.elapsed.sec + told.elapsed.nanosec > 0
    assert user.call(SetBool, 'judge_run', SetBool.Request(data=True)).success
    status, result = user.end(handle)
    assert (status, result.success, result.failure) == (
        GoalStatus.STATUS_SUCCEEDED,
        True,
        Result.NONE,
    )
    assert result.chunks >= 3
    holds_without_an_instruction(r, 'run_ended')
    # the next run begins by itself
    handle = user.send(DRESSING)
    r.until(lambda: r.robot.moves()[-1].instruction == DRESSING, 'motion')
    assert user.call(SetBool, 'judge_run', SetBool.Request(data=False)).success
    status, result = user.end(handle)
    assert (status, result.failure) == (GoalStatus.STATUS_ABORTED, Result.JUDGED_FAILED)


def test_cancelling_holds(user):
    r = user.r
    handle = user.send()
    r.until(r.robot.moves, 'motion')
    cancelling = handle.cancel_goal_async()
    r.until(cancelling.done, 'the cancellation')
    assert cancelling.result().goals_canceling
    status, result = user.end(handle)
    assert (status, result.success, result.failure) == (
        GoalStatus.STATUS_CANCELED,
        False,
        Result.CANCELLED,
    )
    holds_without_an_instruction(r, 'run_ended')


@pytest.mark.parametrize(
    ('by', 'failure'),
    [(Goal.SUCCESS_BY_TIMEOUT, Result.NONE), (Goal.SUCCESS_BY_USER, Result.TIMED_OUT)],
)
def test_the_time_is_over(user, by, failure):
    status, result = user.end(user.send(seconds=0.5, success_by=by))
    assert (result.success, result.failure) == (failure == Result.NONE, failure)
    assert (status == GoalStatus.STATUS_SUCCEEDED) == result.success
    assert result.elapsed.nanosec > 0.5e9 or result.elapsed.sec
    user.r.until_state(VlaStatus.WAITING, 'run_ended')


def test_the_bridge_says_it_and_no_earlier_episode(user):
    r = user.r
    bridge = r.robot.create_publisher(String, 'libero_bridge/result', LATCHED)
    bridge.publish(String(data=json.dumps({'success': True, 'error': ''})))  # of an earlier one
    handle = user.send(success_by=Goal.SUCCESS_BY_BRIDGE)
    r.until(lambda: len(r.robot.moves()) > 2 and bridge.get_subscription_count(), 'motion')
    assert not user.call(SetBool, 'judge_run', SetBool.Request(data=True)).success
    r.settle()
    assert handle.status in (GoalStatus.STATUS_ACCEPTED, GoalStatus.STATUS_EXECUTING)
    for text in ('no JSON', '[]', '{}'):
        bridge.publish(String(data=text))
    r.settle()
    bridge.publish(String(data=json.dumps({'success': False, 'error': 'aborted'})))
    _, result = user.end(handle)
    assert (result.failure, result.message) == (Result.JUDGED_FAILED, 'aborted')
    r.until(lambda: not bridge.get_subscription_count(), 'the subscription to go')


def test_a_second_goal_does_not_take_the_robot(user):
    r = user.r
    first = user.send()
    r.until(r.robot.moves, 'motion')
    status, result = user.end(user.send(DRESSING))
    assert (status, result.failure) == (GoalStatus.STATUS_ABORTED, Result.BUSY)
    assert result.message == f'another run goes on: {MILK}'
    moved = len(r.robot.moves())
    r.until(lambda: len(r.robot.moves()) > moved + 2, 'motion')
    assert r.robot.moves()[-1].instruction == MILK
    user.call(SetBool, 'judge_run', SetBool.Request(data=True))
    assert user.end(first)[1].success


def test_a_pause_is_a_part_of_the_run(user):
    r = user.r
    handle = user.send()
    r.until(r.robot.moves, 'motion')
    user.call(SetBool, 'pause', SetBool.Request(data=True))
    r.until(lambda: user.feedback[-1].reason == 'paused', 'the pause in the feedback')
    assert user.feedback[-1].state == VlaStatus.HOLDING
    moved = len(r.robot.moves())
    user.call(SetBool, 'pause', SetBool.Request(data=False))
    r.until(lambda: len(r.robot.moves()) > moved, 'motion')
    user.call(SetBool, 'judge_run', SetBool.Request(data=True))
    assert user.end(handle)[1].success


def test_fault_a_goal_that_makes_no_sense(user):
    by = Goal.SUCCESS_BY_USER
    for instruction, seconds, judge, message in (
        ('', 1.0, by, 'instruction refused: '),
        ('x' * 600, 1.0, by, 'instruction refused: '),
        (MILK, 0.0, by, 'time_limit is 0 s'),
        (MILK, 1e6, by, 'time_limit is 1e+06 s'),
        (MILK, 1.0, 7, 'success_by is 7'),
        ('stop', 1.0, by, "the instruction says 'stop': the node is paused"),
    ):
        status, result = user.end(user.send(instruction, seconds, judge))
        assert (status, result.failure) == (GoalStatus.STATUS_ABORTED, Result.BAD_GOAL)
        assert result.message.startswith(message)
    assert not user.r.robot.moves()
    user.r.until_state(VlaStatus.HOLDING, 'paused')


def test_fault_somebody_gives_another_instruction(user):
    """It stays in force: the run's end takes back only its own."""
    r = user.r
    handle = user.send()
    r.until(r.robot.moves, 'motion')
    r.robot.say(DRESSING)
    _, result = user.end(handle)
    assert result.failure == Result.INSTRUCTION_LOST
    assert DRESSING in result.message
    r.until(lambda: r.robot.moves()[-1].instruction == DRESSING, 'motion')


def test_fault_the_node_is_reset_or_deactivated_or_fails(user):
    r = user.r
    for end, failure in (
        (lambda: user.call(Trigger, 'reset', Trigger.Request()), Result.INSTRUCTION_LOST),
        (r.node.trigger_deactivate, Result.NOT_ACTIVE),
    ):
        handle = user.send()
        before = len(r.robot.moves())
        r.until(lambda before=before: len(r.robot.moves()) > before, 'motion')
        end()
        assert user.end(handle)[1].failure == failure
    assert user.end(user.send())[1].failure == Result.NOT_ACTIVE
    r.node.trigger_activate()
    handle = user.send()
    before = len(r.robot.moves())
    r.until(lambda: len(r.robot.moves()) > before, 'motion')
    r.engine.mode = 'raise'
    assert user.end(handle)[1].failure == Result.FAULT
    assert user.end(user.send())[1].failure == Result.FAULT
    r.until_state(VlaStatus.FAULT, 'fault:engine_error')
