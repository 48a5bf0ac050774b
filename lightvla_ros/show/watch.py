"""Runs an episode and records what the policy saw, which tokens it kept and what they showed.

The most informative moments for pictures are chosen here, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy, Prediction
from lightvla_ros.sim.closed_loop import observe, run_closed_loop
from lightvla_ros.sim.episode import EpisodeRunner, EpisodeSpec
from lightvla_ros.sim.hand import Hand
from lightvla_ros.sim.libero_env import LiberoEnv
from lightvla_ros.sim.patch_owners import PatchOwners, Shares

COLUMNS = 6  # pictures of an episode


@dataclass(frozen=True)
class Moment:
    """One look.

    :param step: Steps done before it.
    :param images: Upright RGB uint8 [H, W, 3], one per camera.
    :param kept: bool [cameras, patches], in the policy's view.
    :param roles: uint8 [cameras, patches], see :class:`PatchOwners`.
    :param acted: Whether a chunk was executed from it. The others are for pictures alone: the
        pruner was asked, but nobody did anything, and they count in no figure.
    """

    step: int
    images: tuple[np.ndarray, ...]
    kept: np.ndarray
    roles: np.ndarray
    acted: bool


@dataclass(frozen=True)
class Events:
    """Steps after which things happened first; None for what did not.

    :param touched: Both fingers touched an object.
    :param lifted: An object was 2 cm above where it had lain.
    :param released: The fingers had let go of it for good.
    """

    touched: int | None = None
    lifted: int | None = None
    released: int | None = None


@dataclass(frozen=True)
class Seen:
    """A recorded episode.

    :param total_steps: Steps of the whole episode.
    """

    name: str
    instruction: str
    cameras: tuple[str, ...]
    success: bool
    total_steps: int
    events: Events
    moments: tuple[Moment, ...]

    @property
    def acted(self) -> list[Moment]:
        """The moments from which a chunk was executed."""
        return [moment for moment in self.moments if moment.acted]

    @property
    def shares(self) -> dict[str, Shares]:
        """Patches by role of each camera, over the executed chunks."""
        return shares_of(self.cameras, self.acted)


def shares_of(cameras: tuple[str, ...], moments: list[Moment]) -> dict[str, Shares]:
    """Count patches by role of each camera; there is at least one moment."""
    found = {}
    for index, camera in enumerate(cameras):
        first, *rest = (Shares.of_frame(m.roles[index], m.kept[index]) for m in moments)
        found[camera] = sum(rest, start=first)
    return found


def key_moments(steps: list[int], events: Events) -> list[tuple[str, int]]:
    """Choose moments for pictures: what they show, and their index, in order and each once.

    Where nothing was lifted, they are spread evenly.

    :param steps: Of the moments, ascending.
    """
    last = len(steps) - 1
    if events.touched is None or events.lifted is None:
        spread = np.linspace(0, last, min(COLUMNS, len(steps))).round().astype(int)
        return [('start' if not i else 'end' if i == last else '', int(i)) for i in spread]
    touch = min(events.touched, events.lifted)  # a lift without a touch: by the rim, by one finger
    release = steps[-1] if events.released is None else events.released
    before = max((i for i, step in enumerate(steps) if step < touch), default=0)
    lift = _first_from(steps, events.lifted)
    let_go = _first_from(steps, release)
    chosen = [
        ('start', 0),
        ('approach', _nearest(steps, steps[before] / 2)),
        ('before the grasp', before),
        ('lift', lift),
        ('carry', _nearest(steps, (steps[lift] + steps[let_go]) / 2)),
        ('end' if events.released is None else 'release', let_go),
    ]
    once = {}
    for label, index in chosen:
        if not once or index > max(once):
            once[index] = label
    return [(label, index) for index, label in once.items()]


def _first_from(steps: list[int], step: int) -> int:
    return min(int(np.searchsorted(steps, step)), len(steps) - 1)


def _nearest(steps: list[int], step: float) -> int:
    return int(np.abs(np.array(steps) - step).argmin())


def watch_episode(
    policy: Policy,
    env: LiberoEnv,
    spec: EpisodeSpec,
    replan: int | None = None,
    look_every: int | None = None,
) -> Seen:
    """Run a task's own episode to its end.

    :param replan: Steps executed of each chunk; None for all of them.
    :param look_every: Also look every so many steps between chunks, and at the end; None: only at
        chunks.
    :raises EngineError: When the engine fails.
    :raises PolicyOutputError: When the policy's output must not move a robot.
    """
    runner = EpisodeRunner(env, spec)
    watcher = _Watcher(policy, env, runner, replan, look_every)
    run_closed_loop(policy, env, runner, env.instruction, replan, watcher.on_chunk, watcher.on_step)
    if look_every is not None and watcher.moments[-1].step != runner.steps:
        watcher.look()
    return Seen(
        name=f'{spec.suite}-{spec.task}-{spec.init_state}-{spec.seed}',
        instruction=env.instruction,
        cameras=tuple(camera.name for camera in policy.manifest.cameras),
        success=runner.success,
        total_steps=runner.steps,
        events=watcher.events,
        moments=tuple(watcher.moments),
    )


def kept_mask(prediction: Prediction, cameras: int, patches: int) -> np.ndarray:
    """Return which patches were kept: bool [cameras, patches] in the policy's view."""
    kept = np.zeros(cameras * patches, bool)
    kept[prediction.kept_patches] = True
    return kept.reshape(cameras, patches)


class _Watcher:
    def __init__(
        self,
        policy: Policy,
        env: LiberoEnv,
        runner: EpisodeRunner,
        replan: int | None,
        look_every: int | None,
    ) -> None:
        self._policy, self._env, self._runner = policy, env, runner
        self._executed = replan or policy.manifest.action.chunk_length
        self._look_every = look_every
        self._hand = Hand(env)
        self._owners = PatchOwners(env, policy.manifest)
        self._since_chunk = 0
        self._held_at: int | None = None
        self._touched: int | None = None
        self._lifted: int | None = None
        self.moments: list[Moment] = []

    @property
    def events(self) -> Events:
        released = None
        if self._lifted is not None and not self._hand.held:
            released = max(self._lifted, (self._held_at or 0) + 1)
        return Events(self._touched, self._lifted, released)

    def on_chunk(self, observation: Observation, prediction: Prediction) -> None:
        self._since_chunk = 0
        self._add(observation, prediction, acted=True)

    def on_step(self) -> None:
        self._since_chunk += 1
        step, hand = self._runner.steps, self._hand
        hand.look()
        if hand.held:
            self._held_at = step
            self._touched = self._touched or step
        if hand.lifted:
            self._lifted = self._lifted or step
        every = self._look_every
        if every and self._since_chunk % every == 0 and self._since_chunk < self._executed:
            self.look()

    def look(self) -> None:
        """Run the pruner for a picture; this does not affect the policy, which has no memory."""
        observation = observe(self._env, self._policy.manifest, self._env.instruction)
        self._add(observation, self._policy.infer(observation), acted=False)

    def _add(self, observation: Observation, prediction: Prediction, acted: bool) -> None:
        manifest = self._policy.manifest
        kept = kept_mask(prediction, len(manifest.cameras), manifest.patches_per_camera)
        roles = self._owners.look()
        images = tuple(observation.images.values())
        self.moments.append(Moment(self._runner.steps, images, kept, roles, acted))
