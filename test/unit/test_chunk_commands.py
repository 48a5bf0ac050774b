"""The steps of recorded chunks become commands, in runs between holds."""

from types import SimpleNamespace

import numpy as np

from lightvla_ros.demonstrations.chunk_commands import runs_in

PERIOD = 50_000_000


def _time(nanoseconds):
    return SimpleNamespace(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def chunk(begin, steps, first=0, instruction='pick', session='one'):
    """A chunk whose steps move by 0, 1, 2 … mm along x from ``first`` on; begins in ms."""
    transforms = [
        SimpleNamespace(
            translation=SimpleNamespace(x=1e-3 * (first + index), y=0.0, z=0.0),
            rotation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0),
        )
        for index in range(steps)
    ]
    return SimpleNamespace(
        header=SimpleNamespace(stamp=_time(begin * 10**6)),
        period=_time(PERIOD),
        steps=transforms,
        gripper=[1.0] * steps,
        instruction=instruction,
        session_id=session,
    )


def _runs(*chunks):
    return [
        (np.rint(run.stamps / 1e6).tolist(), np.rint(run.values[:, 0] * 1e3).tolist())
        for run in runs_in('/chunks', chunks)
    ]


def test_a_newer_chunk_replaces_the_rest_of_an_older_one():
    found = _runs(chunk(1000, 4), chunk(1110, 3, first=10))
    assert found == [([1000, 1050, 1100, 1110, 1160, 1210], [0, 1, 2, 10, 11, 12])]


def test_a_hold_ends_a_run_at_once():
    found = _runs(chunk(1000, 8), chunk(1120, 0), chunk(2000, 2, first=20))
    assert found == [([1000, 1050, 1100], [0, 1, 2]), ([2000, 2050], [20, 21])]


def test_a_pause_another_instruction_and_another_session_end_a_run():
    assert len(_runs(chunk(1000, 3), chunk(1300, 3))) == 2
    assert len(_runs(chunk(1000, 3), chunk(1150, 3, instruction='place'))) == 2
    # the clock was set back between them
    assert len(_runs(chunk(1000, 3), chunk(500, 3, session='two'))) == 2
    assert len(_runs(chunk(1000, 3), chunk(1150, 3))) == 1
