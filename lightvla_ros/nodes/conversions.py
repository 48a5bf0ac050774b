"""Between messages and our own types. Times are integers in nanoseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped, Quaternion, Transform, Vector3
from sensor_msgs.msg import CompressedImage, Image, JointState

from lightvla_ros.errors import LightVLAError, quoted
from lightvla_ros.msg import ActionChunk, InferenceStats
from lightvla_ros.policy.actions import Chunk
from lightvla_ros.policy.compressed_images import decode_compressed
from lightvla_ros.policy.images import check_layout, decode_image

UNIT_TOLERANCE = 1e-3
# In pairs: of franka_ros and franka_ros2 (FER; the LIBERO bridge takes these, too) and of the FR3
FINGER_JOINTS = (
    'panda_finger_joint1',
    'panda_finger_joint2',
    'fr3_finger_joint1',
    'fr3_finger_joint2',
)
FINGER_REACH = 0.04  # m, how far a finger of a Panda's hand goes from the middle
FINGER_TOLERANCE = 0.005  # m; LIBERO's fingers report -0.0008 to 0.0419
MOST_NAMES = 12  # of a stranger's message that are quoted
MAX_STEPS = 64  # the bound in ActionChunk.msg


class MessageError(LightVLAError, ValueError):
    """A message that must not be acted on; one line says why."""


class InputError(LightVLAError):
    """An input that must not be acted on; the text is one line.

    :param source: The camera or topic it came from.
    :param code: One of ``reasons.REASONS``.
    """

    def __init__(self, source: str, code: str, text: str) -> None:
        super().__init__(text)
        self.source = source
        self.code = code


def time_message(nanoseconds: int) -> Time:
    """Nanoseconds -> Time."""
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def duration_message(nanoseconds: int) -> Duration:
    """Nanoseconds, of either sign -> Duration."""
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def stamp_ns(message: Time | Duration) -> int:
    """Time or Duration -> nanoseconds."""
    return message.sec * 10**9 + message.nanosec


def chunk_to_message(
    chunk: Chunk,
    *,
    stamp_ns: int,
    frame_id: str,
    child_frame_id: str,
    reference: int,
    valid_until_ns: int,
    sequence: int,
    session_id: str,
    instruction: str,
    clamped: bool,
    reason: str,
    stats: InferenceStats,
) -> ActionChunk:
    """Fill an ActionChunk; see the comments of ``ActionChunk.msg`` for the fields."""
    message = ActionChunk(
        schema_version=ActionChunk.SCHEMA_VERSION,
        reference=reference,
        child_frame_id=child_frame_id,
        period=duration_message(round(chunk.period * 1e9)),
        valid_until=time_message(valid_until_ns),
        sequence=sequence,
        session_id=session_id,
        instruction=instruction,
        first_step=chunk.first_step,
        clamped=clamped,
        reason=reason,
        stats=stats,
    )
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = frame_id
    message.steps = [
        Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        for (x, y, z), (qx, qy, qz, qw) in zip(
            chunk.translations.tolist(), chunk.rotations.tolist(), strict=True
        )
    ]
    message.gripper = chunk.gripper.tolist()
    return message


def chunk_from_message(message: ActionChunk) -> Chunk:
    """Read an ActionChunk, checking everything that Jazzy's generated setters do not.

    :raises MessageError: When the chunk must not be executed.
    """
    if message.schema_version != ActionChunk.SCHEMA_VERSION:
        raise MessageError(
            f'schema version {message.schema_version}, not {ActionChunk.SCHEMA_VERSION}'
        )
    period = stamp_ns(message.period)
    if period <= 0:
        raise MessageError(f'period of {period} ns; it must be above 0')
    steps = [
        (t.translation.x, t.translation.y, t.translation.z)
        + (t.rotation.x, t.rotation.y, t.rotation.z, t.rotation.w)
        for t in message.steps
    ]
    numbers = np.array(steps, dtype=np.float64).reshape(-1, 7)
    gripper = np.array(message.gripper, dtype=np.float64)
    if len(numbers) > MAX_STEPS:
        raise MessageError(f'{len(numbers)} steps; at most {MAX_STEPS} are allowed')
    if len(gripper) != len(numbers):
        raise MessageError(f'{len(numbers)} steps but {len(gripper)} gripper openings')
    if not (np.isfinite(numbers).all() and np.isfinite(gripper).all()):
        raise MessageError('a step is NaN or infinite')
    if ((gripper < 0) | (gripper > 1)).any():
        raise MessageError('a gripper opening is outside 0 to 1')
    norms = np.linalg.norm(numbers[:, 3:], axis=1)
    if (np.abs(norms - 1) > UNIT_TOLERANCE).any():
        raise MessageError('a rotation is no unit quaternion')
    return Chunk(
        translations=numbers[:, :3],
        rotations=numbers[:, 3:] / norms[:, None],
        gripper=gripper,
        period=period * 1e-9,
        first_step=message.first_step,
    )


def image_to_message(image: np.ndarray, stamp: int, frame_id: str, encoding: str = 'rgb8') -> Image:
    """Contiguous uint8 [H, W, 3] (rgb8) or [H, W] (mono8) -> Image."""
    message = Image(
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        step=image.strides[0],
    )
    message.header.stamp = time_message(stamp)
    message.header.frame_id = frame_id
    message.data = image.tobytes()  # bytes take 0.1 ms; a list or an ndarray takes 8 to 25
    return message


def check_image_message(message: Image | CompressedImage) -> None:
    """Check an image's header against its data; cheap enough for a callback.

    :raises ImageError: When it cannot be an image that is taken here.
    """
    if isinstance(message, Image):
        check_layout(
            message.height, message.width, message.encoding, message.step, len(message.data)
        )


def image_from_message(message: Image | CompressedImage) -> np.ndarray:
    """Decode an image message -> RGB uint8 [H, W, 3].

    :raises ImageError: When it cannot be decoded.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, message.format)
    return decode_image(message.data, message.height, message.width, message.encoding, message.step)


