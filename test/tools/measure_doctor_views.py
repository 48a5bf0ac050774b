"""Counts which views of LIBERO `lightvla doctor` judges wrongly, for docs/how-to/doctor.md.

    python test/tools/measure_doctor_views.py

Every task of a suite from two saved initial states, at the start and thrice while the expert (Goal:
the start alone) works; each view as it is, and wrong in six ways. Takes half an hour on two cores.
"""

from collections import Counter

import numpy as np

from lightvla_ros.contract import load_manifest
from lightvla_ros.contract.libero import CAMERAS
from lightvla_ros.contract.suites import EXPERT_SUITES
from lightvla_ros.files import BUNDLED_POLICY, resource
from lightvla_ros.policy.golden import references
from lightvla_ros.policy.likeness import doubt, likeness
from lightvla_ros.sim.expert.script import Expert
from lightvla_ros.sim.libero_env import LiberoEnv

# suite, render setting, tasks
RUNS = (
    ('libero_object', 'cheap', range(10)),
    ('libero_spatial', 'cheap', range(10)),
    ('libero_object', 'standard', (0, 3, 6)),
    ('libero_spatial', 'standard', (0, 3, 6)),
    ('libero_goal', 'standard', (0, 3, 6)),
)
STATES, MOMENTS = (0, 17), (0, 30, 60, 90)
WRONG = {
    'as it is': lambda image: image,
    'upside down': lambda image: image[::-1, ::-1],
    'bottom-up': lambda image: image[::-1],
    'mirrored': lambda image: image[:, ::-1],
    'turned right': lambda image: np.rot90(image, -1),
    'turned left': lambda image: np.rot90(image, 1),
}


def views(suite, render, tasks):
    """Yield whether it is the start, and the pictures by camera."""
    for task in tasks:
        env = LiberoEnv(suite, task, 128, render)
        for state in STATES:
            env.reset(state, 0)
            expert = Expert(env) if suite in EXPERT_SUITES else None
            for step in range(MOMENTS[-1] + 1):
                if step in MOMENTS:
                    yield step == 0, env.render()
                if expert is None:
                    break
                env.step(expert.act())
        env.close()


def main():
    """Print, for starts and later moments, how many views of each kind were doubted."""
    folder = resource(BUNDLED_POLICY)
    recorded = references(folder, load_manifest(folder)).pictures
    counts = Counter()
    for run in RUNS:
        for start, pictures in views(*run):
            when = 'start' if start else 'later'
            for camera in CAMERAS:
                other = next(name for name in CAMERAS if name != camera)
                shown = {name: turn(pictures[camera]) for name, turn in WRONG.items()}
                for name, image in (shown | {'exchanged': pictures[other]}).items():
                    image = np.ascontiguousarray(image)[None]
                    scores = {each: likeness(image, recorded[each]) for each in CAMERAS}
                    counts[when, camera, name, 'all'] += 1
                    counts[when, camera, name, 'doubted'] += bool(doubt(camera, scores))
    for (when, camera, name, what), count in sorted(counts.items()):
        if what == 'all':
            print(f'{when} {camera} {name}: {counts[when, camera, name, "doubted"]} of {count}')


if __name__ == '__main__':
    main()
