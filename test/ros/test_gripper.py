"""The hand by actions: the executor's client against franka_gripper's rules and durations."""

import itertools
import os
import random
import threading
import time
from functools import partial

import pytest
from executor_rig import executor_rig
from lightvla_ros.msg import VlaStatus
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from lightvla_ros.nodes.hand_twin import HandTwin

franka_msgs = pytest.importorskip('franka_msgs.action', reason='tools/setup.sh builds a stand-in')

RUNNING, HOLDING = VlaStatus.RUNNING, VlaStatus.HOLDING
TICK = 0.01
FUZZ = int(os.environ.get('LIGHTVLA_FUZZ', '500'))


class SlowHand:
    """A hand that moves at its speed, and that an object of some width keeps from closing."""

    def __init__(self):
        self.place = self.goal = 0.08
        self.speed = 0.0
        self.blocked_at = 0.0
        self.frozen = False
        self.moves = []

    def move(self, width, speed):
        self.goal, self.speed = width, speed
        self.moves.append(width)

    def halt(self):
        self.goal = self.place

    def width(self):
        return self.place

    def rests(self):
        return not self.frozen and abs(self.place - max(self.goal, self.blocked_at)) < 1e-9

    def advance(self):
        most = self.speed * TICK
        goal = max(self.goal, self.blocked_at)
        if not self.frozen:
            self.place += min(most, max(-most, goal - self.place))


class HandProcess:
    """A node with the twin, spun by one thread and moved by another, as in the LIBERO bridge."""

    def __init__(self, namespace):
        self.node = Node('hand', namespace=namespace)
        self.twin = HandTwin(self.node)
        self.hand = SlowHand()
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._spin, self._simulate)
        ]
        for thread in self._threads:
            thread.start()

    def _spin(self):
        while not self._stop.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def _simulate(self):
        while not self._stop.is_set():
            self.hand.advance()
            self.twin.tick(self.hand, time.monotonic())
            time.sleep(TICK)

    def close(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.twin.destroy()
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture(params=['franka', 'gripper_command'])
def setting(request):
    """An executor with a hand; yields the rig and the hand."""
    with executor_rig(gripper=request.param, gripper_timeout=2.0) as r:
        process = HandProcess(r.namespace)
        r.until(
            lambda: all(c.server_is_ready() for c in r.node.runner.gripper._clients.values()),
            'the servers of the hand',
        )
        try:
            yield r, process.hand
        finally:
            process.close()


def counts(r):
    return r.node.runner.gripper.counts


class RandomHand(Node):
    """A hand that answers each goal with anything that the type can hold."""

    def __init__(self, namespace):
        super().__init__('random_hand', namespace=namespace)
        self.source = random.Random(7)
        self.asked = 0
        for name, kind in (('move', franka_msgs.Move), ('grasp', franka_msgs.Grasp)):
            ActionServer(
                self,
                kind,
                f'franka_gripper/{name}',
                partial(self._answer, kind),
                goal_callback=self._on_goal,
            )

    def _on_goal(self, _):
        self.asked += 1
        return self.source.choice([GoalResponse.ACCEPT, GoalResponse.ACCEPT, GoalResponse.REJECT])

    def _answer(self, kind, goal):
        self.source.choice([goal.succeed, goal.abort, lambda: None])()
        text = ''.join(self.source.choice('\n\x1b[0mA\u2603') for _ in range(9))
        return kind.Result(success=self.source.random() < 0.5, error=text)


def test_random_answers_of_the_hand_hold_the_arm_or_let_it_go_on():
    with executor_rig(gripper='franka', gripper_timeout=2.0) as r:
        hand = RandomHand(r.namespace)
        executor = SingleThreadedExecutor()
        executor.add_node(hand)
        client = r.node.runner.gripper
        r.until(lambda: all(c.server_is_ready() for c in client._clients.values()), 'the hand')
        opens, failures = itertools.cycle([0.0, 1.0]), 0
        try:
            for _ in range(FUZZ // 10):
                asked = hand.asked
                wanted = next(opens)
                while hand.asked == asked:
                    r.arm.send(y=0.001, gripper=wanted)
                    executor.spin_once(timeout_sec=0.02)
                while client.moves:
                    executor.spin_once(timeout_sec=0.02)
                if client.why:
                    failures += 1
                    r.arm.send(y=0.05)
                    r.until(lambda: 'gripper_failed' in r.arm.state[1], 'a hold')
                    assert r.reset().success
                    r.arm.session = str(failures)
        finally:
            executor.shutdown()
            hand.destroy_node()
        assert failures > FUZZ // 50
        assert counts(r)['done'] > FUZZ // 100


def grip(r, gripper):
    """Send chunks, as a policy does, until the hand has a new command that is carried out."""
    done = counts(r)['done']

    def sent():
        r.arm.send(y=0.001, gripper=gripper)
        time.sleep(0.1)
        return counts(r)['done'] > done or r.node.runner.gripper.why

    r.until(sent, 'the hand')


def test_the_arm_waits_while_the_hand_closes_and_opens(setting):
    r, hand = setting
    r.ready()
    grip(r, 0.0)
    assert hand.width() < 0.003
    assert any('hand_moves' in status.reason for status in r.arm.statuses)
    grip(r, 1.0)
    assert hand.width() == pytest.approx(0.08, abs=1e-3)
    assert hand.moves == [0.0, 0.08]  # a command for each change of side, and none per step
    assert not r.node.runner.gripper.why


def test_closing_on_an_object_is_no_failure(setting):
    r, hand = setting
    hand.blocked_at = 0.037
    r.ready()
    grip(r, 0.0)
    assert hand.width() == pytest.approx(0.037)
    assert not r.node.runner.gripper.why
    r.arm.send()
    r.until_state(RUNNING)


def test_a_hand_that_does_not_open_holds_the_arm_until_a_reset(setting):
    r, hand = setting
    r.ready()
    grip(r, 0.0)
    right, hand.rests = hand.rests, lambda: True  # it stays where it is
    hand.frozen = True
    grip(r, 1.0)
    r.until_state(HOLDING, 'gripper_failed')
    r.arm.send()
    assert r.rests()
    hand.rests, hand.frozen = right, False
    assert r.reset().success
    grip(r, 1.0)
    assert hand.width() == pytest.approx(0.08, abs=1e-3)


def test_a_hand_that_never_answers_holds_the_arm(setting):
    r, hand = setting
    r.ready()
    hand.frozen = True
    grip(r, 0.0)
    r.until_state(HOLDING, 'gripper_timeout')


def test_without_a_hand_the_arm_holds():
    with executor_rig(gripper='franka') as r:
        r.ready()
        r.arm.send(gripper=0.0)
        r.until_state(HOLDING, 'gripper_missing')
        assert r.rests()


def test_a_command_that_is_refused_holds_the_arm():
    with executor_rig(gripper='franka') as r:
        server = ActionServer(
            r.arm,
            franka_msgs.Grasp,
            'franka_gripper/grasp',
            lambda _: franka_msgs.Grasp.Result(),
            goal_callback=lambda _: GoalResponse.REJECT,
        )
        clients = r.node.runner.gripper._clients
        r.until(clients['grasp'].server_is_ready, 'the server')
        r.ready()
        r.arm.send(gripper=0.0)
        r.until_state(HOLDING, 'gripper_failed')
        assert r.rests()
        server.destroy()
