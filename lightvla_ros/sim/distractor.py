"""One thing more in a scene of LIBERO-Spatial, somewhere on the table, as on any real one."""

from __future__ import annotations

import numpy as np

from lightvla_ros.errors import SimulationError

SUITE = 'libero_spatial'  # LIBERO-Object has six things beside the requested one anyway
THINGS = (  # those of LIBERO-Object, whose words every policy of these suites knows
    'alphabet_soup',
    'bbq_sauce',
    'butter',
    'chocolate_pudding',
    'cream_cheese',
    'ketchup',
    'milk',
    'orange_juice',
    'salad_dressing',
    'tomato_sauce',
)
REGION = 'distractor_region'
AREA = (-0.28, -0.08, 0.28, 0.38)  # m, x and y on the table: beside cabinet and stove


def draw_distractor(seed: int, task: int) -> str:
    """Draw a thing for all layouts of a task."""
    return THINGS[int(np.random.default_rng((seed, task)).integers(len(THINGS)))]


def with_distractor(bddl: str, thing: str) -> str:
    """Add a thing to the text of a task.

    :param bddl: LIBERO's description of a task on a table.
    :param thing: One of :data:`THINGS`.
    :raises SimulationError: When the thing is another one, or stands in the scene already.
    """
    if thing not in THINGS:
        raise SimulationError(f'there is no distractor {thing!r}; choose {", ".join(THINGS)}')
    if f'{thing}_1' in bddl:
        raise SimulationError(f'{thing} stands in the scene already; choose another distractor')
    area = ' '.join(map(str, AREA))
    for section, line in (
        ('(:regions', f'({REGION} (:target main_table) (:ranges (({area}))))'),
        ('(:objects', f'{thing}_1 - {thing}'),
        ('(:init', f'(On {thing}_1 main_table_{REGION})'),
    ):
        before, found, after = bddl.partition(section)
        if not found:
            raise SimulationError(f'a task without {section}) cannot have a distractor')
        bddl = f'{before}{section}\n    {line}{after}'
    return bddl
