"""Signs of what ruins a training, each as one line: what is seen, what it may be, what to do.

The bounds are coarse: what is named is far outside of what arms and cameras do, or contradicts
itself. Nothing here proves that data are right; the contact sheet must be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from lightvla_ros.demonstrations.inspection.figures import ACTIONS, Inspection
from lightvla_ros.policy.likeness import doubt, likeness

FARTHEST, NEAREST = 5.0, 0.002  # m: an arm's reach, and a motion that is none
WIDEST, NARROWEST = 0.3, 0.0005  # m: a finger's way
LONGEST_STEP, SHORTEST_STEP = 0.3, 2e-5  # m: of the 99 % longest, in one control period
LARGEST_TURN = 1.5  # rad in one control period
GAINS = (0.02, 3.0)  # of motion for steps: 1 for a displacement, about 0.25 for LIBERO's spring
STILL = 0.2  # share of steps that do nothing
GAP = 1.5  # control periods between stamps
BLANK = 3.0  # grey levels


def doubts(found: Inspection, references: dict[str, np.ndarray] | None = None) -> list[str]:
    """Name what looks wrong.

    :param references: Pictures of a policy by camera, uint8 [N, H, W, 3]; None compares with none.
    """
    return [
        *_of_states(found),
        *_of_actions(found),
        *_of_gripper(found),
        *_of_time(found),
        *_of_pictures(found),
        *(() if references is None else _of_likeness(found, references)),
        *(f'{line}; this episode would be left out' for line in found.unread),
    ]


def _of_states(found: Inspection) -> Iterator[str]:
    states = found.states
    position = states[:, :3]
    farthest = float(np.abs(position).max())
    if farthest > FARTHEST:
        yield (
            f'positions reach {farthest:.4g} m, farther than an arm does; is the unit mm? '
            '(state.position.unit)'
        )
    moved = float(np.ptp(position, axis=0).max())
    if moved < NEAREST:
        yield (
            f'positions differ by {moved:.2g} m at most: the hand does not move, or the unit is '
            'off (state.position.unit)'
        )
    if 'gripper_qpos' in found.robot.proprio:
        yield from _of_fingers(states[:, 6:])
    jumps = turned = pairs = 0
    for each in found.signals:
        steps = np.linalg.norm(np.diff(each.states[:, 3:6], axis=0), axis=1)
        # between q and -q the rotation vector jumps by 2 pi, about the side of the reference
        jumps += int((steps > np.pi).sum())
        turned += int(((steps > LARGEST_TURN) & (steps <= np.pi)).sum())
        pairs += len(steps)
    if jumps:
        yield (
            f'the rotation vector jumps by about 2 pi {jumps} times: the hand stands where q and '
            '-q change places; a policy sees two far states for one pose: point the hand down, '
            'or check state.rotation'
        )
    if turned > 0.01 * pairs:
        yield (
            f'the hand turns by more than {LARGEST_TURN} rad between rows, {turned} times; check '
            'state.rotation (form, unit, at)'
        )


def _of_fingers(fingers: np.ndarray) -> Iterator[str]:
    widest = float(np.abs(fingers).max())
    if widest > WIDEST:
        yield f'a finger stands at {widest:.4g} m; is its unit mm? (state.gripper.unit)'
    if float(np.ptp(fingers, axis=0).max()) < NARROWEST:
        yield 'the fingers do not move; are these their joints, in metres? (state.gripper)'


def _of_actions(found: Inspection) -> Iterator[str]:
    actions = found.actions
    for axis in range(3):
        if float(np.ptp(actions[:, axis])) < 1e-9:
            yield f'the action {ACTIONS[axis]} never changes; check action.translation'
    lengths = np.linalg.norm(actions[:, :3], axis=1)
    long = float(np.quantile(lengths, 0.99))
    if long > LONGEST_STEP:
        yield f'steps of {long:.4g} m; is the unit off? (action.translation.unit)'
    elif 0 < long < SHORTEST_STEP:
        yield f'steps of {long:.2g} m at most; is the unit off? (action.translation.unit)'
    turn = float(np.quantile(np.linalg.norm(actions[:, 3:6], axis=1), 0.99))
    if turn > LARGEST_TURN:
        yield f'steps turn by {turn:.4g} rad; is the unit deg? (action.rotation.unit)'
    if found.robot.action.execution == 'displacement':
        yield from _of_speed(found, {'translation': long, 'rotation': turn})
    low, high = GAINS
    if abs(found.agreement) > 0.5 and not low < abs(found.gain) < high:
        yield (
            f'the arm moves {found.gain:.3g} m for each metre of its steps: a unit is off, or '
            'metres were recorded where -1 to 1 is meant (action.translation.unit)'
        )
    if found.agreement < -0.5:
        yield 'the arm moves against its steps; check signs, frame and at of action.translation'
    lags = found.by_lag
    strong = max(lags.values()) / 2
    if strong > 0.15 and lags[1] > strong:
        yield (
            f'changes of the motion are those of the next step (likeness {lags[1]:.2f}, '
            f'{lags[0]:.2f} of their own, {lags[-1]:.2f} of the last): observations were made '
            'after their actions, or action and observation are in the wrong order (order)'
        )
    elif strong > 0.15 and lags[0] < strong / 2 and lags[-2] > strong:
        yield (
            f'the motion answers a step two rows late (likeness {lags[-2]:.2f}, {lags[0]:.2f} of '
            'their own): a slow controller, or observations were made before their actions (order)'
        )
    if found.still > STILL:
        yield (
            f'{found.still:.0%} of the steps do nothing; a policy learns to stand still: '
            'drop_noops: true, or cut the pauses'
        )


def _of_speed(found: Inspection, steps: dict[str, float]) -> Iterator[str]:
    """Compare steps with the bounds of a robot's own contract, which LIBERO's has not to keep."""
    mapping, robot = found.episodes[0].mapping, found.robot
    if mapping is None or mapping.robot is None:
        return
    for part, step in steps.items():
        speed, bound = step / robot.control_period, getattr(robot.speed, part)
        if speed > bound:
            unit = {'translation': 'm/s', 'rotation': 'rad/s'}[part]
            yield (
                f'steps of up to {speed:.3g} {unit}: by its contract {robot.name} moves at '
                f'{bound:g} at most (speed.{part}), so the nodes would shorten them, and refuse '
                'those of three times that'
            )


def _of_gripper(found: Inspection) -> Iterator[str]:
    closed = found.actions[:, 6]
    low, high = float(closed.min()), float(closed.max())
    if high - low < 0.2:
        yield (
            f'the gripper command hardly changes ({low:.3g} to {high:.3g}, where 0 is open and 1 '
            'is closed); are open and closed its numbers? metres where -1 to 1 is meant?'
        )
    elif low < -0.5 or high > 1.5:
        yield (
            f'the gripper command goes from {low:.3g} to {high:.3g}, where 0 is open and 1 is '
            'closed; check open and closed'
        )
    elif 'gripper_qpos' in found.robot.proprio:
        yield from _of_its_sense(found)
    never = sum(not (each.closed > 0.5).any() for each in found.signals)
    if high - low >= 0.2 and never > len(found.signals) / 2:
        yield f'in {never} of {len(found.signals)} episodes the gripper never closes'


def _of_its_sense(found: Inspection) -> Iterator[str]:
    """Compare the width of the hand a while after commands to close and to open."""
    widths: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for each in found.signals:
        for closing in widths:
            command = (each.closed > 0.5) == closing
            # commanded so for the last ten steps: a hand needs up to half a second
            lasting = np.convolve(command, np.ones(10), 'full')[: len(command)] == 10
            rows = each.observed < len(command)
            chosen = lasting[each.observed[rows]]
            widths[closing].append(np.abs(each.states[rows][chosen, 6]))
    shut, wide = (np.concatenate(widths[closing]) for closing in (True, False))
    if len(shut) and len(wide) and shut.mean() > wide.mean() + NARROWEST:
        yield (
            f'the hand is wider where it is told to close ({shut.mean():.4f} m a finger) than '
            f'where it is told to open ({wide.mean():.4f} m): open and closed are exchanged?'
        )


def _of_time(found: Inspection) -> Iterator[str]:
    period = found.robot.control_period
    gaps, longest, where = 0, 0.0, ''
    for episode, each in zip(found.episodes, found.signals, strict=True):
        if each.stamps is None or len(each.stamps) < 2:
            continue
        steps = np.diff(each.stamps)
        gaps += int((steps > GAP * period).sum())
        if steps.max() > longest:
            longest, where = float(steps.max()), f'{episode.name}, row {steps.argmax()}'
    if gaps:
        yield (
            f'{gaps} gaps of more than {GAP} control periods between pictures, the longest '
            f'{longest:.2f} s ({where}): dropped frames'
        )
    chunk = found.robot.action.chunk_length
    short = [episode for episode in found.episodes if episode.steps < chunk]
    if short:
        yield f'{len(short)} episodes are shorter than a chunk of {chunk} steps, such as {short[0]}'


def _of_pictures(found: Inspection) -> Iterator[str]:
    if not found.shown:
        return
    images = np.concatenate([each.images for each in found.shown])
    for slot, camera in enumerate(found.robot.cameras):
        spread = np.array([image[::4].std(axis=(0, 1)).max() for image in images[:, slot]])
        blank = int((spread < BLANK).sum())
        if blank:
            yield f'{camera}: {blank} of {len(images)} pictures looked at are blank'
        moved = [
            np.abs(np.diff(each.images[:, slot].astype(np.int16), axis=0)).max() > 0
            for each in found.shown
            if len(each.images) > 1
        ]
        if moved and not all(moved):
            yield f'{camera}: in {moved.count(False)} of {len(moved)} episodes the picture stands'
    names = list(found.robot.cameras)
    for first, second in combinations(range(len(names)), 2):
        if all(np.array_equal(each[first], each[second]) for each in images):
            yield (
                f'{names[first]} and {names[second]}: both cameras show the same pictures; one is '
                'named twice'
            )


def _of_likeness(found: Inspection, references: dict[str, np.ndarray]) -> Iterator[str]:
    """Compare each camera with the policy's, in every way up, and with the other camera."""
    if not found.shown:
        return
    images = np.concatenate([each.images for each in found.shown])
    for slot, camera in enumerate(found.robot.cameras):
        if camera not in references:
            yield f'{camera}: the policy has no camera of this name, only {", ".join(references)}'
            continue
        scores = {name: likeness(images[:, slot], each) for name, each in references.items()}
        text = doubt(camera, scores)
        if text:
            yield f'{camera}: {text}'