def pose_to_message(
    position: np.ndarray, quaternion: np.ndarray, stamp: int, frame_id: str
) -> PoseStamped:
    """Position [3] in metres and quaternion x y z w [4] -> PoseStamped."""
    message = PoseStamped()
    message.header.stamp = time_message(stamp)
    message.header.frame_id = frame_id
    pose = message.pose
    pose.position.x, pose.position.y, pose.position.z = position.tolist()
    orientation = pose.orientation
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion.tolist()
    return message


def pose_from_message(message: PoseStamped) -> tuple[np.ndarray, np.ndarray]:
    """PoseStamped -> position [3] in metres, quaternion x y z w [4].

    :raises MessageError: When a number is not finite or the quaternion is not a unit one.
    """
    p, q = message.pose.position, message.pose.orientation
    position = np.array([p.x, p.y, p.z])
    quaternion = np.array([q.x, q.y, q.z, q.w])
    if not np.isfinite(position).all():
        raise MessageError('the position is NaN or infinite')
    if not abs(np.linalg.norm(quaternion) - 1) <= UNIT_TOLERANCE:
        raise MessageError(f'the orientation {quaternion.tolist()} is no unit quaternion')
    return position, quaternion


def gripper_to_message(qpos: np.ndarray, stamp: int) -> JointState:
    """Joint positions [2] in robosuite's signs -> a Panda hand's JointState, both positive.

    The real hand's driver reports how far each finger is from the middle; robosuite's second
    finger counts the other way.
    """
    message = JointState(
        name=list(FINGER_JOINTS[:2]),
        position=[float(qpos[0]), -float(qpos[1])],
    )
    message.header.stamp = time_message(stamp)
    return message


def gripper_from_message(
    message: JointState, finger_joints: Sequence[str] = FINGER_JOINTS
) -> np.ndarray:
    """Read the fingers of a JointState, by name -> joint positions [2] in robosuite's signs.

    Other joints may stand in the message, in any order.

    :param finger_joints: Names in pairs; the message must hold exactly one of the pairs, once.
    :raises MessageError: When it does not, or when a finger is not where one can be.
    """
    if len(message.name) != len(message.position):
        raise MessageError(
            f'{len(message.name)} joint names for {len(message.position)} positions; a joint is '
            'taken by its name'
        )
    counts = Counter(message.name)
    pairs = list(zip(finger_joints[::2], finger_joints[1::2], strict=True))
    there = [pair for pair in pairs if counts[pair[0]] and counts[pair[1]]]
    if len(there) != 1 or any(counts[name] > 1 for name in there[0]):
        came = quoted(', '.join(message.name[:MOST_NAMES]))
        raise MessageError(
            f'it must name one pair of finger_joints, once, not {came}; the parameter has '
            f'{", ".join(finger_joints)}'
        )
    found = [message.position[list(message.name).index(name)] for name in there[0]]
    for name, position in zip(there[0], found, strict=True):
        if not -FINGER_TOLERANCE <= position <= FINGER_REACH + FINGER_TOLERANCE:  # or NaN
            raise MessageError(
                f'{name} is {position:g} m; a finger is 0 to {FINGER_REACH} m from the middle'
                f'{_finger_lead(position)}'
            )
    return np.array([found[0], -found[1]])


def _finger_lead(position: float) -> str:
    """Say what a finger's position looks like that cannot be one; nothing where it is unclear."""
    reach = FINGER_REACH + FINGER_TOLERANCE
    if 1 <= position <= 1e3 * reach:
        return ' (millimetres?)'
    if -reach <= position < 0:
        return ' (both fingers count positive, as a real hand reports them)'
    if reach < position <= 2 * reach:
        return ' (the width between both? each finger has half of it)'
    return ''
