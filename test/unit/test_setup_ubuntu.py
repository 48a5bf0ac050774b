"""tools/setup_ubuntu.sh says what is missing before it changes anything."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def set_up(workspace, **environment):
    return subprocess.run(
        [ROOT / 'tools/setup_ubuntu.sh', workspace],
        env={'PATH': os.environ['PATH'], 'HOME': str(workspace.parent)} | environment,
        capture_output=True,
        text=True,
    )


def test_what_a_workspace_lacks_is_named_with_the_command_that_installs_it(tmp_path):
    # the image ros:jazzy names its ROS without having sourced it
    done = set_up(tmp_path / 'ws', ROS_DISTRO='none')
    assert done.returncode == 1
    assert done.stderr == 'setup_ubuntu: source one ROS 2 first: . /opt/ros/jazzy/setup.bash\n'
    sourced = {'ROS_DISTRO': 'jazzy', 'AMENT_PREFIX_PATH': '/opt/ros/jazzy', 'PYTHON': '/bin/false'}
    done = set_up(tmp_path / 'ws', **sourced)
    assert done.returncode == 1
    said, *commands = done.stderr.splitlines()
    assert 'lack rclpy colcon_core catkin_pkg em numpy ensurepip' in said
    assert commands[0].endswith('apt-get install ros-jazzy-ros-base ros-dev-tools python3-venv')
    assert commands[1].endswith(f'rosdep install --from-paths {ROOT} --ignore-src')
    assert list(tmp_path.iterdir()) == []
