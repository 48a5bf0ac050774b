"""A robot that publishes, and a doctor that listens to it, both in this process."""

import itertools
from contextlib import contextmanager

import numpy as np
from rclpy.parameter import Parameter
from rig import Robot
from spun_nodes import SpunNodes

from lightvla_ros.contract import load_manifest
from lightvla_ros.nodes.doctor_node import DoctorNode
from lightvla_ros.nodes.doctor_report import Question, judge_live
from lightvla_ros.policy.golden import references

_names = itertools.count()
PICTURES = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)


def noisy(*pictures):
    """Yield the pictures over and over, each with the noise of a real camera."""
    random = np.random.default_rng(0)
    for picture in itertools.cycle(pictures):
        noise = random.integers(-2, 3, picture.shape)
        yield np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)


class DoctorRig(SpunNodes):
    """A robot that a thread spins."""

    def __init__(self, policy_dir, sheet):
        self.namespace = f'/patient{next(_names)}'
        self.policy_dir = policy_dir
        self.sheet = sheet
        self.manifest = load_manifest(policy_dir)
        self.robot = Robot(self.namespace)
        self.robot.pictures = noisy(*PICTURES)
        self.spin(self.robot)

    def examine(self, seconds=1.0, hand=None, **parameters):
        """Listen and judge; return the findings by subject, the worst of each."""
        self.robot.feeding = True
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = DoctorNode(self.manifest, namespace=self.namespace, parameter_overrides=overrides)
        try:
            node.listen(seconds)
            recorded = references(self.policy_dir, self.manifest)
            self.findings = judge_live(node, Question(self.policy_dir, recorded, hand, self.sheet))
        finally:
            node.destroy_node()
        order = {'pass': 0, 'warn': 1, 'fail': 2}
        return {each.subject: each for each in sorted(self.findings, key=lambda f: order[f.level])}


@contextmanager
def doctor_rig(policy_dir, sheet):
    """Build a rig; end it afterwards."""
    built = DoctorRig(policy_dir, sheet)
    try:
        yield built
    finally:
        built.stop_spinning()
        built.robot.destroy_node()
