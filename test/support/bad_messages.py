"""Messages for the fuzzer of the policy node: good ones, ones that must be refused, and anything.

All come from one seeded generator, so that a failure repeats.
"""

import math
import random
import struct
import time
import zlib

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from lightvla_ros.nodes.conversions import gripper_to_message, image_to_message, pose_to_message
from lightvla_ros.policy.state import RobotState

CAMERAS = ('third_person', 'wrist')
STATES = ('ee_pose', 'gripper_state')
INSTRUCTION = 'pick up the milk and place it in the basket'
SIDE = 128
NOT_FINITE = (math.nan, math.inf, -math.inf)


class Messages:
    """Makes messages for the inputs of a policy node: both cameras, both states, the instruction.

    :param compressed: Whether the cameras send JPEG and PNG.
    """

    def __init__(self, seed, compressed):
        self.random = random.Random(seed)
        self.compressed = compressed
        self._frames = {camera: 0 for camera in CAMERAS}
        self._numbers = np.random.default_rng(seed)
        small = self._numbers.integers(0, 256, (8, 8, 3), np.uint8)
        self._scene = np.repeat(np.repeat(small, SIDE // 8, 0), SIDE // 8, 1)
        self._jpeg = cv2.imencode('.jpg', self._scene)[1].tobytes()
        self._png = cv2.imencode('.png', self._scene)[1].tobytes()

    def good(self, source):
        """A message that a robot in order sends; each picture is a new one."""
        now = time.time_ns()
        if source in CAMERAS:
            picture = self._picture(source)
            if self.compressed:
                data = cv2.imencode('.jpg', picture)[1].tobytes()
                return _stamped(CompressedImage(format='rgb8; jpeg compressed bgr8', data=data))
            return image_to_message(picture, now, source)
        if source == 'ee_pose':
            down = np.array([1.0, 0.0, 0.0, 0.0])
            return pose_to_message(RobotState(np.array([0.0, 0.0, 0.3]), down), now, 'panda_link0')
        if source == 'gripper_state':
            return gripper_to_message(RobotState(fingers=np.array([0.04, -0.04])), now)
        return String(data=INSTRUCTION)

    def bad(self, source):
        """A message that must be refused, whatever else there is."""
        if source == 'instruction':
            texts = (
                '',
                '  ',
                '\t',
                'a\x07b',
                'x' * 513,
                'milk ' * 110,
                'a\nb',
                '\u200b\u00ad',
                '?!',
            )
            return String(data=self.random.choice(texts))
        message = self.good(source)
        if self.random.random() < 0.2:
            return _stamped(message, self._bad_stamp())
        if source == 'ee_pose':
            self._spoil_pose(message)
        elif source == 'gripper_state':
            self._spoil_fingers(message)
        elif self.compressed:
            message.data = self._bad_file()
        else:
            self._spoil_layout(message)
        return message

    def wild(self, source):
        """Anything: a bad message, one whose bytes were changed on the way, or random content."""
        pick = self.random.random()
        if pick < 0.3:
            return self.bad(source)
        if pick < 0.7:
            return self._wild_bytes(serialize_message(self.good(source)))
        if source == 'instruction':
            letters = self.random.choices(range(1, 0xD7FF), k=self.random.randrange(600))
            return String(data=''.join(map(chr, letters)))
        message = self.good(source)
        if source == 'ee_pose':
            message.pose.position.x = self.random.choice([0.0, 1e300, -1e-300, 5e-324])
            x, y, z, w = _unit([self.random.gauss(0, 1) for _ in range(4)])
            turn = message.pose.orientation
            turn.x, turn.y, turn.z, turn.w = x, y, z, w
        elif source == 'gripper_state':
            count = self.random.randrange(5)
            message.name = [str(self.random.random()) for _ in range(count)]
            message.position = [
                self.random.uniform(-1, 1) * 10 ** self.random.randrange(-5, 300)
                for _ in range(self.random.randrange(5))
            ]
        elif self.compressed:
            message.data = self._changed_bytes(self.random.choice([self._jpeg, self._png]))
            letters = self.random.choices(range(32, 0xD7FF), k=self.random.randrange(30))
            message.format = ''.join(map(chr, letters))
        else:
            message.height, message.width = self._numbers.integers(1, 40, 2).tolist()
            message.encoding = self.random.choice(['rgb8', 'bgra8', 'mono8', '8UC3', 'rgba8'])
            message.step = message.width * self.random.randrange(1, 6)
            message.data = self.random.randbytes(message.step * message.height)
        return _stamped(message, time.time_ns() + self.random.randrange(-(10**9), 10**8))

    def _picture(self, camera):
        """A scene in which something moves, another one for each camera."""
        self._frames[camera] += 1
        picture = np.rot90(self._scene, CAMERAS.index(camera)).copy()
        column = self._frames[camera] % SIDE
        picture[:, column] = 255 - picture[:, column]
        return picture

    def _bad_stamp(self):
        now = time.time_ns()
        second = 10**9
        return self.random.choice(
            [0, now + second, now + 37 * second, now - 3 * second, 12 * second]
        )

    def _spoil_pose(self, message):
        kind = self.random.randrange(4)
        position, turn = message.pose.position, message.pose.orientation
        if kind == 0:
            frames = ('', '/panda_link0', 'world', 'x' * 5000, 'panda_link0 ')
            message.header.frame_id = self.random.choice(frames)
        elif kind == 1:
            number = self.random.choice([*NOT_FINITE, 1e300, 300.0])
            setattr(position, self.random.choice('xyz'), number)
        elif kind == 2:
            setattr(turn, self.random.choice('xyzw'), self.random.choice([*NOT_FINITE, 7.0, 1e300]))
        else:
            turn.x = 0.0

    def _spoil_fingers(self, message):
        kind = self.random.randrange(4)
        if kind == 0:
            message.position = self.random.choice([[], [0.01], [math.nan, 0.0], [0.0, math.inf]])
        elif kind == 1:
            message.position = self.random.choice([[40.0, 40.0], [1e300, 0.04], [-0.04, -0.04]])
        elif kind == 2:
            message.name = self.random.choice([[], ['panda_joint1', 'panda_joint2'], ['', '']])
        else:
            message.name = [f'{name}' * 500 for name in message.name]

    def _spoil_layout(self, message):
        kind = self.random.randrange(6)
        if kind == 0:
            message.encoding = self.random.choice(
                ['yuv422', 'mono16', '16UC1', '32FC1', 'bayer_rggb8', 'nv21', '', 'RGB8', 'rgb8 ']
                + ['rgb16', '8UC2', '8UC3', 'x' * 3000, 'jpeg', '\u00e9']
            )
        elif kind == 1:
            message.step = self.random.choice([0, 1, 3 * SIDE - 1, 2**32 - 1, SIDE])
        elif kind == 2:
            sizes = ((0, 0), (0, SIDE), (SIDE, 0), (2**32 - 1, 1), (16384, 16384))
            message.height, message.width = self.random.choice(sizes)
        elif kind == 3:
            message.data = bytes(message.data)[: self.random.randrange(len(message.data))]
        elif kind == 4:
            message.data = bytes(message.data) + bytes(self.random.randrange(1, 1000))
        else:
            message.height = self.random.choice([1, SIDE // 2, SIDE - 1, SIDE + 1, 4096])

    def _bad_file(self):
        """A file that is no whole JPEG or PNG of a size that a camera has."""
        jpeg, png = self._jpeg, self._png
        kind = self.random.randrange(8)
        if kind == 0:
            return self.random.randbytes(self.random.randrange(2000))
        if kind == 1:
            return jpeg[: self.random.randrange(len(jpeg) - 2)]
        if kind == 2:
            return png[: self.random.randrange(len(png) - 12)]
        if kind == 3:
            return b'\xff\xd8\xff' + self.random.randbytes(self.random.randrange(2000))
        if kind == 4:
            side = self.random.choice([0, 5000, 60000, 2**31 - 1])
            return png_file(side, side or 7, zlib.compress(bytes(1000)))
        if kind == 5:
            return png[:8] + self.random.randbytes(self.random.randrange(500))
        if kind == 6:  # a chunk that says it is longer than the file
            length = self.random.choice([10**6, 10**9, 2**31 - 1, 2**32 - 16])
            return png[:33] + struct.pack('>I', length) + png[37:]
        at = self.random.randrange(60, len(png) - 20)  # pixels whose checksum is wrong then
        return png[:at] + bytes([png[at] ^ 1 << self.random.randrange(8)]) + png[at + 1 :]

    def _changed_bytes(self, data, most=30, first=None):
        data = bytearray(data)
        for _ in range(self.random.choice([1, 3, most])):
            data[self.random.randrange(len(data[:first]))] = self.random.randrange(256)
        return bytes(data)

    def _wild_bytes(self, wire):
        pick = self.random.random()
        if pick < 0.7:  # in the header and the lengths, where changes hurt
            return self._changed_bytes(wire, 64, 400)
        if pick < 0.85:
            return bytes(wire[: self.random.randrange(4, len(wire))])
        return b'\x00\x01\x00\x00' + self.random.randbytes(self.random.randrange(300))


def png_file(width, height, body):
    """A PNG of RGB pixels with ``body`` as its compressed data, whatever is in it."""

    def chunk(kind, data):
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = chunk(b'IHDR', header), chunk(b'IDAT', body), chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def message_types(compressed):
    """Message type of each input."""
    image = CompressedImage if compressed else Image
    return {
        **dict.fromkeys(CAMERAS, image),
        'ee_pose': PoseStamped,
        'gripper_state': JointState,
        'instruction': String,
    }


def topic(source, compressed):
    """Topic of an input, relative."""
    if source not in CAMERAS:
        return source
    return f'{source}/image' + ('/compressed' if compressed else '')


def _unit(vector):
    return (np.array(vector) / np.linalg.norm(vector)).tolist()


def _stamped(message, stamp=None):
    stamp = time.time_ns() if stamp is None else stamp
    message.header.stamp.sec = stamp // 10**9
    message.header.stamp.nanosec = stamp % 10**9
    return message
