"""LIBERO's suites, and its Panda's contract.

The simulator is not imported, so the command line knows the suites without it.
"""

from __future__ import annotations

from dataclasses import replace

from lightvla_ros.contract.manifest import Proprio
from lightvla_ros.contract.robot import read_robot
from lightvla_ros.files import resource

# Tasks per suite; a test compares with LIBERO's benchmark. Each task has INIT_STATES saved states.
TASKS = {
    'libero_spatial': 10,
    'libero_object': 10,
    'libero_goal': 10,
    'libero_10': 10,
    'libero_90': 90,
}
INIT_STATES = 50

# Steps per episode by suite, as in OpenVLA-OFT's run_libero_eval.py
MAX_STEPS = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
    'libero_90': 400,
}

EXPERT_SUITES = ('libero_object', 'libero_spatial')  # suites that the scripted expert can solve

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
