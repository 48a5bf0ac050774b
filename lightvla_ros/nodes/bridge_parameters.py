"""The parameters of the LIBERO bridge; a change at run time takes effect with the next episode."""

from __future__ import annotations

from lightvla_ros.contract.libero import INIT_STATES, MAX_STEPS, TASKS
from lightvla_ros.nodes.parameters import Parameter, ParameterTable
from lightvla_ros.sim.rendering import RENDER_SETTINGS

BRIDGE_PARAMETERS = ParameterTable(
    [
        Parameter(
            'suite',
            'libero_object',
            'Suite of the next episode.',
            choices=tuple(MAX_STEPS),
            read_only=False,
        ),
        Parameter(
            'task', 0, 'Task of the next episode.', 0, max(TASKS.values()) - 1, read_only=False
        ),
        Parameter(
            'init_state',
            0,
            'Saved initial state of the next episode.',
            0,
            INIT_STATES - 1,
            read_only=False,
        ),
        Parameter(
            'seed', 0, "Seed of the fixtures' poses of the next episode.", 0, 2**31, read_only=False
        ),
        Parameter(
            'camera_size', 256, 'Height and width of the images [px].', 16, 1024, read_only=False
        ),
        Parameter(
            'render',
            'cheap',
            '`cheap` renders 2 to 3 times faster and looks slightly different; use the setting '
            'that the policy was trained with.',
            choices=RENDER_SETTINGS,
            read_only=False,
        ),
        Parameter(
            'mode',
            'lockstep',
            '`lockstep` waits for each chunk and repeats exactly; `wall_clock` runs on as a robot '
            'does.',
            choices=('lockstep', 'wall_clock'),
            read_only=False,
        ),
        Parameter(
            'real_time_factor',
            1.0,
            'Speed of the clock in `wall_clock`.',
            0.01,
            100.0,
            read_only=False,
        ),
        Parameter(
            'camera_every',
            8,
            'Steps from one observation to the next in `wall_clock`; in `lockstep` an observation '
            'is sent for each chunk, and frames for viewers this often between.',
            1,
            64,
            read_only=False,
        ),
        Parameter('base_frame', 'world', "Frame of `ee_pose`, of LIBERO's world."),
        Parameter(
            'resend_period',
            1.0,
            'In `lockstep`, time after which an unanswered observation is sent again [s].',
            0.1,
            60.0,
            read_only=False,
        ),
        Parameter(
            'chunk_timeout',
            60.0,
            'In `lockstep`, time without a chunk after which the episode ends with an error [s].',
            0.5,
            3600.0,
            read_only=False,
        ),
        Parameter('recordings', '', 'Folder for the executed actions; empty: none are kept.'),
        Parameter('autostart', True, 'Start an episode when the node starts.'),
    ]
)
