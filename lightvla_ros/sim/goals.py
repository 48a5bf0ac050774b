"""Other requests for a scene: other objects that LIBERO's instructions name.

From a task's own initial states alone a policy could learn to ignore the words.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.errors import SimulationError
from lightvla_ros.sim.libero_env import LiberoEnv

# LIBERO-Spatial has two bowls; where the second one is stands in another task's instruction.
_BOWL = 'pick up the black bowl {} and place it on the plate'
_PLACES = {
    'between_plate_ramekin_region': 'between the plate and the ramekin',
    'next_to_ramekin_region': 'next to the ramekin',
    'table_center': 'from table center',
    'next_to_box_region': 'next to the cookie box',
    'next_to_plate_region': 'next to the plate',
    'wooden_cabinet_1_top_side': 'on the wooden cabinet',
    'wooden_cabinet_1_top_region': 'in the top drawer of the wooden cabinet',
    'flat_stove_1_cook_region': 'on the stove',
    'cookies_1': 'on the cookie box',
    'glazed_rim_porcelain_ramekin_1': 'on the ramekin',
}


@dataclass(frozen=True)
class Request:
    """An instruction, and the predicate that tells whether it was carried out."""

    instruction: str
    goal: tuple[str, str, str]

    @property
    def object(self) -> str:
        """Name of the object to move, such as ``milk_1``."""
        return self.goal[1]


def own_request(env: LiberoEnv) -> Request:
    """Return the task's own request."""
    return Request(env.instruction, tuple(env.task_goal[0]))


def other_requests(env: LiberoEnv) -> list[Request]:
    """Return the requests of other tasks that fit this scene; empty for other suites.

    :raises SimulationError: When LIBERO-Spatial has a bowl where no instruction puts one.
    """
    own = own_request(env)
    predicate, _, target = own.goal
    if env.suite == 'libero_object':
        others = [
            name
            for name in env.simulation.obj_body_id
            if name != own.object and not name.startswith('basket')
        ]
        name = lambda thing: thing.rsplit('_', 1)[0].replace('_', ' ')  # noqa: E731
        return [
            Request(own.instruction.replace(name(own.object), name(o)), (predicate, o, target))
            for o in others
        ]
    if env.suite != 'libero_spatial':
        return []
    return [
        Request(_BOWL.format(_place(where[0])), (predicate, what, target))
        for _, what, *where in env.simulation.parsed_problem['initial_state']
        if 'bowl' in what and what != own.object
    ]


def _place(region: str) -> str:
    words = _PLACES.get(region.removeprefix('main_table_'))
    if words is None:
        raise SimulationError(f'no instruction of LIBERO-Spatial names {region}')
    return words
