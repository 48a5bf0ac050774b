"""Messages for the fuzzer of the chunk executor, from one seeded generator, as in bad_messages."""

import math

from bad_messages import NOT_FINITE, Messages
from geometry_msgs.msg import Transform
from lightvla_ros.msg import ActionChunk
from rclpy.serialization import serialize_message
from std_msgs.msg import Bool

from lightvla_ros.nodes.conversions import pose_to_message, stamp_ns, time_message
from lightvla_ros.policy.state import RobotState

ORDERS = ('enable', 'stop')


class ExecutorMessages(Messages):
    """Makes messages for the inputs of the executor: chunks, the pose, the dead-man, the stop.

    :param arm: The arm of the rig: a good pose is where it stands, and a good chunk is its next.
    """

    def __init__(self, seed, arm):
        super().__init__(seed, compressed=False)
        self._arm = arm
        self._along = 1.0  # the direction of the next good chunk along y

    def good(self, source):
        """A message that belongs to a robot in order."""
        if source == 'action_chunk':
            # to and fro by 2 cm: turned at each crossing of the middle, it swung by less than 3 mm
            place = self._arm.pose.position[1]
            if abs(place) > 0.02:
                self._along = -math.copysign(1.0, place)
            return self._arm.chunk(y=0.02 * self._along)
        if source == 'ee_pose':
            return pose_to_message(RobotState(*self._arm.pose), self._arm.stamp(), self._arm.frame)
        return Bool(data=source == 'enable')

    def bad(self, source):
        """A message that must not move the arm, whatever else there is."""
        if source in ORDERS:
            return Bool(data=False) if self.random.random() < 0.5 else b'\x00\x01\x00\x00'
        if source == 'ee_pose':
            return super().bad(source)
        message = self.good(source)
        self.random.choice(CHUNK_FAULTS)(self.random, message)
        return message

    def wild(self, source):
        """Anything: a bad message, one whose bytes were changed on the way, or random content."""
        if source == 'ee_pose':
            return super().wild(source)
        pick = self.random.random()
        if pick < 0.3:
            return self.bad(source)
        message = self.good(source)
        if pick < 0.7:
            wire = serialize_message(message)
            # Fast DDS refuses to send more than a type can hold
            return self._wild_bytes(wire)[: len(wire) if source in ORDERS else None]
        if source in ORDERS:
            return Bool(data=self.random.random() < 0.5)
        size = self.random.randrange(65)
        message.steps = [self._wild_step() for _ in range(size)]
        message.gripper = [self.random.uniform(-0.1, 1.1) for _ in range(size)]
        message.sequence = self.random.randrange(2**64)
        message.first_step = self.random.randrange(2**16)
        letters = self.random.choices(range(1, 0xD7FF), k=self.random.randrange(128))
        message.reason = message.instruction = ''.join(map(chr, letters))
        return message

    def _wild_step(self):
        step = Transform()
        scale = 10 ** self.random.uniform(-6, 1)
        for axis in 'xyz':
            setattr(step.translation, axis, scale * self.random.gauss(0, 1))
        turn = [self.random.gauss(0, 1) for _ in 'xyzw']
        length = math.hypot(*turn)
        for axis, value in zip('xyzw', turn, strict=True):
            setattr(step.rotation, axis, value / length)
        return step


def _version(random, message):
    message.schema_version = random.choice([0, 2, 77, 255])


def _period(random, message):
    message.period.sec, message.period.nanosec = random.choice([(0, 0), (-1, 0), (-(2**31), 0)])


def _translation(random, message):
    number = random.choice([*NOT_FINITE, 1e300, 5.0, -5.0])
    for step in message.steps:
        setattr(step.translation, random.choice('xyz'), number)


def _rotation(random, message):
    number = random.choice([*NOT_FINITE, 1e300, 7.0])
    for step in message.steps:
        setattr(step.rotation, random.choice('xyzw'), number)


def _gripper(random, message):
    size = len(message.steps)
    message.gripper = random.choice([[], [0.5] * (size - 1), [math.nan] * size, [2.0] * size])


def _no_steps(random, message):
    message.steps, message.gripper = [], []
    message.reason = random.choice(['', 'fault', '\x1b[2J', 'x' * 128])


def _frame(random, message):
    frame = random.choice(['', '/panda_link0', 'world', 'panda_link0 ', 'x' * 5000])
    if random.random() < 0.5:
        message.header.frame_id = frame
    else:
        message.child_frame_id = frame[:255]


def _reference(random, message):
    message.reference = random.choice([ActionChunk.REFERENCE_PREVIOUS_TARGET, 2, 255])


def _session(random, message):
    message.session_id = random.choice(['', 'another', 'x' * 64])


def _sequence(random, message):
    message.sequence = 0


def _late(random, message):
    late = random.choice([10**9, 3600 * 10**9])
    for stamp in (message.header.stamp, message.valid_until):
        earlier = time_message(stamp_ns(stamp) - late)
        stamp.sec, stamp.nanosec = earlier.sec, earlier.nanosec


def _valid_until(random, message):
    message.valid_until.sec = random.choice([0, 12, -1])


CHUNK_FAULTS = (
    _version,
    _period,
    _translation,
    _rotation,
    _gripper,
    _no_steps,
    _frame,
    _reference,
    _session,
    _sequence,
    _late,
    _valid_until,
)
