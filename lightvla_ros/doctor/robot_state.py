"""Judges the robot's state: within the trained bounds, in the trained frames, and the right way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lightvla_ros.contract import PROPRIO_SIZES, Proprio
from lightvla_ros.doctor.findings import Finding, failed, passed, warned
from lightvla_ros.policy.actions import quaternion_from_axis_angle
from lightvla_ros.policy.poses import turn_between
from lightvla_ros.policy.state import RobotState, out_of_bounds, state_vector

# Farther outside of the trained range than this is another frame or unit; m and rad
FAR_OUTSIDE = {'ee_position': 0.05, 'ee_axis_angle': 0.3, 'gripper_qpos': 0.01}
FAR_POSITION = 0.35  # m from every recorded position
FAR_TURN = 30.0  # degrees from every recorded orientation
HALF_OPEN = 0.15  # of the fingers' way, around its middle
NEAR_THE_SEAM = 0.2  # of the dot product with the reference, at whose 0 q and -q change places
CURES = {
    'ee_position': (
        'the pose is given in another base frame than the training data (LIBERO: the world, not '
        'the base of the arm), or in another unit: transform it into theirs, and move the arm to '
        "the data's start pose"
    ),
    'ee_axis_angle': (
        'the orientation is that of another frame of the hand (flange or tool), in another base '
        'frame, or a quaternion as w x y z: send that of the frame of the training data'
    ),
    'gripper_qpos': 'send the distance of each finger from the middle, in metres',
}


def judge_pose(
    spec: Proprio, states: Sequence[RobotState], recorded: np.ndarray | None
) -> Iterator[Finding]:
    """Judge measured poses.

    :param states: With position and quaternion, in the order of their arrival; at least one.
    :param recorded: float [N, S], states of recorded observations; None if there are none.
    """
    parts = [part for part in ('ee_position', 'ee_axis_angle') if part in spec.layout]
    yield from _bounds(spec, states, parts)
    if 'ee_axis_angle' in spec.layout:
        yield _sign(spec, states)
    if recorded is not None:
        yield from _nearest(spec, states[-1], recorded, parts)


def judge_gripper(
    spec: Proprio, states: Sequence[RobotState], stands: str | None
) -> Iterator[Finding]:
    """Judge measured fingers.

    :param states: With fingers; at least one.
    :param stands: How the hand stands, as the user sees it: ``open`` or ``closed``; None if the
        user did not say it.
    """
    yield from _bounds(spec, states, ['gripper_qpos'])
    at = _offset(spec, 'gripper_qpos')
    shut, wide = max(spec.q01[at], 0.0), spec.q99[at]
    first = float(np.median([each.fingers[0] for each in states]))
    share = (first - shut) / max(wide - shut, 1e-6)
    named = 'open' if share > 0.5 else 'closed'
    text = f'the fingers are {first:.4f} m from the middle, trained {shut:.4f} to {wide:.4f}'
    if abs(share - 0.5) < HALF_OPEN:
        yield warned('gripper sense', f'{text}: half open', 'open or close the hand, and try again')
    elif stands is None:
        cure = f'look at the hand: if it stands {named}, --hand {named} makes this a check'
        yield warned('gripper sense', f'{text}: {named}, if the sense is right', cure)
    elif stands != named:
        cure = 'exchange open and closed, or the unit, where gripper_state is published'
        yield failed('gripper sense', f'{text}: {named}, but the hand stands {stands}', cure)
    else:
        yield passed('gripper sense', f'{text}: {named}, as the hand stands')


def _bounds(spec: Proprio, states: Sequence[RobotState], parts: Sequence[str]) -> Iterator[Finding]:
    """Name the number of each part that is farthest outside the trained range."""
    outside = [each for state in states for each in out_of_bounds(spec, state)]
    for part in parts:
        found = [each for each in outside if each.name.startswith(part)]
        if not found:
            yield passed(part, f'{_shown(spec, states[-1], part)}: within the trained range')
            continue
        worst = max(found, key=lambda each: each.excess)
        beyond = max(worst.low - worst.value, worst.value - worst.high)
        unit = 'rad' if part == 'ee_axis_angle' else 'm'
        text = f'{worst}: {beyond:.3f} {unit} outside'
        judge = failed if beyond > FAR_OUTSIDE[part] else warned
        yield judge(part, text, CURES[part])


def _shown(spec: Proprio, state: RobotState, part: str) -> str:
    at = _offset(spec, part)
    only = RobotState(**{_FIELDS[part]: state.part(part)})
    values = state_vector(Proprio((part,), (), (), spec.quaternion_reference), only)
    pairs = zip(values, spec.q01[at:], spec.q99[at:], strict=False)
    return ', '.join(f'{value:.3f} in {low:.3f}..{high:.3f}' for value, low, high in pairs)


_FIELDS = {'ee_position': 'position', 'ee_axis_angle': 'quaternion', 'gripper_qpos': 'fingers'}


def _offset(spec: Proprio, part: str) -> int:
    """Return where a part begins in the state vector."""
    before = spec.layout[: spec.layout.index(part)]
    return sum(PROPRIO_SIZES[each] for each in before)


def _sign(spec: Proprio, states: Sequence[RobotState]) -> Finding:
    """Say which of q and -q arrives; the policy gets the same state from both, but not near 0."""
    sides = [float(np.dot(each.quaternion, spec.quaternion_reference)) for each in states]
    signs = 'both signs' if min(sides) < 0 < max(sides) else 'one sign'
    nearest = min(map(abs, sides))
    text = f'sent with {signs}; q and -q give the same state'
    if nearest < NEAR_THE_SEAM:
        text = (
            f'{text}, but its dot product with quaternion_reference is {nearest:.2f}: near 0 a '
            'small turn makes the state jump by 2 pi'
        )
        return warned('quaternion', text, CURES['ee_axis_angle'])
    return passed('quaternion', f'{text} (dot product with the reference {nearest:.2f})')


def _nearest(
    spec: Proprio, state: RobotState, recorded: np.ndarray, parts: Sequence[str]
) -> Iterator[Finding]:
    """Compare a pose with the nearest recorded one."""
    if 'ee_position' in parts:
        at = _offset(spec, 'ee_position')
        far = float(np.linalg.norm(recorded[:, at : at + 3] - state.position, axis=1).min())
        text = f'{far:.2f} m from the nearest recorded position'
        judge = passed('start position', text)
        if far > FAR_POSITION:
            judge = warned('start position', text, CURES['ee_position'])
        yield judge
    if 'ee_axis_angle' in parts:
        at = _offset(spec, 'ee_axis_angle')
        known = quaternion_from_axis_angle(recorded[:, at : at + 3])
        turns = [np.linalg.norm(turn_between(each, state.quaternion)) for each in known]
        turn = float(np.degrees(min(turns)))
        text = f'{turn:.0f} degrees from the nearest recorded orientation'
        judge = passed('start turn', text)
        if turn > FAR_TURN:
            judge = warned('start turn', text, CURES['ee_axis_angle'])
        yield judge
