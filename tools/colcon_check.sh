#!/usr/bin/env bash
# Builds the package as a user's workspace does, with a plain `colcon build`, and imports the result.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
venv=$root/.venv
workspace=$root/build/colcon
rm -rf "$workspace" && mkdir -p "$workspace/src"
ln -s "$root" "$workspace/src/lightvla_ros"

arguments=()
if [[ $(<"$venv/.stamps/base") == *wheels ]]; then
  # Only the PyPI wheels need this; on a ROS install it is `colcon build` and nothing else.
  export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PATH=$venv/bin:$PATH
  arguments=(--cmake-args -DBUILD_TESTING=OFF -DCMAKE_PROJECT_INCLUDE="$root/cmake/pip_ros_wheels.cmake")
fi
cd "$workspace"
"$venv/bin/colcon" --log-base log build --base-paths src/lightvla_ros "${arguments[@]}" "$@"
set +u
source install/local_setup.bash
set -u
cd /
"$venv/bin/python" - "$workspace/install" <<'PYTHON'
import sys

from lightvla_ros import contract
from lightvla_ros.msg import ActionChunk
from lightvla_ros.files import resource

for path in (contract.__file__, sys.modules[ActionChunk.__module__].__file__):
    assert path.startswith(sys.argv[1]), f'{path} is not from the colcon install'
assert contract.SCHEMA_PATH.exists()
assert resource('config/libero.param.yaml')
PYTHON
"$workspace/install/lightvla_ros/lib/lightvla_ros/lightvla" --help >/dev/null
echo 'colcon: built, installed and imported'
