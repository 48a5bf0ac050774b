#!/usr/bin/env bash
# Installs the wheel into an empty environment, and verifies the bundled policy and runs an episode
# there, from a folder outside of the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/build/wheel
venv=$work/venv
base=$(<.venv/.stamps/base)
rm -rf "$work" build/lib build/bdist.* && mkdir -p "$work"  # build/lib would add files that are gone

"$root/.venv/bin/pip" wheel -q --disable-pip-version-check --no-deps -w "$work" .
wheel=$(echo "$work"/lightvla_ros-*.whl)
[[ $(stat -c %s "$wheel") -lt 25000000 ]] || { echo "$wheel: is larger than 25 MB" >&2; exit 1; }

"$root/.venv/bin/python" -m venv "$venv"
ros=()
[[ $base != *wheels ]] || ros=(-r requirements/ros-jazzy.txt)
"$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt "${wheel}[sim]" "${ros[@]}"
# Before there are messages, a command that needs ROS says what to do
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
cd "$outside"
[[ $base != *wheels ]] || unset PYTHONPATH  # a sourced ROS is found by it
"$venv/bin/lightvla" demo --out none 2>said && { echo 'a demo without messages?' >&2; exit 1; }
[[ $(wc -l <said) == 1 && $(<said) == *tools/build_messages.sh* ]] || { cat said >&2; exit 1; }

"$root/tools/build_messages.sh" "$venv"
if [[ $base != *wheels ]]; then
  export LD_LIBRARY_PATH=$venv/lib:${LD_LIBRARY_PATH:-} AMENT_PREFIX_PATH=$venv:$AMENT_PREFIX_PATH
fi
"$venv/bin/python" - "$venv" <<'PYTHON'
import sys

import lightvla_ros
from lightvla_ros.files import BUNDLED_POLICY, resource
from lightvla_ros.msg import ActionChunk

places = [lightvla_ros.__file__, sys.modules[ActionChunk.__module__].__file__]
for name in (BUNDLED_POLICY, 'config/libero.param.yaml', 'config/train', 'launch'):
    places.append(str(resource(name)))
for place in places:
    assert place.startswith(sys.argv[1]), f'{place} is not from the wheel'
PYTHON
"$venv/bin/lightvla" verify "$venv/share/lightvla_ros/models/libero_tiny"
"$venv/bin/lightvla" demo --suite libero_object --tasks 1 --no-video --out demo
rm -rf "$venv"  # 2.5 GB
echo "wheel: $(basename "$wheel") installed, verified and run outside of the repository"
