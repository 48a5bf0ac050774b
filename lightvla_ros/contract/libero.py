"""The contract of LIBERO's Panda; the simulator is not imported."""

from __future__ import annotations

from dataclasses import replace

from lightvla_ros.contract.manifest import Proprio
from lightvla_ros.contract.robot import read_robot
from lightvla_ros.files import resource

# LIBERO's Panda is a robot as any other: its file says what all of this package needs of it.
LIBERO = read_robot(resource('config/robots/libero.yaml'))
CHUNK_LENGTH = LIBERO.action.chunk_length  # steps
CONTROL_PERIOD = LIBERO.control_period  # s
PERIOD = round(CONTROL_PERIOD * 1e9)  # ns, the same
TRANSLATION_SCALE = LIBERO.action.translation_scale  # m per unit
ROTATION_SCALE = LIBERO.action.rotation_scale  # rad per unit
PROPRIO = Proprio(LIBERO.layout, (), ())
# As OpenVLA's data of LIBERO hold it, whose frames are turned by 180 degrees: that mirrors the true
# view. Published checkpoints were trained on them.
OPENVLA_LIBERO = replace(
    LIBERO, cameras={name: replace(each, mirror=True) for name, each in LIBERO.cameras.items()}
)
# The policies' cameras, and their names in MuJoCo
CAMERAS = dict(zip(LIBERO.cameras, ('agentview', 'robot0_eye_in_hand'), strict=True))
