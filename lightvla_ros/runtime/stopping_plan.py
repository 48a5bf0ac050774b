"""Motion of a point that can always come to rest within its bounds.

The point follows a *stopping plan*: the polynomial of degree 5 that leads from its present
position, velocity and acceleration to rest at an *aim*, in a given time. A wish is granted by
moving the aim along the straight line from the present aim to the wished one, as far as there is a
plan that keeps every bound until rest (a reference governor). So the motion is shortened, and its
direction never changes.

Why the bounds hold at every time, whatever is wished:

1. A plan is accepted only if a certificate proves that it keeps all bounds from now until rest.
   Velocity, acceleration and jerk of the plan are polynomials; each stays within the convex hull of
   its Bezier control points, and the certificate bounds the length of each control point. The path
   stays within the hull of the four distinct control points of the position; the certificate
   demands that all four are inside every wall (a half-space).
2. The rest of a plan is the plan to the same aim in the remaining time, because one polynomial of
   degree 5 meets these six conditions. So when no new plan is certified, the old one goes on, and
   its certificate, which was for all times until rest, still holds.
3. A point at rest has the trivial plan. By induction there is a certified plan at every time.

Sampled positions keep the bounds as well, at any sampling: a divided difference of order k of a
curve is a weighted mean of its k-th derivative, and the bounds are balls, which are convex.

The same holds for rotation. The plan is one of the angular velocity; "position" is the integral of
the angular velocity from now on, and the orientation is turned by that integral over each sampling
interval.
"""

from __future__ import annotations

import math

import numpy as np

SHORTEST = 0.02  # s; a plan that ends sooner gains nothing at 50 to 100 Hz
DURATIONS = 9  # number of durations that are tried
HALVINGS = 5  # number of shorter wishes that are tried at a curved wall
TOLERANCE = 1e-9  # of walls [m or rad], and relative of the other bounds, for rounding errors
NO_WALLS = np.zeros((0, 3)), np.zeros(0)

