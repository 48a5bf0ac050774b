"""The environment of an episode; the last task's is kept, as a scene takes 10 s to build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightvla_ros.evaluate.options import Conditions
from lightvla_ros.sim.episode import EpisodeSpec
from lightvla_ros.sim.libero_env import LiberoEnv


class Environments:
    """Builds environments under the conditions of an evaluation. Close it."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._env: LiberoEnv | None = None

    @contextmanager
    def of(self, spec: EpisodeSpec) -> Iterator[LiberoEnv]:
        """Yield the environment of an episode's task, not reset; one that fails is thrown away.

        :raises SimulationError: When the suite or task does not exist.
        """
        try:
            yield self._prepare(spec)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _prepare(self, spec: EpisodeSpec) -> LiberoEnv:
        env, conditions = self._env, self._conditions
        if env is None or (env.suite, env.task) != (spec.suite, spec.task):
            self.close()
            size, render = conditions.camera_size, conditions.render
            env = self._env = LiberoEnv(spec.suite, spec.task, size, render)
            env.max_steps = min(env.max_steps, conditions.max_steps or env.max_steps)
        return env
