"""Whether a row's observation was made before or after the row's action.

LIBERO's ``create_dataset.py`` steps first and observes then; OpenVLA's
``regenerate_libero_dataset.py`` observes first. Neither says so in its files, and reading one as
the other shifts every pair by a step.
"""

from __future__ import annotations

import h5py
import numpy as np

from lightvla_ros.demonstrations.hdf5 import text_attribute
from lightvla_ros.errors import DemonstrationError

ORDERS = ('before', 'after')
# what create_dataset.py writes; regenerate_libero_dataset.py writes no attribute at all
OFFICIAL_ATTRIBUTES = {'problem_info', 'macros_image_convention', 'bddl_file_name', 'env_args'}
EPISODES_LOOKED_AT = 3
# One distance must be this many times the other. Measured in four suites: 23 to 24 times.
CLEARLY = 4.0


def find_order(data: h5py.Group, demos: list[str]) -> str:
    """Find a file's order: from its attribute, else its contents, else the script that wrote it.

    :param data: The file's group ``data``.
    :param demos: Names of the groups of its episodes.
    :raises DemonstrationError: When none of the three decides.
    """
    stated = text_attribute(data, 'observation_order')
    if stated is not None:
        if stated not in ORDERS:
            raise DemonstrationError(
                f'{data.file.filename}: observation_order is {stated!r}, not one of {ORDERS}'
            )
        return stated
    found = _order_of_contents(data, demos)
    if found is not None:
        return found
    if data.attrs.keys() >= OFFICIAL_ATTRIBUTES:
        return 'after'
    if not data.attrs and not any(data[demo].attrs for demo in demos):
        return 'before'
    raise DemonstrationError(
        f'{data.file.filename}: does not tell whether observations come before or after their '
        "actions; pass order='after' for files of LIBERO, 'before' for those of OpenVLA's "
        'regenerate_libero_dataset.py'
    )


def _order_of_contents(data: h5py.Group, demos: list[str]) -> str | None:
    """Compare the observed joints with the simulator's states, which both scripts record.

    ``states`` holds the simulation before each action: time, then all joint positions, the arm's
    seven first. An observation is 2 ms older than the state it was made of, far less than the 50 ms
    of a step, so the nearer of the two neighbouring states tells.

    :returns: None when the datasets are missing, or the arm hardly moves.
    """
    same, next_one = 0.0, 0.0
    for demo in demos[:EPISODES_LOOKED_AT]:
        states, joints = data[demo].get('states'), data[demo].get('obs/joint_states')
        if not (isinstance(states, h5py.Dataset) and isinstance(joints, h5py.Dataset)):
            return None
        if states.ndim != 2 or states.shape[1] < 8 or joints.shape != (len(states), 7):
            return None
        arm, observed = states[:, 1:8], joints[:-1]
        same += float(np.abs(observed - arm[:-1]).sum())
        next_one += float(np.abs(observed - arm[1:]).sum())
    if same > CLEARLY * next_one:
        return 'after'
    if next_one > CLEARLY * same:
        return 'before'
    return None
