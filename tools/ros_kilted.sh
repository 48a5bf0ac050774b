#!/usr/bin/env bash
# Runs the ROS tests on the wheels of ROS 2 Kilted, in an environment of their own: build/kilted.
#
#   tools/ros_kilted.sh [ARGUMENT…]     for pytest, default test/ros; PYTHON is 3.11 or 3.12
#
# Tests that need PyTorch or the simulator skip or fail there; `make ros` runs them on Jazzy.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=$PWD/build/kilted
(($#)) || set -- test/ros

key=$(cat constraints.txt requirements/*.txt setup.py msg/* action/* $(find test/interfaces -type f) | sha256sum)
if [[ $(cat "$venv/.stamp" 2>/dev/null) != "$key" ]]; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  grep -v '^ros-' constraints.txt >"$venv/constraints.txt"  # those are Jazzy's
  "$venv/bin/pip" install -q --disable-pip-version-check -c "$venv/constraints.txt" \
    -e '.[dev,record]' -r requirements/ros-kilted.txt
  for folder in . test/interfaces/*/; do
    tools/build_messages.sh "$venv" "$folder"
  done
  printf '%s' "$key" >"$venv/.stamp"
fi
# A venv with other ROS wheels may have started this
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
"$venv/bin/python" -m pytest "$@"
