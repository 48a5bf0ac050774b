"""The parameters of the policy node."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.engine import ENGINES
from lightvla_ros.nodes.conversions import FINGER_JOINTS, nanoseconds
from lightvla_ros.nodes.launch_arguments import parameter
from lightvla_ros.nodes.parameters import Parameter, ParameterTable
from lightvla_ros.policy.prompt import STOP_WORDS
from lightvla_ros.runtime.inbox import Freshness

MAX_NAME_BYTES = 255  # the bound of child_frame_id in ActionChunk.msg


def _finger_fault(names: list[str]) -> str | None:
    if not names or len(names) % 2 or len(set(names)) < len(names) or not all(names):
        return f'finger_joints is {list(names)}; names in pairs are needed, each once'
    return None


def _name_fault(parameter: str, name: str) -> str | None:
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        return f'{parameter} has {size} bytes in UTF-8; at most {MAX_NAME_BYTES} are taken'
    return None


POLICY_PARAMETERS = ParameterTable(
    [
        Parameter('policy', '', 'Folder of the policy (the one with `manifest.json`).'),
        Parameter('engine', 'onnxruntime', 'What runs the graphs.', choices=ENGINES),
        Parameter(
            'provider', 'CPUExecutionProvider', 'Execution provider of `onnxruntime`, by name.'
        ),
        Parameter(
            'precision',
            'fp32',
            'Numbers that `openvino` computes in; the other engines follow the export.',
            choices=('fp32', 'bf16'),
        ),
        Parameter('threads', 1, 'Of engine and preprocessing; leave cores for the robot.', 1, 64),
        Parameter('autostart', True, 'Configure and activate when the node starts.'),
        Parameter(
            'base_frame',
            'panda_link0',
            'Frame of `ee_pose` and of the deltas: the non-moving base of the robot.',
            check=partial(_name_fault, 'base_frame'),
        ),
        Parameter(
            'ee_frame',
            'panda_hand_tcp',
            'Frame that the deltas move.',
            check=partial(_name_fault, 'ee_frame'),
        ),
        Parameter(
            'finger_joints',
            list(FINGER_JOINTS),
            'Joints of `gripper_state` that are the fingers: names in pairs, of which one comes.',
            check=_finger_fault,
        ),
        Parameter(
            'image_transport',
            'raw',
            'Subscribe to `<camera>/image` or to `<camera>/image/compressed`.',
            choices=('raw', 'compressed'),
        ),
        Parameter(
            'allow_several_publishers',
            False,
            'Whether an input may have more than one publisher; if not, the robot holds still.',
            read_only=False,
        ),
        Parameter(
            'encoding_8uc3',
            'refuse',
            'Order of the colours in raw images whose encoding, `8UC3`, does not say it.',
            choices=('refuse', 'rgb8', 'bgr8'),
            read_only=False,
        ),
        Parameter(
            'max_frozen',
            1.0,
            'A camera whose pictures are byte for byte the same for this long holds [s]; 0: never. '
            'A real camera has noise, a simulated one none.',
            0.0,
            60.0,
            read_only=False,
        ),
        Parameter(
            'min_contrast',
            0.5,
            'Least standard deviation of a picture [grey levels of 255]; 0: any. A dark room with '
            'its noise has more, a black, white or covered view less.',
            0.0,
            50.0,
            read_only=False,
        ),
        Parameter(
            'allow_equal_cameras',
            False,
            'Act on pictures of two cameras that are the same, pixel by pixel.',
            read_only=False,
        ),
        Parameter(
            'max_image_age',
            0.5,
            'Oldest image or state, by stamp [s].',
            0.01,
            10.0,
            read_only=False,
        ),
        Parameter(
            'max_silence',
            0.5,
            'Longest time on a steady clock without a new image or state [s].',
            0.01,
            600.0,
            read_only=False,
        ),
        Parameter(
            'max_camera_skew',
            0.03,
            'Largest distance between the stamps of the images of one observation [s].',
            0.0,
            1.0,
            read_only=False,
        ),
        Parameter(
            'max_state_skew',
            0.1,
            'Largest distance between the stamps of state and images [s].',
            0.0,
            1.0,
            read_only=False,
        ),
        # Measured: OpenVLA-OFT's data of LIBERO-Spatial go up to 0.56 beyond their own 1 % and 99 %
        # (turns of the hand); of 2187 states of the bundled policy one lies outside, by 0.00004.
        Parameter(
            'max_state_excess',
            1.0,
            'How far a number of the state may lie outside of the range that the policy was '
            'trained in, as a share of that range.',
            0.0,
            1e6,
            read_only=False,
        ),
        Parameter(
            'max_inference_time',
            2.0,
            'An inference that takes longer is a fault [s].',
            0.01,
            60.0,
            read_only=False,
        ),
        Parameter(
            'max_failures',
            3,
            'This many failed inferences in a row are a fault.',
            1,
            100,
            read_only=False,
        ),
        Parameter(
            'max_step_translation',
            0.087,
            'Longest step [m]; longer ones are shortened, far longer ones refused. '
            "The default is the longest that LIBERO's controller takes.",
            0.0001,
            0.2,
            read_only=False,
        ),
        Parameter(
            'max_step_rotation',
            0.87,
            'Longest rotation of a step [rad]; longer ones are shortened.',
            0.0001,
            1.0,
            read_only=False,
        ),
        Parameter(
            'replan_steps',
            0,
            'Steps after which the next chunk is due; 0 means a whole chunk, as published.',
            0,
            64,
            read_only=False,
        ),
        Parameter(
            'anchor',
            'publish',
            'When step 0 starts: at publishing, or at the observation; then the steps already '
            'past are cut.',
            choices=('publish', 'observation'),
        ),
        Parameter(
            'start_delay',
            0.0,
            'Added to the time of publishing when that is the anchor [s].',
            0.0,
            1.0,
            read_only=False,
        ),
        Parameter(
            'start_window',
            0.2,
            'A chunk must be started within this time of its stamp [s].',
            0.01,
            2.0,
            read_only=False,
        ),
        Parameter(
            'min_instruction_interval',
            0.1,
            'Instructions that come faster wait; the newest wins [s].',
            0.0,
            10.0,
            read_only=False,
        ),
        Parameter(
            'stop_words',
            list(STOP_WORDS),
            'An instruction that holds one of these words or phrases pauses at once, as `~/pause` '
            'does; only `~/pause` with false ends that.',
            read_only=False,
        ),
        Parameter(
            'instruction_timeout',
            60.0,
            'After this time without a chunk the instruction must be given again; 0: never [s].',
            0.0,
            86400.0,
            read_only=False,
        ),
    ]
)


def engine_options(values: SimpleNamespace) -> dict[str, Any]:
    """Return what the chosen engine is loaded with."""
    of_one = {'onnxruntime': ('provider',), 'openvino': ('precision',), 'tensorrt': ()}
    names = ('threads', *of_one[values.engine])
    return {name: getattr(values, name) for name in names}


def misfit(values: SimpleNamespace, manifest: Manifest | None) -> str | None:
    """Say in one line which values do not fit each other or the policy; None if all do.

    :param manifest: Of the policy that is loaded; None before.
    """
    if values.start_delay and values.anchor == 'observation':
        return f'start_delay is {values.start_delay:g}, but anchor: observation does not use it'
    if manifest is not None and values.replan_steps > manifest.action.chunk_length:
        return (
            f'{parameter("replan_steps")} is {values.replan_steps}, but a chunk of '
            f'{manifest.name} has {manifest.action.chunk_length} steps'
        )
    return None


def freshness_from(values: SimpleNamespace) -> Freshness:
    """Convert the parameters in seconds to the inbox's limits in nanoseconds."""
    return Freshness(
        image_age=nanoseconds(values.max_image_age),
        silence=nanoseconds(values.max_silence),
        camera_skew=nanoseconds(values.max_camera_skew),
        state_skew=nanoseconds(values.max_state_skew),
    )
