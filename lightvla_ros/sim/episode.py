"""An episode by LIBERO's protocol, the same whether driven directly or through ROS."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lightvla_ros.contract.libero import CONTROL_PERIOD
from lightvla_ros.sim.libero_env import OPEN, LiberoEnv, versions
from lightvla_ros.sim.motion import MotionLog

# What moves the arm: LIBERO's own, or one that a chunk executor commands through ROS
CONTROLLERS = ('osc', 'crisp', 'servo')


# In place of a saved initial state: the layout that the episode's seed draws
DRAWN_LAYOUT = -1


@dataclass(frozen=True)
class EpisodeSpec:
    """Identifies an episode: suite, task, saved initial state, seed of the fixtures' poses.

    With ``DRAWN_LAYOUT`` as its state, the seed also draws where the objects are.
    """

    suite: str
    task: int
    init_state: int
    seed: int = 0

    def __str__(self) -> str:
        drawn = self.init_state == DRAWN_LAYOUT
        start = f'layout {self.seed}' if drawn else f'state {self.init_state}'
        return f'{self.suite} task {self.task} {start}'


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode ended. An ``error`` is not a failure of the policy: nothing was measured then.

    :param steps: Steps after settling, up to success or the limit.
    :param renderer: OpenGL that drew the images, ``none`` without images.
    :param motion: See ``MotionLog.figures``.
    :param render_setting: ``standard`` or ``cheap``; outcomes are compared within one setting.
    """

    spec: EpisodeSpec
    instruction: str
    success: bool
    steps: int
    renderer: str
    render_setting: str
    motion: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    error: str = ''

    def as_dict(self) -> dict[str, Any]:
        """All fields, flat, for JSON."""
        fields = asdict(self)
        return {**fields.pop('spec'), **fields}


class EpisodeRunner:
    """Counts steps, notices success and the limit, and knows how to hold still."""

    def __init__(self, env: LiberoEnv, spec: EpisodeSpec) -> None:
        """Reset the environment to the episode's start.

        :raises SimulationError: When the initial state does not exist, or the seed draws none.
        """
        self._env = env
        self._spec = spec
        self._gripper = OPEN
        self.steps = 0
        self.success = False
        if spec.init_state == DRAWN_LAYOUT:
            env.reset_layout(spec.seed)
        else:
            env.reset(spec.init_state, spec.seed)
        self._motion = MotionLog()
        self._note_motion()

    @property
    def finished(self) -> bool:
        """Whether the task is solved or the suite's step limit reached."""
        return self.success or self.steps >= self._env.max_steps

    def step(self, action: np.ndarray) -> bool:
        """Apply one action [7]; return whether the episode is finished. Later ones do nothing."""
        if not self.finished:
            self._gripper = float(action[6])
            self.success = self._env.step(action)
            self.steps += 1
            self._note_motion()
        return self.finished

    def count(self, solved: bool, seconds: float) -> bool:
        """Count time in which another controller has moved the arm.

        :param solved: Whether the task is solved now.
        :param seconds: Simulated time since the start of the episode [s].
        :returns: Whether the episode is finished.
        """
        if not self.finished:
            steps = round(seconds / CONTROL_PERIOD)
            if steps != self.steps:
                self._note_motion()
            self.steps = steps
            self.success = solved
        return self.finished

    @property
    def motion(self) -> dict[str, float]:
        """How far and how smoothly the arm has moved; see ``MotionLog.figures``."""
        return self._motion.figures()

    def hold_action(self) -> np.ndarray:
        """Return the action that holds still: no motion, the gripper as last commanded."""
        return np.array([0, 0, 0, 0, 0, 0, self._gripper])

    def result(self, error: str = '') -> EpisodeResult:
        """Return the result so far."""
        return EpisodeResult(
            spec=self._spec,
            instruction=self._env.instruction,
            success=self.success,
            steps=self.steps,
            renderer=self._env.renderer,
            render_setting=self._env.render_setting,
            motion=self.motion,
            error=error,
        )

    def _note_motion(self) -> None:
        self._motion.add(self._env.state().position, self._env.joints())
