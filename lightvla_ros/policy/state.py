"""The robot's state: as measured, and as the policy's state vector (proprio)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightvla_ros.contract import PROPRIO_SIZES, Proprio

LEAST_RANGE = 0.01  # m or rad; lower limit of a range, for numbers that hardly vary in the data
ROUNDING = 1e-5  # fraction of the range, so that the extremes of float32 data count as inside


@dataclass(frozen=True, eq=False)
class RobotState:
    """The robot's measured state at one instant; a part that was not measured is None.

    :param position: Position of the end effector in the base frame [m], [3].
    :param quaternion: Orientation of the end effector, unit, x y z w; its sign has no meaning.
    :param fingers: The two finger joints [m], [2], with robosuite's signs (the second is negative).
    """

    position: np.ndarray | None = None
    quaternion: np.ndarray | None = None
    fingers: np.ndarray | None = None

    def joined(self, other: RobotState) -> RobotState:
        """Return this state plus another one's parts, since parts come in several messages."""
        return replace(self, **{name: v for name, v in vars(other).items() if v is not None})

    def part(self, name: str) -> np.ndarray | None:
        """Return the measurement from which a part of ``Proprio.layout`` is computed."""
        return {
            'ee_position': self.position,
            'ee_axis_angle': self.quaternion,
            'gripper_qpos': self.fingers,
        }[name]


def state_vector(spec: Proprio, state: RobotState) -> np.ndarray:
    """Build the state vector in the manifest's layout.

    :returns: float64 [S].
    :raises ValueError: When a part that the layout needs is missing, not finite or of wrong shape.
    """
    return np.concatenate([_numbers(spec, name, state.part(name)) for name in spec.layout])


@dataclass(frozen=True)
class Outside:
    """A number of the state that is outside the range of the training data.

    :param excess: Distance to the nearer bound, as a fraction of the range between both bounds.
    """

    name: str
    value: float
    low: float
    high: float
    excess: float

    def __str__(self) -> str:
        return f'{self.name} is {self.value:.4g}, trained {self.low:.4g} to {self.high:.4g}'


def out_of_bounds(spec: Proprio, state: RobotState) -> list[Outside]:
    """Find the numbers of a state that are outside the bounds; missing parts are skipped.

    :func:`normalise_proprio` clips these numbers, so a policy does not see how far outside they
    are.

    :returns: The farthest first.
    :raises ValueError: As :func:`state_vector`, for the parts that the state has.
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
    :returns: float32 [1, S]; None if the policy takes no proprio.
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
    """Return q or -q, whichever has a dot product >= 0 with a reference; both are one rotation.

    OpenVLA-OFT uses LIBERO's quaternion unchanged, so its data have angles up to 2 pi, and a
    policy needs the same sign: the other sign costs 14 to 40 points of success (vla-eval,
    common-pitfalls) and changed the bundled policy's steps by 44 mm. LIBERO's hand points down: x
    is always positive (0.99 to 1 in 2187 states of 20 episodes), while w has both signs. A robot's
    driver may send either sign, and may change it at any time.

    :param reference: See ``Proprio.quaternion_reference``.
    :param quaternion: Unit, x y z w.
    """
    side = float(np.dot(quaternion, reference))
    if side == 0:  # at right angles: any rule that gives the same result for q and -q
        side = next((number for number in quaternion if number), 0.0)
    return -quaternion if side < 0 else quaternion


def wrap_axis_angles(reference: Sequence[float], vectors: np.ndarray) -> np.ndarray:
    """Apply :func:`on_side_of` to rotation vectors of recorded data.

    :param vectors: [N, 3] in radians; vectors on the reference's side are returned unchanged.
    """
    angles = np.linalg.norm(vectors, axis=1)
    halves = angles / 2
    axes = vectors / np.where(angles, angles, 1)[:, None]
    quaternions = np.column_stack([axes * np.sin(halves)[:, None], np.cos(halves)])
    turned = [on_side_of(reference, each) is not each for each in quaternions]
    other = vectors - 2 * np.pi * axes
    return np.where(np.array(turned)[:, None], other, vectors)


def _numbers(spec: Proprio, name: str, part: np.ndarray | None) -> np.ndarray:
    """Return a part of the state vector, float64."""
    size = 4 if name == 'ee_axis_angle' else PROPRIO_SIZES[name]
    if part is None or np.shape(part) != (size,) or not np.isfinite(part).all():
        raise ValueError(f'{name} needs {size} finite numbers, not {part}')
    if name == 'ee_axis_angle':
        part = _axis_angle(on_side_of(spec.quaternion_reference, part))
    return np.asarray(part, np.float64)


def _axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Return the rotation vector as in OpenVLA's LIBERO data (robosuite's quat2axisangle)."""
    w = min(max(float(quaternion[3]), -1.0), 1.0)
    denominator = np.sqrt(1 - w * w)
    if denominator < 1e-8:
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2 * np.arccos(w) / denominator
