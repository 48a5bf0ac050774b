#!/usr/bin/env bash
# Sets up .venv for the demo, the tests and development. Run it as often as you like: a step whose
# inputs have not changed is skipped.
#
#   PYTHON=python3.12 tools/setup.sh    the Python to use (3.11 or 3.12), default python3
#   tools/setup.sh train                PyTorch as well, for the model and its tests
#
# With a ROS 2 environment sourced, that ROS is used. Without one, Jazzy comes from PyPI wheels.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=$PWD/.venv
say() { printf '== %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# A step is done when its stamp holds the same text (hashes of its inputs) as the last time.
done_already() { [[ -f $venv/.stamps/$1 && $(<"$venv/.stamps/$1") == "$2" ]]; }
mark_done() { mkdir -p "$venv/.stamps" && printf '%s' "$2" >"$venv/.stamps/$1"; }

command -v "$python" >/dev/null || die "there is no $python; install Python 3.11 or 3.12, or set PYTHON"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[[ $version == 3.11 || $version == 3.12 ]] ||
  die "$python is Python $version; 3.11 or 3.12 is needed: make setup PYTHON=python3.11"

if [[ -n ${ROS_DISTRO:-} ]] && "$python" -c 'import rclpy' 2>/dev/null; then
  ros=$ROS_DISTRO
else
  [[ -z ${ROS_DISTRO:-} ]] || say "ROS $ROS_DISTRO is sourced, but not for Python $version; using wheels"
  ros=wheels
fi

system_packages() {
  local missing=() package
  if command -v dpkg-query >/dev/null; then
    # Offscreen OpenGL for the simulator, and what OpenCV links
    for package in libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libosmesa6 libgl1 libglib2.0-0; do
      # Ubuntu 24.04 calls some of them ...t64
      [[ $(dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null) == *'ok installed'* ]] ||
        missing+=("$package")
    done
  fi
  command -v cmake >/dev/null || missing+=(cmake)
  command -v c++ >/dev/null || missing+=(g++)
  command -v make >/dev/null || missing+=(make)
  "$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  "$python" -c 'import os, sysconfig; exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    missing+=(python3-dev)
  ((${#missing[@]})) || return 0

  local sudo=()
  if ((EUID)); then
    sudo -n true 2>/dev/null || die "these packages are missing and need root to install:
  sudo apt-get install ${missing[*]}"
    sudo=(sudo -n)
  fi
  command -v apt-get >/dev/null || die "install what Debian calls: ${missing[*]}"
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

python_packages() {
  local key
  key="$version $ros $(cat constraints.txt setup.py lightvla_ros/__init__.py requirements/*.txt | sha256sum)"
  done_already python "$key" && return
  say "Python packages (ROS: $ros)"
  # another Python or another ROS needs another environment
  if [[ -d $venv && $(cat "$venv/.stamps/base" 2>/dev/null) != "$version $ros" ]]; then
    rm -rf "$venv"
  fi
  [[ -d $venv ]] || "$python" -m venv "$venv"
  mark_done base "$version $ros"
  local wheels=()
  [[ $ros != wheels ]] || wheels=(-r requirements/ros-jazzy.txt)
  # No torch: neither the robot nor the demo needs it (the extra `train` does).
  "$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt -e '.[sim,dev,docs,record]' \
    "${wheels[@]}"
  # TensorRT's types for mypy, without TensorRT, which they require. They lie where Python does not
  # import from: beside the other packages they would pass for an installed TensorRT.
  "$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt --no-deps --upgrade \
    --target "$venv/stubs" tensorrt-stubs
  # five lines are no Python: an argument called `in`, and one without a default behind some with
  sed -i -E 's/, in: /, in_: /; s/(= None), (channel_axis: int\))/\1, *, \2/' \
    "$venv/stubs/tensorrt_bindings/tensorrt.pyi"
  mark_done python "$key"
}

train_packages() {
  local key
  key="$(cat "$venv/.stamps/python")"
  done_already train "$key" && return
  say 'PyTorch, and engines to test without a GPU'
  "$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt \
    -e '.[train,data,lora,oracle,openvino]'
  mark_done train "$key"
}

messages() {
  local key
  key="$version $ros $(cat msg/*.msg action/*.action CMakeLists.txt package.xml cmake/* tools/build_messages.sh | sha256sum)"
  done_already messages "$key" && return
  say 'messages'
  tools/build_messages.sh "$venv" || die 'the messages could not be built'
  mark_done messages "$key"
}

# What the wheels of ROS 2 lack and the chunk executor is tested with
stand_ins() {
  local key folder
  key="$version $ros $(cat $(find test/interfaces -type f | sort) cmake/* tools/build_messages.sh | sha256sum)"
  done_already stand_ins "$key" && return
  say 'stand-ins of interfaces'
  for folder in test/interfaces/*/; do
    if [[ $ros != wheels ]] && "$python" -c "import $(basename "$folder")" 2>/dev/null; then continue; fi
    tools/build_messages.sh "$venv" "$folder" || die "$folder could not be built"
  done
  mark_done stand_ins "$key"
}

started=$SECONDS
system_packages
python_packages
[[ ${1:-} != train ]] || train_packages
messages
stand_ins
say "ready in $((SECONDS - started)) s (Python $version, ROS: $ros)"
