"""The parameters of the policy node."""

from __future__ import annotations

import ipaddress
from functools import partial
from types import SimpleNamespace
from typing import Any

from lightvla_ros.contract import Manifest
from lightvla_ros.engine import ENGINES, options_of
from lightvla_ros.nodes.conversions import FINGER_JOINTS, FINGER_REACH, nanoseconds
from lightvla_ros.nodes.launch_arguments import parameter
from lightvla_ros.nodes.parameters import Parameter, ParameterTable
from lightvla_ros.nodes.recorder import RECORDING_PARAMETERS
from lightvla_ros.policy.prompt import STOP_WORDS
from lightvla_ros.runtime.inbox import Freshness

MAX_NAME_BYTES = 255  # the bound of child_frame_id in ActionChunk.msg


def _finger_fault(names: list[str]) -> str | None:
    if not names or len(names) % 2 or len(set(names)) < len(names) or not all(names):
        return f'finger_joints is {list(names)}; it must hold pairs of names, each name once'
    return None


def _address_fault(text: str) -> str | None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return f'view_address is {text!r}; it must be an IP address, such as 127.0.0.1 or 0.0.0.0'
    return None


def _name_fault(parameter: str, name: str) -> str | None:
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        return f'{parameter} has {size} bytes in UTF-8; at most {MAX_NAME_BYTES} are allowed'
    return None


