#!/usr/bin/env bash
# Make the keys and permissions of security/policy.xml: tools/make_keys.sh KEYSTORE [NAMESPACE]
# Needs a sourced ROS 2 with sros2 (`apt install ros-jazzy-sros2`). The permissions hold for the
# ROS_DOMAIN_ID that is set now. Run it again after a change of the policy: keys are kept, and
# permissions are made anew. docs/how-to/security.md says what to do with the result.
set -euo pipefail
umask 077

[[ $# -ge 1 && $# -le 2 ]] || { echo "usage: $0 KEYSTORE [NAMESPACE]" >&2; exit 2; }
keystore=$1
namespace=${2:-}
namespace=${namespace#/}
[[ -z $namespace || $namespace =~ ^[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$ ]] ||
  { echo "$0: '$namespace' is not a ROS namespace, such as left or cell/left" >&2; exit 2; }
command -v ros2 >/dev/null && ros2 security -h >/dev/null 2>&1 ||
  { echo "$0: 'ros2 security' does not run here; source ROS 2 and install its package sros2" >&2; exit 1; }

policy=$(dirname "$0")/../security/policy.xml
mkdir -p "$keystore"
if [[ -n $namespace ]]; then
  sed -e "s|enclave path=\"/|enclave path=\"/$namespace/|" -e "s|ns=\"/\"|ns=\"/$namespace\"|" \
    "$policy" >"$keystore/policy.xml"
else
  cp "$policy" "$keystore/policy.xml"
fi
ros2 security generate_artifacts -k "$keystore" -p "$keystore/policy.xml"

echo "Keys and permissions of domain ${ROS_DOMAIN_ID:-0} are in $keystore/enclaves/${namespace:+$namespace/}."
echo "Copy to each computer only the enclaves that run there, and keep $keystore/private off the robot."
