"""Measure what two cameras send over a network, raw and as JPEG, with all headers.

    sudo ROS_DOMAIN_ID=57 .venv/bin/python test/tools/measure_network.py

The robot and the computer with the policy node are two network namespaces with a cable between them
(``two_machines.py``), whose counters are read. The pictures are golden ones of the bundled policy
side by side, because enlarged ones would compress too well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'support'))

import numpy as np  # noqa: E402
import rclpy  # noqa: E402
import simplejpeg  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from two_machines import two_machines  # noqa: E402

from lightvla_ros.nodes.conversions import image_to_message, time_message  # noqa: E402

BUNDLED = Path(__file__).parents[2] / 'models/libero_tiny'
CAMERAS = ('third_person', 'wrist')
SIZES, RATE, SECONDS = ((256, 256), (640, 480)), 20.0, 10.0
POLICY = ('-m', 'lightvla_ros.nodes.policy_node', '--ros-args', '-p', f'policy:={BUNDLED}')


def main() -> None:
    """Print a line for each size and transport."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--publish', nargs=3, help='the cameras alone: transport, width, height')
    parsed = parser.parse_args()
    if parsed.publish:
        publish(parsed.publish[0], int(parsed.publish[1]), int(parsed.publish[2]))
        return
    for size in SIZES:
        for transport in ('raw', 'compressed'):
            there, back = measure(transport, size)
            print(f'{size[0]} x {size[1]} {transport:10} {there:6.2f} MB/s, {back:.3f} MB/s back')


def measure(transport: str, size: tuple[int, int]) -> tuple[float, float]:
    """Return what the robot and the policy's computer send [MB/s]."""
    with two_machines() as machines:
        quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
        option = f'image_transport:={transport}'
        machines.start('remote', sys.executable, *POLICY, '-p', option, **quiet)
        publishing = (__file__, '--publish', transport, *map(str, size))
        cameras = machines.start('robot', sys.executable, *publishing, stdout=subprocess.PIPE)
        with cameras.stdout as said:
            next(said)  # both cameras are heard
            time.sleep(1.0)
            before = [machines.sent(side) for side in ('robot', 'remote')]
            started = time.monotonic()
            time.sleep(SECONDS)
            after = [machines.sent(side) for side in ('robot', 'remote')]
            seconds = time.monotonic() - started
    return tuple((b - a) / seconds / 1e6 for a, b in zip(before, after, strict=True))


def publish(transport: str, width: int, height: int) -> None:
    """Publish both cameras until the process is killed; say when somebody listens to both."""
    golden = np.load(BUNDLED / 'golden.npz')['images']  # [N, cameras, H, W, 3]
    messages = {
        name: cycle([_message(transport, p) for p in _tiled(golden[:, slot], width, height)])
        for slot, name in enumerate(CAMERAS)
    }
    rclpy.init()
    node = rclpy.create_node('cameras')
    kind, ending = (Image, '') if transport == 'raw' else (CompressedImage, '/compressed')
    publishers = {name: node.create_publisher(kind, f'{name}/image{ending}', 1) for name in CAMERAS}
    heard, due = False, time.monotonic()
    while True:
        stamp = time_message(node.get_clock().now().nanoseconds)
        for name, publisher in publishers.items():
            message = next(messages[name])
            message.header.stamp = stamp
            publisher.publish(message)
        if not heard and all(each.get_subscription_count() for each in publishers.values()):
            heard = True
            print('heard', flush=True)
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))


def _tiled(pictures: np.ndarray, width: int, height: int) -> np.ndarray:
    times = (-(-height // pictures.shape[1]), -(-width // pictures.shape[2]))
    return np.ascontiguousarray(np.tile(pictures, (1, *times, 1))[:, :height, :width])


def _message(transport: str, picture: np.ndarray) -> Image | CompressedImage:
    if transport == 'raw':
        return image_to_message(picture, 0, 'camera')
    jpeg = simplejpeg.encode_jpeg(picture, quality=95)  # compressed_image_transport's default
    return CompressedImage(format='rgb8; jpeg compressed bgr8', data=jpeg)


if __name__ == '__main__':
    main()
