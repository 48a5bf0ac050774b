#!/usr/bin/env bash
# Runs ROS tests on the wheels of ROS 2 Kilted, which lie in build/kilted; all else comes from .venv.
#
#   tools/ros_kilted.sh             all of test/ros
#   tools/ros_kilted.sh ARGUMENT…   for pytest
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$PWD/build/kilted
(($#)) || set -- test/ros
# A venv with other ROS wheels, or a sourced ROS, may have started this.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH ROS_DISTRO

key=$(cat constraints.txt requirements/ros-kilted.txt "$0" cmake/* CMakeLists.txt msg/* action/* \
  $(find test/interfaces -type f) | sha256sum)
if [[ $(cat "$venv/.stamp" 2>/dev/null) != "$key" ]]; then
  rm -rf "$venv"
  .venv/bin/python -m venv --without-pip "$venv"
  grep -v '^ros-' constraints.txt >"$venv/constraints.txt"  # those are Jazzy's
  .venv/bin/pip --python "$venv/bin/python" install -q --disable-pip-version-check \
    -c "$venv/constraints.txt" -r requirements/ros-kilted.txt
  for folder in . test/interfaces/*/; do
    tools/build_messages.sh "$venv" "$folder"
  done
  # What is not found in build/kilted: the sources, then all that is not ROS.
  printf '%s\n' "$PWD" "$PWD"/.venv/lib/python*/site-packages >"$(echo "$venv"/lib/python*/site-packages)/rest.pth"
  printf '%s' "$key" >"$venv/.stamp"
fi
"$venv/bin/python" -m pytest "$@"