# Bezier control points of the position: rows of coefficients of (aim, velocity T, acceleration T^2)
_POSITION = np.array(
    [[0, 0, 0], [0, 1 / 5, 0], [0, 2 / 5, 1 / 20], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
)


def _halves(points: np.ndarray) -> list[np.ndarray]:
    """Return the control points of both halves of a Bezier curve (de Casteljau)."""
    left, right = [points[0]], [points[-1]]
    while len(points) > 1:
        points = (points[:-1] + points[1:]) / 2
        left.append(points[0])
        right.append(points[-1])
    return [np.array(left), np.array(right[::-1])]


def _derivative_rows() -> tuple[np.ndarray, np.ndarray]:
    """Return control points of the first three derivatives on four pieces, and their orders.

    The pieces make the hulls tight: they exceed the true maxima by at most a tenth. Neighbouring
    pieces share a point, and the first point is the present state, which is within its bound.

    :returns: [36, 3], coefficients of (aim, velocity T, acceleration T^2) of the derivative by
        time / T; and [36].
    """
    quarters = [piece for half in _halves(_POSITION) for piece in _halves(half)]
    rows, orders = [], []
    for order in (1, 2, 3):
        factor = math.perm(5, order) * len(quarters) ** order
        points = [factor * np.diff(piece, order, axis=0) for piece in quarters]
        if order == 3:  # the jerk is not part of the state
            rows.append(points[0][:1])
            orders.append(order)
        for piece in points:
            rows.append(piece[1:])
            orders += [order] * len(piece[1:])
    return np.concatenate(rows), np.array(orders)


_ROWS, _ORDERS = _derivative_rows()


class StoppingPlan:
    """The motion of one point, from now until rest. All vectors are float64 [3].

    :param speed: Largest length of the velocity [m/s or rad/s].
    :param acceleration: Of the acceleration [m/s^2 or rad/s^2].
    :param jerk: Of the jerk [m/s^3 or rad/s^3].
    :ivar aim: Where the point comes to rest, relative to where it is now.
    :ivar remaining: Time until then [s].
    """

    def __init__(self, speed: float, acceleration: float, jerk: float) -> None:
        # Stopping from the largest speed by such a polynomial needs 1.78 v / a and sqrt(12 v / j).
        self.longest = max(2 * speed / acceleration, math.sqrt(12 * speed / jerk), 2 * SHORTEST)
        self._durations = np.geomspace(SHORTEST, self.longest, DURATIONS)
        # Control points as multiples of their bound: coefficients of (aim, velocity, acceleration),
        # one row per duration and control point. Their squared lengths and products are linear in
        # the vectors' products, which are few.
        bounds = np.array([0, speed, acceleration, jerk])[_ORDERS] * (1 + TOLERANCE)
        scale = self._durations[:, None] ** np.arange(3)
        rows = _ROWS * scale[:, None] / (bounds * self._durations[:, None] ** _ORDERS)[..., None]
        aim, velocity, bend = rows.reshape(-1, 3).T
        self._squares = np.stack(
            [aim**2, velocity**2, bend**2, 2 * aim * velocity, 2 * aim * bend, 2 * velocity * bend],
            axis=1,
        )
        self._products = aim[:, None] * rows.reshape(-1, 3)
        self._steady = aim == 0  # the aim has no influence on this control point
        self._slopes = np.where(self._steady, 1, aim**2)
        self.rest()

    def rest(self) -> None:
        """Be at rest where the point is, at once."""
        self.aim = np.zeros(3)
        self.velocity = np.zeros(3)
        self.acceleration = np.zeros(3)
        self.remaining = 0.0

    def advance(self, duration: float) -> np.ndarray:
        """Follow the plan for some time [s] and return the displacement."""
        if duration >= self.remaining:
            step = self.aim
            self.rest()
            return step
        whole, s = self.remaining, duration / self.remaining
        aim, velocity, acceleration = (
            self.aim,
            self.velocity * whole,
            self.acceleration * whole * whole,
        )
        # p = s v + s^2 a / 2 + s^3 (c3 + s c4 + s^2 c5)
        c3 = 10 * aim - 6 * velocity - 1.5 * acceleration
        c4 = -15 * aim + 8 * velocity + 1.5 * acceleration
        c5 = 6 * aim - 3 * velocity - 0.5 * acceleration
        step = s * (velocity + s * (acceleration / 2 + s * (c3 + s * (c4 + s * c5))))
        self.velocity = (
            velocity + s * (acceleration + s * (3 * c3 + s * (4 * c4 + s * 5 * c5)))
        ) / whole
        self.acceleration = (acceleration + s * (6 * c3 + s * (12 * c4 + s * 20 * c5))) / whole**2
        self.aim = aim - step
        self.remaining = whole - duration
        return step

    def redirect(
        self,
        wish: np.ndarray,
        walls: tuple[np.ndarray, np.ndarray] = NO_WALLS,
        curvature: float = 0.0,
    ) -> float:
        """Move the aim towards a wished one, as far as a plan can be certified.

        Of the certified plans, the one that gets nearest to the wish is taken, and of these the
        one that is there first.

        :param wish: Relative to where the point is now.
        :param walls: Unit normals [M, 3] and distances [M]: normal . x <= distance is allowed, for
            x relative to where the point is now.
        :param curvature: A path of length L needs this times L^2 of room to each wall.
        :returns: The granted part of the way from the old aim to the wish, 0 to 1.
        """
        change = wish - self.aim
        if change @ change <= TOLERANCE**2:
            return 1.0
        least, most = self._parts(change)
        durations = self._durations[:, None]
        second = self.velocity * durations / 5  # the second control point of the path
        third = 2 * second + self.acceleration * (durations * durations / 20)
        corners = np.stack([second, third], axis=1)
        normals, distances = walls
        inside = (corners @ normals.T <= distances + TOLERANCE).all((1, 2))
        room, approach = distances - normals @ self.aim, normals @ change
        towards = approach > 0
        if towards.any():
            wall = float((room[towards] / approach[towards]).min())
            most = np.minimum(most, max(0.0, wall))
        for _ in range(HALVINGS):
            usable = inside & (least <= most)
            if curvature and len(distances):
                usable &= _clear(corners, self.aim, change, most, walls, curvature)
            if usable.any():
                best = most[usable].max()
                usable &= most >= best - TOLERANCE
                chosen = int(np.argmin(np.where(usable, self._durations, np.inf)))
                self.aim = self.aim + most[chosen] * change
                self.remaining = float(self._durations[chosen])
                return float(most[chosen])
            if not curvature:
                break
            most = most / 2
        return 0.0

    def _parts(self, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each duration, the parts of a change for which all derivatives are bounded.

        A control point is ``fixed + part * slope``, so its bound is a quadratic inequality.

        :returns: The smallest and the largest part, in [0, 1]; none is allowed if they are in the
            wrong order.
        """
        vectors = np.stack([self.aim, self.velocity, self.acceleration, change])
        (aa, av, at, ac, _, vv, vt, vc, _, _, tt, tc, _, _, _, cc) = (
            (vectors @ vectors.T).ravel().tolist()
        )
        excess = self._squares @ np.array([aa, vv, tt, av, at, vt]) - 1  # |fixed|^2 - 1
        half = self._products @ np.array([ac, vc, tc])  # fixed . slope
        square = self._slopes * cc  # |slope|^2
        root = half * half - square * excess
        never = np.where(self._steady, excess, -root) > 0
        root = np.sqrt(np.maximum(root, 0))
        least, most = (-half - root) / square, (root - half) / square
        least[self._steady], most[self._steady] = 0, 1
        most[never] = -1
        shape = len(self._durations), len(_ROWS)
        return np.maximum(least.reshape(shape).max(1), 0), np.minimum(most.reshape(shape).min(1), 1)


def _clear(
    corners: np.ndarray,
    aim: np.ndarray,
    change: np.ndarray,
    parts: np.ndarray,
    walls: tuple[np.ndarray, np.ndarray],
    curvature: float,
) -> np.ndarray:
    """Return, for each duration, whether its path keeps the room that its length demands."""
    normals, distances = walls
    ends = (aim + parts[:, None] * change)[:, None]
    points = np.concatenate([corners, ends], axis=1)
    legs = points.copy()
    legs[:, 1:] -= points[:, :-1]
    # a Bezier curve is not longer than the polygon of its control points
    length = np.sqrt((legs * legs).sum(2)).sum(1)
    room = distances + TOLERANCE - curvature * (length * length)[:, None]
    return (points @ normals.T <= room[:, None]).all((1, 2))
