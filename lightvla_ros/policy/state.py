"""The robot's state: as it is measured, and as the policy was trained on it (proprio)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightvla_ros.contract import PROPRIO_SIZES, Proprio

LEAST_RANGE = 0.01  # m or rad; data in which a number stood still say little about where it may be
ROUNDING = 1e-5  # of the range: the extremes of float32 data themselves are inside


@dataclass(frozen=True, eq=False)
class RobotState:
    """What was measured of the robot at one instant; a part that was not measured is None.

    :param position: End effector in the base frame [m], [3].
    :param quaternion: Of the end effector, unit, x y z w; its sign has no meaning.
    :param fingers: The two finger joints [m], [2], in robosuite's signs (the second is negative).
    """

    position: np.ndarray | None = None
    quaternion: np.ndarray | None = None
    fingers: np.ndarray | None = None

    def joined(self, other: RobotState) -> RobotState:
        """Return this state with the parts that another one has; they come in several messages."""
        return replace(self, **{name: v for name, v in vars(other).items() if v is not None})

    def part(self, name: str) -> np.ndarray | None:
        """Return what a part of ``Proprio.layout`` is made of."""
        return {
            'ee_position': self.position,
            'ee_axis_angle': self.quaternion,
            'gripper_qpos': self.fingers,
        }[name]


def state_vector(spec: Proprio, state: RobotState) -> np.ndarray:
    """Put the state vector together in the manifest's layout.

    :returns: float64 [S].
    :raises ValueError: When a part that the layout needs is missing, misshapen or not finite.
    """
    return np.concatenate([_numbers(spec, name, state.part(name)) for name in spec.layout])


@dataclass(frozen=True)
class Outside:
    """A number of the state that lies outside of what the policy was trained on.

    :param excess: How far outside, as a share of the range between both bounds.
    """

    name: str
    value: float
    low: float
    high: float
    excess: float

    def __str__(self) -> str:
        return f'{self.name} is {self.value:.4g}, trained {self.low:.4g} to {self.high:.4g}'


def out_of_bounds(spec: Proprio, state: RobotState) -> list[Outside]:
    """Find the numbers of a state, or of those parts that it has, that are outside the bounds.

    :func:`normalise_proprio` cuts them off, so that a policy does not see how far it is.

    :returns: The farthest first.
    :raises ValueError: As :func:`state_vector`, of the parts that the state has.
    """
    found, at = [], 0
    for part in spec.layout:
        axes = '12' if part == 'gripper_qpos' else 'xyz'
        measured = state.part(part)
        values = [] if measured is None else _numbers(spec, part, measured).tolist()
        for index, value in enumerate(values):
            low, high = spec.q01[at + index], spec.q99[at + index]
            excess = max(low - value, value - high) / max(high - low, LEAST_RANGE)
            if excess > ROUNDING:
                found.append(Outside(f'{part}.{axes[index]}', value, low, high, excess))
        at += PROPRIO_SIZES[part]
    return sorted(found, key=lambda outside: -outside.excess)


def normalise_proprio(state: np.ndarray | None, spec: Proprio | None) -> np.ndarray | None:
    """Map the state to [-1, 1] by its 1 % and 99 % quantiles.

    OpenVLA-OFT ``openvla_utils.py``, normalize_proprio (BOUNDS_Q99): clip(2 (x - q01) / (q99 - q01
    + 1e-8) - 1, -1, 1). The clipping is part of the published preprocessing.

    :param state: float64 [S].
    :returns: float32 [1, S]; None where the policy takes no proprio.
    :raises ValueError: When the state is missing, of another length, or not finite.
    """
    if spec is None:
        return None
    if state is None or np.shape(state) != (spec.size,) or not np.isfinite(state).all():
        raise ValueError(f'the policy needs a state of {spec.size} finite numbers, not {state}')
    q01, q99 = np.asarray(spec.q01), np.asarray(spec.q99)
    scaled = np.clip(2 * (state - q01) / (q99 - q01 + 1e-8) - 1, -1, 1)
    return scaled.astype(np.float32)[None]


def on_side_of(reference: Sequence[float], quaternion: np.ndarray) -> np.ndarray:
    """Return q or -q, which are one rotation: the one whose dot product with a reference is >= 0.

    OpenVLA-OFT takes LIBERO's quaternion as it comes, so its data have angles up to 2 pi, and a
    policy needs the same of the two: the other one costs 14 to 40 points of success (vla-eval,
    common-pitfalls) and moved our policy's steps by 44 mm. LIBERO's hand points down: x is always
    positive there (in 2187 states of 20 episodes 0.99 to 1), w of either sign. A robot's driver
    may send either one, and change from one to the other.

    :param reference: See ``Proprio.quaternion_reference``.
    :param quaternion: Unit, x y z w.
    """
    side = float(np.dot(quaternion, reference))
    if side == 0:  # at right angles: any rule will do that gives q and -q the same bits
        side = next((number for number in quaternion if number), 0.0)
    return -quaternion if side < 0 else quaternion


def wrap_axis_angles(reference: Sequence[float], vectors: np.ndarray) -> np.ndarray:
    """Do to rotation vectors of recorded data what :func:`on_side_of` does to quaternions.

    :param vectors: [N, 3] in radians; what is on the reference's side comes back bit for bit.
    """
    angles = np.linalg.norm(vectors, axis=1)
    halves = angles / 2
    axes = vectors / np.where(angles, angles, 1)[:, None]
    quaternions = np.column_stack([axes * np.sin(halves)[:, None], np.cos(halves)])
    turned = [on_side_of(reference, each) is not each for each in quaternions]
    other = vectors - 2 * np.pi * axes
    return np.where(np.array(turned)[:, None], other, vectors)


def _numbers(spec: Proprio, name: str, part: np.ndarray | None) -> np.ndarray:
    """Return a part of the state as it stands in the vector, float64."""
    size = 4 if name == 'ee_axis_angle' else PROPRIO_SIZES[name]
    if part is None or np.shape(part) != (size,) or not np.isfinite(part).all():
        raise ValueError(f'{name} needs {size} finite numbers, not {part}')
    if name == 'ee_axis_angle':
        part = _axis_angle(on_side_of(spec.quaternion_reference, part))
    return np.asarray(part, np.float64)


def _axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Rotation vector as OpenVLA's LIBERO data has it (robosuite's quat2axisangle)."""
    w = min(max(float(quaternion[3]), -1.0), 1.0)
    denominator = np.sqrt(1 - w * w)
    if denominator < 1e-8:
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2 * np.arccos(w) / denominator
