"""Launches the closed loop in simulation: the policy node and the LIBERO bridge."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('lightvla_ros')
SCENES = {
    'libero_object': 'libero_floor.yaml',
    'libero_spatial': 'libero_table.yaml',
    'libero_goal': 'libero_table.yaml',
}
SUITES = ['libero_spatial', 'libero_object', 'libero_goal', 'libero_10', 'libero_90']


def argument(name, default, description, choices=None):
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=choices
    )


def calibration(suite):
    """Return the file that says where the camera stands; the other suites have several scenes."""
    folder = PathJoinSubstitution([SHARE, 'config', 'calibration'])
    return PythonExpression(
        ["(lambda name: name and '", folder, f"/' + name)({SCENES}.get('", suite, "', ''))"]
    )


def generate_launch_description():
    """Describe both nodes; launch ends when the simulator ends."""
    value = LaunchConfiguration
    arguments = [
        argument(
            'checkpoint',
            PathJoinSubstitution([SHARE, 'models', 'libero_tiny']),
            'Policy folder (it holds manifest.json); default: the policy of this package.',
        ),
        argument('namespace', '', 'Namespace of both nodes.'),
        argument(
            'params_file',
            PathJoinSubstitution([SHARE, 'config', 'libero.param.yaml']),
            'Parameter file; launch arguments override it.',
        ),
        argument('suite', 'libero_object', 'LIBERO suite.', SUITES),
        argument('task', '0', 'Task of the suite.'),
        argument('init_state', '0', 'Saved initial state of the task.'),
        argument('seed', '0', "Seed of the fixtures' poses."),
        argument(
            'mode',
            'lockstep',
            'lockstep waits for each chunk; wall_clock does not wait.',
            ['lockstep', 'wall_clock'],
        ),
        argument('render', 'cheap', 'How the cameras are rendered.', ['cheap', 'standard']),
        argument(
            'view',
            'false',
            'Serve a page that shows the policy node at work, on this computer at port 8642.',
            ['true', 'false'],
        ),
        argument('log_level', 'info', 'Log level.', ['debug', 'info', 'warn', 'error']),
    ]
    log_level = ['--ros-args', '--log-level', value('log_level')]
    policy = Node(
        package='lightvla_ros',
        executable='lightvla_node',
        name='lightvla',
        namespace=value('namespace'),
        output='screen',
        parameters=[
            value('params_file'),
            {
                'policy': value('checkpoint'),
                'view': value('view'),
                'view_calibration': ParameterValue(calibration(value('suite')), value_type=str),
            },
        ],
        arguments=log_level,
    )
    bridge = Node(
        package='lightvla_ros',
        executable='libero_bridge_node',
        name='libero_bridge',
        namespace=value('namespace'),
        output='screen',
        parameters=[
            {
                'suite': value('suite'),
                'task': ParameterValue(value('task'), value_type=int),
                'init_state': ParameterValue(value('init_state'), value_type=int),
                'seed': ParameterValue(value('seed'), value_type=int),
                'mode': value('mode'),
                'render': value('render'),
            },
        ],
        arguments=log_level,
    )
    end_with_the_simulator = RegisterEventHandler(
        OnProcessExit(
            target_action=bridge,
            on_exit=[EmitEvent(event=Shutdown(reason='the simulator has ended'))],
        )
    )
    return LaunchDescription([*arguments, policy, bridge, end_with_the_simulator])
