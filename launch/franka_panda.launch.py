"""Launches the policy node for a Franka Panda, and the chunk executor if a controller is chosen.

Without arguments it starts the policy that comes with the package, and nothing moves: the log says
what the node waits for and which argument or command you need next. ``controller:=crisp`` also
starts the executor, which moves the arm while somebody holds the dead-man (see
docs/how-to/franka.md).
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, RegisterEventHandler
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare('lightvla_ros')


def argument(name, default, description, choices=None):
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=choices
    )


def ros_arguments(name):
    """Return log level and enclave of a node; without security the enclave does nothing."""
    value = LaunchConfiguration
    return [
        *('--ros-args', '--log-level', value('log_level')),
        *('--enclave', [value('enclaves'), f'/{name}']),
    ]


def end(event, context):
    """End launch when the executor ends: an arm must not begin to move again by itself."""
    reason = f'the chunk executor has ended with exit code {event.returncode}'
    return [LogInfo(msg=reason), EmitEvent(event=Shutdown(reason=reason))]


def end_unless_respawned(event, context):
    """End launch when the node ends, unless it crashed and will be started again."""
    if event.returncode and IfCondition(LaunchConfiguration('respawn')).evaluate(context):
        return []
    reason = f'the policy node has ended with exit code {event.returncode}'
    return [LogInfo(msg=reason), EmitEvent(event=Shutdown(reason=reason))]


def generate_launch_description():
    """Describe the policy node and the executor, with their topics remapped."""
    value = LaunchConfiguration
    arguments = [
        argument(
            'checkpoint',
            PathJoinSubstitution([SHARE, 'models', 'libero_tiny']),
            'Policy folder (it holds manifest.json); default: the policy of this package.',
        ),
        argument('namespace', '', 'Namespace of the node and of its relative topics.'),
        argument(
            'params_file',
            PathJoinSubstitution([SHARE, 'config', 'franka_panda.param.yaml']),
            'Parameter file; launch arguments override it.',
        ),
        argument(
            'engine',
            'onnxruntime',
            'Engine that runs the policy.',
            ['onnxruntime', 'openvino', 'tensorrt', 'torch-cuda'],
        ),
        argument(
            'device',
            'CPUExecutionProvider',
            "ONNX Runtime's execution provider, such as CUDAExecutionProvider.",
        ),
        argument('use_sim_time', 'false', 'Take time from /clock.', ['true', 'false']),
        argument('autostart', 'true', 'Configure and activate at once.', ['true', 'false']),
        argument(
            'image_transport',
            'raw',
            'Subscribe to raw or compressed images.',
            ['raw', 'compressed'],
        ),
        argument(
            'record',
            'false',
            'Record inputs, chunks and status as MCAP (docs/how-to/record-and-replay.md).',
            ['true', 'false'],
        ),
        argument('record_folder', '~/lightvla_recordings', 'Folder of the recordings.'),
        argument('third_person_image', 'third_person/image', 'Topic of the third-person camera.'),
        argument('wrist_image', 'wrist/image', 'Topic of the wrist camera.'),
        argument('ee_pose', 'ee_pose', 'Topic of the end-effector pose, in base_frame.'),
        argument('gripper_state', 'gripper_state', "Topic of the hand's two finger joints."),
        argument('instruction', 'instruction', 'Topic of the instruction.'),
        argument(
            'controller',
            'none',
            'What executes the chunks: none (nothing moves), crisp_controllers, or MoveIt Servo.',
            ['none', 'crisp', 'servo_pose', 'servo_twist'],
        ),
        argument(
            'gripper',
            'none',
            'What moves the hand: nothing, the action gripper_action, or move and grasp.',
            ['none', 'gripper_command', 'franka'],
        ),
        argument('franka_gripper', 'franka_gripper', "Name of the node with the hand's actions."),
        argument('target_pose', 'target_pose', 'Topic on which crisp_controllers takes poses.'),
        argument('servo_node', 'servo_node', 'Name of the node of MoveIt Servo.'),
        argument('enable', 'enable', 'Topic of the dead-man (std_msgs/Bool, 10 Hz or faster).'),
        argument('stop', 'stop', "Topic of the operator's stop (std_msgs/Bool)."),
        argument('base_frame', 'panda_link0', 'Frame of the deltas (FR3: fr3_link0).'),
        argument('ee_frame', 'panda_hand_tcp', 'Frame that the deltas move (FR3: fr3_hand_tcp).'),
        argument(
            'view',
            'false',
            'Serve a page that shows the node at work, on this computer at port 8642.',
            ['true', 'false'],
        ),
        argument(
            'enclaves', '', 'Folder of the enclaves in the keystore of SROS 2, such as /left.'
        ),
        argument(
            'respawn',
            'true',
            'Start the node again when it crashes; it then waits for an instruction. A node that '
            'was shut down on purpose (exit code 0) is not started again: launch ends.',
            ['true', 'false'],
        ),
        argument('log_level', 'info', 'Log level.', ['debug', 'info', 'warn', 'error']),
    ]
    policy = Node(
        package='lightvla_ros',
        executable='lightvla_node',
        name='lightvla',
        namespace=value('namespace'),
        output='screen',
        respawn=value('respawn'),
        respawn_delay=2.0,
        parameters=[
            value('params_file'),
            {
                'policy': value('checkpoint'),
                'engine': value('engine'),
                'provider': value('device'),
                'use_sim_time': value('use_sim_time'),
                'autostart': value('autostart'),
                'image_transport': value('image_transport'),
                'record': value('record'),
                'record_folder': value('record_folder'),
                'base_frame': value('base_frame'),
                'ee_frame': value('ee_frame'),
                'view': value('view'),
            },
        ],
        remappings=[
            (topic, value(topic.replace('/', '_')))
            for topic in (
                'third_person/image',
                'wrist/image',
                'ee_pose',
                'gripper_state',
                'instruction',
            )
        ],
        arguments=ros_arguments('lightvla'),
    )
    servo_topics = ('pose_target_cmds', 'delta_twist_cmds', 'switch_command_type', 'status')
    executor = Node(
        package='lightvla_ros',
        executable='chunk_executor_node',
        name='chunk_executor',
        namespace=value('namespace'),
        output='screen',
        condition=UnlessCondition(PythonExpression(["'", value('controller'), "' == 'none'"])),
        parameters=[
            value('params_file'),
            {
                # without a controller the node is not started
                'controller': value('controller'),
                'gripper': value('gripper'),
                **{
                    name: value(name)
                    for name in ('use_sim_time', 'autostart', 'base_frame', 'ee_frame')
                },
            },
        ],
        remappings=[
            *((topic, value(topic)) for topic in ('ee_pose', 'target_pose', 'enable', 'stop')),
            *(
                (f'servo_node/{topic}', [value('servo_node'), f'/{topic}'])
                for topic in servo_topics
            ),
            # an action has no name of its own to remap, only its topics and services
            *(
                (
                    f'franka_gripper/{action}/_action/{part}',
                    [value('franka_gripper'), f'/{action}/_action/{part}'],
                )
                for action in ('gripper_action', 'move', 'grasp')
                for part in ('send_goal', 'cancel_goal', 'get_result', 'feedback', 'status')
            ),
        ],
        arguments=ros_arguments('chunk_executor'),
    )
    ends = [
        RegisterEventHandler(OnProcessExit(target_action=policy, on_exit=end_unless_respawned)),
        RegisterEventHandler(OnProcessExit(target_action=executor, on_exit=end)),
    ]
    return LaunchDescription([*arguments, policy, executor, *ends])