POLICY_PARAMETERS = ParameterTable(
    [
        Parameter('policy', '', 'Folder of the policy (the one with `manifest.json`).'),
        Parameter('engine', 'onnxruntime', 'Engine that runs the policy.', choices=ENGINES),
        Parameter(
            'provider', 'CPUExecutionProvider', 'Execution provider of `onnxruntime`, by name.'
        ),
        Parameter(
            'precision',
            '',
            'Precision in which `openvino` or `torch-cuda` computes; empty: `fp32` for `openvino`, '
            'and the fastest that has passed `lightvla verify` for `torch-cuda`. Other engines use '
            'that of the export.',
            choices=('', 'fp32', 'fp16', 'bf16', 'fp8'),
        ),
        Parameter(
            'compile',
            True,
            'Whether `torch-cuda` compiles the blocks of the model, once per machine.',
        ),
        Parameter(
            'threads', 1, 'Threads of engine and preprocessing; leave cores for the robot.', 1, 64
        ),
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
            'Finger joints in `gripper_state`: pairs of names; a message holds one of the pairs.',
            check=_finger_fault,
        ),
        Parameter(
            'finger_reach',
            FINGER_REACH,
            'Largest distance of a finger from the middle [m]; positions beyond it are refused.',
            0.001,
            0.2,
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
            'Order of the colours in raw images with the encoding `8UC3`, which does not say it.',
            choices=('refuse', 'rgb8', 'bgr8'),
            read_only=False,
        ),
        Parameter(
            'max_frozen',
            1.0,
            'The robot holds when a camera sends identical pictures for this long [s]; 0: never. '
            'Set 0 for a simulated camera without noise.',
            0.0,
            60.0,
            read_only=False,
        ),
        Parameter(
            'min_contrast',
            0.5,
            'Least standard deviation of a picture [grey levels of 255]; 0: any. A dark but noisy '
            'picture has more; a black, white or covered view has less.',
            0.0,
            50.0,
            read_only=False,
        ),
        Parameter(
            'allow_equal_cameras',
            False,
            'Whether the policy may act when two cameras send identical pictures.',
            read_only=False,
        ),
        Parameter(
            'max_image_age',
            0.5,
            'Largest age of an image or state, by its stamp [s].',
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
        # Measured: OpenVLA-OFT's LIBERO-Spatial data go up to 0.56 beyond their own 1 % and 99 %
        # (turns of the hand); of 2187 states of the bundled policy one is outside, by 0.00004.
        Parameter(
            'max_state_excess',
            1.0,
            'How far a number of the state may be outside the range of the training data, as a '
            'fraction of that range.',
            0.0,
            1e6,
            read_only=False,
        ),
        Parameter(
            'max_unfamiliarity',
            0.0,
            "The robot holds while an observation's score of the alarm is above this; 0: never. 1 "
            'is as unusual as the most unusual 1 % of the recorded observations.',
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
            'Longest step [m]; longer steps are shortened, far longer ones are refused. '
            "The default is the longest step that LIBERO's controller accepts.",
            0.0001,
            0.2,
            read_only=False,
        ),
        Parameter(
            'max_step_rotation',
            0.87,
            'Largest rotation of a step [rad]; larger ones are reduced.',
            0.0001,
            1.0,
            read_only=False,
        ),
        Parameter(
            'replan_steps',
            0,
            'Number of steps after which the next chunk is due; 0: all steps of the chunk.',
            0,
            64,
            read_only=False,
        ),
        Parameter(
            'anchor',
            'publish',
            'When step 0 starts: when the chunk is published, or at the time of the observation; '
            'with `observation`, steps that are already past are removed.',
            choices=('publish', 'observation'),
        ),
        Parameter(
            'start_delay',
            0.0,
            'Delay from publishing to the start of step 0, with the anchor `publish` [s].',
            0.0,
            1.0,
            read_only=False,
        ),
        Parameter(
            'roll_state',
            False,
            'Whether the policy gets the pose of the time when its chunk will start: the measured '
            'one, moved by the steps that were published before and act until then. When that is, '
            'is the median of the last 9 delays from an observation to the start of its chunk.',
            read_only=False,
        ),
        Parameter(
            'execution_speed',
            1.0,
            "The executor's `speed`: that of execution, relative to the chunks' own. `roll_state` "
            'counts with it.',
            0.05,
            1.0,
        ),
        Parameter(
            'start_window',
            0.2,
            'A chunk must be started at most this long after its stamp [s].',
            0.01,
            2.0,
            read_only=False,
        ),
        Parameter(
            'min_instruction_interval',
            0.1,
            'Shortest time between two changes of the instruction; of those that wait, the '
            'newest is used [s].',
            0.0,
            10.0,
            read_only=False,
        ),
        Parameter(
            'stop_words',
            list(STOP_WORDS),
            'An instruction that contains one of these words or phrases pauses the node at once, '
            'like `~/pause`; only `~/pause` with false resumes.',
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
        Parameter('view', False, 'Whether the node serves a page that shows it at work.'),
        Parameter(
            'view_address',
            '127.0.0.1',
            'IP address that the page is served at. It has no password: with another address than '
            'the default, everybody in that network can see the cameras and give instructions.',
            check=_address_fault,
        ),
        Parameter(
            'view_port', 8642, 'TCP port that the page is served at; 0: any free one.', 0, 65535
        ),
        Parameter(
            'view_calibration',
            '',
            'YAML file with the calibration of cameras, in whose pictures the page draws the last '
            'chunk; empty: it is not drawn.',
        ),
        *RECORDING_PARAMETERS,
    ]
)


def engine_options(values: SimpleNamespace) -> dict[str, Any]:
    """Return the options that the chosen engine is loaded with.

    :raises EngineError: When the engine has no choice of precision.
    """
    own = options_of(values.engine, values.provider, values.precision or None, values.compile)
    return {'threads': values.threads, **own}


def misfit(values: SimpleNamespace, manifest: Manifest | None) -> str | None:
    """Return one line that names values that do not fit each other or the policy; None if all fit.

    :param manifest: The loaded policy's manifest; None while no policy is loaded.
    """
    if values.start_delay and values.anchor == 'observation':
        return f'start_delay is {values.start_delay:g}, but anchor observation ignores it'
    if values.roll_state and values.anchor == 'observation':
        return 'roll_state is true, but with anchor observation step 0 starts at the observation'
    if manifest is not None and values.roll_state and not takes_pose(manifest):
        return f'roll_state is true, but {manifest.name} takes no pose of the end effector'
    if manifest is not None and values.max_unfamiliarity and manifest.familiarity is None:
        return (
            f'max_unfamiliarity is {values.max_unfamiliarity:g}, but the alarm of {manifest.name} '
            'is not calibrated; run lightvla alarm calibrate'
        )
    if manifest is not None and values.replan_steps > manifest.action.chunk_length:
        return (
            f'{parameter("replan_steps")} is {values.replan_steps}, but a chunk of '
            f'{manifest.name} has {manifest.action.chunk_length} steps'
        )
    return None


def takes_pose(manifest: Manifest) -> bool:
    """Return whether the policy's state has the position or orientation of the end effector."""
    layout = set(manifest.proprio.layout) if manifest.proprio else set()
    return bool(layout & {'ee_position', 'ee_axis_angle'})


def freshness_from(values: SimpleNamespace) -> Freshness:
    """Convert the parameters in seconds to the inbox's limits in nanoseconds."""
    return Freshness(
        image_age=nanoseconds(values.max_image_age),
        silence=nanoseconds(values.max_silence),
        camera_skew=nanoseconds(values.max_camera_skew),
        state_skew=nanoseconds(values.max_state_skew),
    )
