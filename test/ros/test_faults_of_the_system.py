"""Faults of processes, life cycle, subscribers and parameters."""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from lightvla_ros.msg import ActionChunk, VlaStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rig import Robot, rig
from rosbags.highlevel import AnyReader
from std_srvs.srv import Trigger

from lightvla_ros.cli import main
from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.nodes.policy_node import PolicyNode
from lightvla_ros.nodes.spin import ENDING_SIGNALS
from lightvla_ros.runtime.reasons import kind

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
QOS = 'qos_overrides./wrist/image.subscription'
WAITING, RUNNING = VlaStatus.WAITING, VlaStatus.RUNNING


class Process:
    """The node as `ros2 run` starts it, and a robot beside it."""

    def __init__(self, robot, policy_dir, namespace, *arguments, **options):
        self.robot = robot
        self.command = [
            sys.executable,
            str(ROOT / 'scripts' / 'lightvla_node'),
            *('--ros-args', '-r', f'__ns:={namespace}', '-p', f'policy:={policy_dir}'),
            *arguments,
        ]
        self.start(**options)

    def start(self, **options):
        options = {'stderr': subprocess.PIPE, 'preexec_fn': _end_with_us} | options
        self.child = subprocess.Popen(self.command, text=True, **options)
        self.robot.children.append(self.child)

    def until(self, condition, what, timeout=30.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, (
                f'waited {timeout} s for {what}; state {self.robot.state}, {self.robot.logs[-5:]}'
            )
            time.sleep(0.01)

    def end(self, number):
        self.child.send_signal(number)
        return self.ended()

    def ended(self):
        """Return the exit code and what is on stderr, if that is a pipe."""
        _, errors = self.child.communicate(timeout=20.0)
        return self.child.returncode, errors


def _end_with_us():
    """Let the kernel end a child whose test was killed: its node would disturb the next tests."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@pytest.fixture
def robot():
    """A robot in a context of its own: a killed process can leave its partner's shared memory full.

    Then small messages still arrive, but images do not (github.com/eProsima/Fast-DDS/issues/5469).
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Robot('/process', context=context)
    node.children = []
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    for child in node.children:
        child.kill()
        child.communicate()
    stop.set()
    thread.join()
    executor.shutdown()
    node.destroy_node()
    context.shutdown()


def _move(process):
    robot = process.robot
    robot.feeding = True

    def moving():
        if not robot.statuses or robot.statuses[-1].instruction != 'pick up the milk':
            robot.say('pick up the milk')
        return robot.moves()

    process.until(moving, 'the first chunk')


def test_a_killed_node_loses_less_than_a_second_of_its_recording(
    bundled_policy, robot, tmp_path, capsys
):
    record = ('-p', 'record:=true', '-p', f'record_folder:={tmp_path}', '-p', 'replan_steps:=1')
    process = Process(robot, bundled_policy, '/process', *record)
    _move(process)
    begin = time.time_ns()
    process.until(lambda: time.time_ns() > begin + 2e9, 'two seconds')
    killed = time.time_ns()
    process.end(signal.SIGKILL)
    [file] = tmp_path.rglob('*.mcap')
    assert not list(tmp_path.rglob('metadata.yaml'))
    with AnyReader([file]) as reader:  # as it lies there: whole, though nobody could finish it
        last = {each.topic: stamp for each, stamp, _ in reader.messages()}
    for topic in ('third_person/image', 'wrist/image', 'ee_pose', 'lightvla/inference'):
        assert killed - last[f'/process/{topic}'] < 1e9
    assert main(['replay', str(file), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['identical'] == found['compared'] == found['recorded'] >= 3


def test_fault_20_crash_and_respawn(bundled_policy, robot):
    process = Process(robot, bundled_policy, '/process')
    _move(process)
    first = robot.chunks[-1]
    process.end(signal.SIGKILL)
    robot.statuses.clear()
    robot.chunks.clear()
    process.start()
    process.until(
        lambda: robot.statuses and robot.statuses[-1].reason == 'no_instruction', 'its status'
    )
    assert robot.statuses[-1].state == WAITING, 'a node that crashed must not go on by itself'
    assert robot.chunks == []
    _move(process)
    assert robot.chunks[0].sequence == 0
    assert robot.chunks[0].session_id != first.session_id
    assert process.end(signal.SIGINT)[0] == 0


@pytest.mark.parametrize(
    'number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name
)
def test_fault_21_asked_to_end_while_moving(bundled_policy, robot, number):
    process = Process(robot, bundled_policy, '/process')
    _move(process)
    code, errors = process.end(number)
    assert code == 0, errors
    process.until(lambda: not robot.chunks[-1].steps, 'the hold')
    assert robot.chunks[-1].reason == 'shutdown'


def test_fault_21_terminal_closed_while_moving(bundled_policy, robot):
    """The kernel sends SIGHUP, and the log's file descriptor is dead from then on."""
    master, slave = os.openpty()

    def take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    files = dict.fromkeys(('stdin', 'stdout', 'stderr'), slave)
    process = Process(
        robot, bundled_policy, '/process', preexec_fn=take_terminal, start_new_session=True, **files
    )
    os.close(slave)
    _move(process)
    os.close(master)
    assert process.ended()[0] == 0
    process.until(lambda: not robot.chunks[-1].steps, 'the hold')
    assert robot.chunks[-1].reason == 'shutdown'


def test_every_signal_that_ends_a_process_is_caught_but_nohup_is_respected():
    command = (
        'import signal\n'
        'from lightvla_ros.nodes.spin import ENDING_SIGNALS, on_ending_signals\n'
        'caught = []\n'
        'on_ending_signals(lambda: caught.append(1))\n'
        'for number in ENDING_SIGNALS: signal.raise_signal(number)\n'
        'print(len(caught))\n'
    )

    def count(*before):
        run = subprocess.run([*before, sys.executable, '-c', command], capture_output=True)
        assert run.returncode == 0, run.stderr
        return int(run.stdout)

    assert count() == len(ENDING_SIGNALS)
    assert count('nohup') == len(ENDING_SIGNALS) - 1


def test_fault_21_asked_to_end_while_loading(bundled_policy):
    loading = threading.Event()
    stop = threading.Event()

    def load(*_, **__):
        loading.set()
        time.sleep(30.0)

    overrides = [Parameter('policy', value=str(bundled_policy))]
    node = PolicyNode(stop, load, parameter_overrides=overrides)
    thread = threading.Thread(target=node.autostart)
    thread.start()
    assert loading.wait(10.0)
    stop.set()
    thread.join(5.0)
    assert not thread.is_alive(), 'loading must be given up within 5 s'
    node.shut_down()
    node.destroy_node()


def _service(r, kind, name):
    client = r.robot.create_client(kind, name)
    r.until(client.service_is_ready, name)

    def call(request):
        future = client.call_async(request)
        r.until(future.done, f'{name} to answer')
        return future.result()

    return call


def test_fault_22_invalid_lifecycle_requests(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        get_state = _service(r, GetState, 'lightvla/get_state')
        change = _service(r, ChangeState, 'lightvla/change_state')
        for transition in (
            Transition(id=Transition.TRANSITION_ACTIVATE),
            Transition(id=Transition.TRANSITION_CLEANUP),
            Transition(id=200),
            Transition(label='x' * 100_000),
        ):
            # Jazzy raises out of spin and never answers (rclpy#1209)
            assert not change(ChangeState.Request(transition=transition)).success
            assert get_state(GetState.Request()).current_state.id == State.PRIMARY_STATE_ACTIVE
        count = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) > count, 'motion to go on')


def test_fault_22_shutdown_transition_ends_the_process(bundled_policy, robot):
    process = Process(robot, bundled_policy, '/process')
    _move(process)
    client = robot.create_client(ChangeState, 'lightvla/change_state')
    process.until(client.service_is_ready, 'change_state')
    shutdown = Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN)
    future = client.call_async(ChangeState.Request(transition=shutdown))
    process.until(future.done, 'an answer')
    assert future.result().success
    assert process.ended()[0] == 0
    process.until(lambda: not robot.chunks[-1].steps, 'the hold')
    assert robot.chunks[-1].reason == 'shutdown'
    assert (robot.statuses[-1].state, robot.statuses[-1].reason) == (
        VlaStatus.UNCONFIGURED,
        'shutdown',
    ), 'its last word'


def test_fault_22_reset_promises_nothing_after_shutdown(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        r.node.trigger_shutdown()
        answer = _service(r, Trigger, 'lightvla/reset')(Trigger.Request())
        assert not answer.success
        assert 'start it again' in answer.message


def test_fault_22_hundred_lifecycle_cycles(bundled_policy):
    def resident():
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE')

    with rig(bundled_policy, autostart=False) as r:
        for cycle in range(110):
            for trigger in ('configure', 'activate', 'deactivate', 'cleanup'):
                getattr(r.node, f'trigger_{trigger}')()
            if cycle == 9:
                threads, memory = set(threading.enumerate()), resident()
        # those of earlier tests may end meanwhile
        assert not set(threading.enumerate()) - threads
        assert resident() - memory < 20 * 2**20


def test_fault_23_slow_subscriber(bundled_policy):
    """It gets the newest chunk, and the node is not held up."""
    with rig(bundled_policy, replan_steps=1) as r:
        slow = Node('slow', namespace=r.namespace)
        got = []

        def on_chunk(message):
            got.append((message.sequence, r.node.runner.output.sequence))
            time.sleep(0.4)

        slow.create_subscription(ActionChunk, 'lightvla/action_chunk', on_chunk, 1)
        executor = SingleThreadedExecutor()
        executor.add_node(slow)
        r.run()
        while len(got) < 4:
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
        slow.destroy_node()
        sequences = [sequence for sequence, _ in got[1:]]
        assert sequences[-1] - sequences[0] > len(sequences), 'old chunks must be skipped'
        assert all(newest - sequence <= 2 for sequence, newest in got[1:]), got


def test_fault_24_late_subscriber_gets_the_status_and_no_old_chunk(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        r.robot.feeding = False
        r.until_state(VlaStatus.HOLDING, 'camera_stale:third_person')
        late = Node('late', namespace=r.namespace)
        statuses, chunks = [], []
        late.create_subscription(ActionChunk, 'lightvla/action_chunk', chunks.append, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        late.create_subscription(VlaStatus, 'lightvla/status', statuses.append, latched)
        executor = SingleThreadedExecutor()
        executor.add_node(late)
        deadline = time.monotonic() + 15.0
        while len(statuses) < 3 and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
        late.destroy_node()
        assert statuses
        assert kind(statuses[0].reason) == 'camera_stale:third_person'
        assert chunks == []


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'max_image_gae': 0.5}, 'unknown parameter max_image_gae'),
        ({'threads': 'two'}, 'threads'),
        ({'max_image_age': 1}, 'max_image_age must be a float'),
        ({'max_image_age': -1.0}, 'max_image_age'),
        ({'max_image_age': float('nan')}, 'max_image_age'),
        ({'image_transport': 'theora'}, 'image_transport'),
        ({'start_delay': 0.1, 'anchor': 'observation'}, 'start_delay is 0.1, but anchor'),
        ({'roll_state': True, 'anchor': 'observation'}, 'roll_state is true, but with anchor'),
        ({f'{QOS}.reliabilty': 'reliable'}, f'unknown parameter {QOS}.reliabilty'),
        ({'qos_overrides.wrist': 'reliable'}, 'unknown parameter qos_overrides.wrist'),
        ({f'{QOS}.reliability': 'best_efort'}, 'best_efort.; choose reliable, best_effort'),
        ({f'{QOS}.reliability': 1}, f'{QOS}.reliability is 1; choose'),
        ({f'{QOS}.depth': 0}, 'depth is 0; it must be a whole number above 0'),
        ({f'{QOS}.depth': 'deep'}, "depth is 'deep'; it must be a whole number above 0"),
    ],
    ids=[
        *('unknown', 'type', 'integer', 'range', 'NaN', 'choice', 'unused', 'unused too'),
        *('QoS policy', 'QoS form', 'QoS choice', 'QoS type', 'QoS depth', 'QoS depth type'),
    ],
)
def test_fault_27_wrong_parameters_at_start(parameters, message):
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    with pytest.raises(ParameterError, match=message) as caught:
        PolicyNode(parameter_overrides=overrides)
    assert '\n' not in str(caught.value)


