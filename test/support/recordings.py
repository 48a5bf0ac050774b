"""A recording of a policy node with a real engine."""

from pathlib import Path

from rig import rig

from lightvla_ros.policy.policy import Policy


def recorded_run(folder, policy, chunks=30, **parameters):
    """Run a node until it has given some chunks; return the folder of its recording."""
    parameters = {'record': True, 'record_folder': str(folder), **parameters}
    patient = {'max_image_age': 3.0, 'max_silence': 3.0, 'replan_steps': 1}
    with rig(policy, load=Policy.load, **patient, **parameters) as r:
        r.run()
        r.until(lambda: len(r.robot.moves()) >= chunks, f'{chunks} chunks', timeout=60.0)
        r.robot.feeding = False
        r.until(r.robot.holds, 'the hold')
    [session] = Path(folder).iterdir()
    return session
