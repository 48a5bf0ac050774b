#!/usr/bin/env bash
# Builds ROS messages into a Python environment that has ROS 2:
#
#   tools/build_messages.sh VENV            those of this package
#   tools/build_messages.sh VENV FOLDER     those of another one, such as test/interfaces/franka_msgs
#
# They are compiled against the ROS that is there, so a wheel of lightvla_ros cannot bring them. In a
# ROS workspace colcon builds them, and this is not needed.
set -euo pipefail
(($# == 1 || $# == 2)) && [[ -x $1/bin/python ]] ||
  { echo 'usage: tools/build_messages.sh VENV [FOLDER]' >&2; exit 2; }
venv=$(cd "$1" && pwd)
source=$(cd "${2:-$(dirname "$0")/..}" && pwd)
cd "$(dirname "$0")/.."

build=$PWD/build/messages/$(basename "$source")
log=$build.log stage=$build/stage
arguments=(-DCMAKE_INSTALL_PREFIX="$venv" -DBUILD_TESTING=OFF)
if [[ -d $venv/share/rosidl_default_generators ]]; then
  # ROS from PyPI wheels (requirements/ros-jazzy.txt)
  arguments+=(-DCMAKE_PROJECT_INCLUDE="$PWD/cmake/pip_ros_wheels.cmake")
  export CMAKE_PREFIX_PATH=$venv AMENT_PREFIX_PATH=$venv
  export PATH=$venv/bin:$PATH
fi
rm -rf "$build" && mkdir -p "$build"
# Unspecified is CMake's name for what has no component: the generated files, not our sources, which
# pip has installed.
{
  cmake -S "$source" -B "$build" "${arguments[@]}" &&
    cmake --build "$build" -j"$(nproc)" &&
    DESTDIR=$stage cmake --install "$build" --component Unspecified
} >"$log" 2>&1 ||
  { tail -n 30 "$log" >&2; echo "the messages could not be built; see $log" >&2; exit 1; }
# The generator's empty package and its metadata would take the place of what pip has installed.
rm -rf "$stage$venv"/lib/python*/site-packages/lightvla_ros/__init__.py \
  "$stage$venv"/lib/python*/site-packages/lightvla_ros/__pycache__ \
  "$stage$venv"/lib/python*/site-packages/lightvla_ros-*.egg-info
# a running node keeps the library that it has loaded: the file is replaced, not written into
cp -a --remove-destination "$stage$venv/." "$venv/"
rm -rf "$stage"