def test_fault_27_qos_override_of_no_topic(bundled_policy):
    """Which topics there are is known only when the policy is loaded."""
    wrong = 'qos_overrides./wrist/imgae.subscription.reliability'
    with rig(bundled_policy, autostart=False, **{wrong: 'reliable'}) as r:
        r.matched_user()
        r.node.autostart()
        r.until_state(VlaStatus.UNCONFIGURED, 'configure_failed')
        said = f'cannot configure: unknown parameter {wrong}; QoS can be set for'
        r.until(lambda: any(said in line for line in r.robot.logs), 'the log')
        line = next(line for line in r.robot.logs if said in line)
        assert f'{r.namespace}/wrist/image' in line


def test_fault_27_parameter_file_for_another_node(tmp_path):
    file = tmp_path / 'wrong.param.yaml'
    file.write_text('lightvla_node:\n  ros__parameters:\n    threads: 2\n')
    result = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'scripts' / 'lightvla_node'),
            *('--ros-args', '--params-file', str(file)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert 'no section is for /lightvla, only for /lightvla_node' in result.stderr


def test_fault_27_wrong_parameters_at_run_time(bundled_policy):
    with rig(bundled_policy) as r:
        r.run()
        call = _service(r, SetParameters, 'lightvla/set_parameters')

        def set_parameter(name, value):
            return call(
                SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
            ).results[0]

        assert not set_parameter('threads', 2).successful, 'it is read-only'
        assert not set_parameter('max_image_age', float('nan')).successful
        assert not set_parameter('max_image_age', 'long').successful
        refused = set_parameter('max_step_translation', 5.0)
        assert not refused.successful
        assert 'max_step_translation' in refused.reason
        raw = ParameterMessage(name='no_such_parameter', value=ParameterValue(type=3))
        assert not call(SetParameters.Request(parameters=[raw])).results[0].successful
        # a chunk of the policy has 8 steps
        refused = set_parameter('replan_steps', 9)
        assert not refused.successful
        assert 'a chunk of libero-tiny has 8 steps' in refused.reason
        assert set_parameter('replan_steps', 8).successful
        assert not set_parameter('max_image_age', None).successful, 'it cannot be taken away'
        assert set_parameter('max_image_age', 0.4).successful
        assert r.node.runner.inbox.freshness.image_age == 400_000_000
        count = len(r.robot.moves())
        r.until(lambda: len(r.robot.moves()) > count, 'the node to live on')
