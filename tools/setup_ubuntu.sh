#!/usr/bin/env bash
# Builds a workspace on Ubuntu with ROS 2 from apt. One Python environment serves colcon, `ros2 launch`
# and pip; sourcing WORKSPACE/env.bash turns all of it on. Run it again after every update.
#
#   tools/setup_ubuntu.sh [WORKSPACE [ARGUMENT…]]    default ~/lightvla_ws; the rest is for colcon build
#
# The ROS that is sourced is used, else the one in /opt/ros. PYTHON is the Python that this ROS was
# built for, default /usr/bin/python3.
set -euo pipefail
die() { printf 'setup_ubuntu: %s\n' "$*" >&2; exit 1; }
repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-/usr/bin/python3}
workspace=${1:-$HOME/lightvla_ws}
shift $(($# > 0))

if [[ -z ${AMENT_PREFIX_PATH:-} ]]; then  # ROS_DISTRO alone is set in the images of Docker
  setups=(/opt/ros/${ROS_DISTRO:-*}/setup.bash)
  [[ ${#setups[@]} == 1 && -e ${setups[0]} ]] ||
    die 'source one ROS 2 first: . /opt/ros/jazzy/setup.bash'
  set +u
  . "${setups[0]}"
  set -u
fi

missing=()
for module in rclpy colcon_core catkin_pkg em numpy ensurepip; do
  "$python" -c "import $module" 2>/dev/null || missing+=("$module")
done
for command in cmake c++ make; do
  command -v "$command" >/dev/null || missing+=("$command")
done
((${#missing[@]} == 0)) || die "$python and PATH lack ${missing[*]}:
  sudo apt-get install ros-$ROS_DISTRO-ros-base ros-dev-tools python3-venv
  rosdep install --from-paths $repository --ignore-src"

mkdir -p "$workspace/src"
workspace=$(cd "$workspace" && pwd)
ln -sfn "$repository" "$workspace/src/lightvla_ros"
venv=$workspace/venv
# What apt has installed stays visible, and pip leaves it alone where it is new enough.
[[ -x $venv/bin/python ]] || "$python" -m venv --system-site-packages "$venv"
touch "$venv/COLCON_IGNORE"
# Every later `pip install` in this environment keeps to the same limits.
limits=$repository/requirements/noble.txt
if "$python" -c 'import numpy; exit(int(numpy.__version__.split(".")[0]) >= 2)'; then
  printf '[install]\nconstraint = %s\n' "$limits" >"$venv/pip.conf"
fi
"$venv/bin/pip" install -q --disable-pip-version-check -r "$repository/requirements/robot.txt"

# Not /usr/bin/colcon: it runs in the system's Python, and so would what it builds and installs.
cd "$workspace"
PATH=$venv/bin:$PATH "$venv/bin/python" -m colcon build --packages-up-to lightvla_ros \
  --cmake-args -DPython3_EXECUTABLE="$venv/bin/python" -DBUILD_TESTING=OFF "$@"

cat >"$workspace/env.bash" <<ENV
# Written by tools/setup_ubuntu.sh. It sources ROS 2 as well.
. $venv/bin/activate
. $workspace/install/setup.bash
export PATH=$workspace/install/lightvla_ros/lib/lightvla_ros:\$PATH
ENV
set +u
. "$workspace/env.bash"
set -u
lightvla doctor --policy "$workspace/install/lightvla_ros/share/lightvla_ros/models/libero_tiny"
printf 'ready; in every new terminal: . %s/env.bash\n' "$workspace"
