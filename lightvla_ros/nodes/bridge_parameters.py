"""The parameters of the LIBERO bridge; a change at run time takes effect with the next episode."""

from __future__ import annotations

from lightvla_ros.contract.suites import INIT_STATES, SUITES
from lightvla_ros.nodes.parameters import Parameter, ParameterTable
from lightvla_ros.sim.episode import CONTROLLERS, DRAWN_LAYOUT
from lightvla_ros.sim.rendering import RENDER_SETTINGS

BRIDGE_PARAMETERS = ParameterTable(
    [
        Parameter(
            'suite',
            'libero_object',
            'Suite of the next episode.',
            choices=tuple(SUITES),
            read_only=False,
        ),
        Parameter(
            'task',
            0,
            'Task of the next episode.',
            0,
            max(suite.tasks for suite in SUITES.values()) - 1,
            read_only=False,
        ),
        Parameter(
            'init_state',
            0,
            'Saved initial state of the next episode; -1: the layout that `seed` draws.',
            DRAWN_LAYOUT,
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
            '`lockstep` waits for each chunk and is exactly repeatable; `wall_clock` does not '
            'wait, like a real robot.',
            choices=('lockstep', 'wall_clock'),
            read_only=False,
        ),
        Parameter(
            'controller',
            'osc',
            "What moves the arm: `osc`, LIBERO's own controller, which executes the chunks; or one "
            'that takes the commands of a chunk executor: `crisp`, the law of crisp_controllers, '
            'or `servo`, the rules of MoveIt Servo.',
            choices=CONTROLLERS,
        ),
        Parameter(
            'observation_delay',
            0.0,
            'Time from an observation to its publication, with a controller other than `osc` in '
            '`wall_clock` [s].',
            0.0,
            2.0,
            read_only=False,
        ),
        Parameter(
            'observation_jitter',
            0.0,
            'Longest time that is added to `observation_delay`, drawn evenly for each observation '
            '[s].',
            0.0,
            1.0,
            read_only=False,
        ),
        Parameter(
            'observation_loss',
            0.0,
            'Share of the observations that are lost where `observation_delay` has an effect, '
            'drawn for each.',
            0.0,
            1.0,
            read_only=False,
        ),
        Parameter(
            'real_time_factor',
            1.0,
            'Speed of simulated time relative to real time in `wall_clock`.',
            0.01,
            100.0,
            read_only=False,
        ),
        Parameter(
            'camera_every',
            8,
            'Steps between two observations in `wall_clock`. In `lockstep` each chunk gets one '
            'observation, and more frames for viewers are sent at this interval.',
            1,
            64,
            read_only=False,
        ),
        Parameter('base_frame', 'world', "Name of LIBERO's world frame, the frame of `ee_pose`."),
        Parameter(
            'resend_period',
            1.0,
            'Time after which an unanswered observation is sent again in `lockstep` [s].',
            0.1,
            60.0,
            read_only=False,
        ),
        Parameter(
            'chunk_timeout',
            60.0,
            'Time without a chunk after which the episode ends with an error in `lockstep` [s].',
            0.5,
            3600.0,
            read_only=False,
        ),
        Parameter('recordings', '', 'Folder for the executed actions; empty: they are not saved.'),
        Parameter('autostart', True, 'Start an episode when the node starts.'),
    ]
)
