"""A robot whose policy runs elsewhere: cameras, state, user and chunk executor, as a process.

It prints a line of JSON whenever what it hears changes: state and kind of reason of ``policy`` and
of ``executor``. It ends when its input ends.
"""

import json
import select
import sys
import time
from types import SimpleNamespace

import rclpy
from controlled_arm import controlled
from rig import Robot
from spun_nodes import SpunNodes

NAMESPACE = '/far'
SAY_PERIOD = 0.5  # s; the same instruction again changes nothing


class _Sensors(SpunNodes):
    def __init__(self, robot):
        self.spin(robot)


def main():
    rclpy.init()
    robot = Robot(NAMESPACE)
    sensors = _Sensors(robot)
    with controlled(SimpleNamespace(namespace=NAMESPACE, robot=robot)) as arm:
        robot.feeding = True
        last, said = None, 0.0
        while not select.select([sys.stdin], [], [], 0.01)[0]:
            if time.monotonic() - said > SAY_PERIOD:
                robot.say('pick up the milk')
                said = time.monotonic()
            heard = {'policy': robot.state, 'executor': arm.state}
            if heard != last:
                print(json.dumps(heard), flush=True)
                last = heard
    sensors.stop_spinning()
    robot.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
