"""Two machines on one: two network namespaces with a cable between them, as root on Linux."""

import os
import subprocess
import time
from contextlib import contextmanager

ADDRESSES = {'robot': '10.255.37.1', 'remote': '10.255.37.2'}


class TwoMachines:
    """The namespaces ``robot`` and ``remote``, and the processes in them."""

    def __init__(self):
        self._names = {side: f'lightvla-{os.getpid()}-{side}' for side in ADDRESSES}
        self._processes = []

    def connect(self):
        """Make both machines, and plug the cable in.

        :raises OSError, subprocess.CalledProcessError: Where that is not allowed.
        """
        for name in self._names.values():
            _ip('netns', 'add', name)
        ends = [f'{side}0' for side in ADDRESSES]
        names = [('netns', name) for name in self._names.values()]
        _ip('link', 'add', ends[0], *names[0], 'type', 'veth', 'peer', 'name', ends[1], *names[1])
        for side, address in ADDRESSES.items():
            self._inside(side, 'addr', 'add', f'{address}/24', 'dev', f'{side}0')
            self._inside(side, 'link', 'set', 'lo', 'up')
            self._inside(side, 'link', 'set', f'{side}0', 'up')
        self._wait_for_links()

    def start(self, side, *command, **options):
        """Start a process with the settings of docs/how-to/remote-inference.md."""
        (peer,) = (address for other, address in ADDRESSES.items() if other != side)
        settings = {
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'ROS_STATIC_PEERS': peer,
            'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4',  # these two share memory, real machines do not
        }
        process = subprocess.Popen(
            ['ip', 'netns', 'exec', self._names[side], *command],
            env=os.environ | settings,
            text=True,
            **options,
        )
        self._processes.append(process)
        return process

    def plug(self, plugged):
        """Plug the cable in, or pull it out."""
        self._inside('robot', 'link', 'set', 'robot0', 'up' if plugged else 'down')

    def sent(self, side):
        """Return how much a machine has sent over the cable [bytes], with all headers."""
        return int(self._read(side, 'statistics/tx_bytes'))

    def close(self):
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
        for name in self._names.values():
            subprocess.run(['ip', 'netns', 'del', name], check=False, capture_output=True)

    def _wait_for_links(self):
        # Fast DDS never uses an interface that was not running when a node started
        deadline = time.monotonic() + 10.0
        while any(self._read(side, 'operstate').strip() != 'up' for side in ADDRESSES):
            if time.monotonic() > deadline:
                raise OSError('the cable between the network namespaces does not come up')
            time.sleep(0.05)

    def _read(self, side, name):
        command = [
            'ip',
            'netns',
            'exec',
            self._names[side],
            'cat',
            f'/sys/class/net/{side}0/{name}',
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _inside(self, side, *arguments):
        _ip('-n', self._names[side], *arguments)


def _ip(*arguments):
    subprocess.run(['ip', *arguments], check=True, capture_output=True)


@contextmanager
def two_machines():
    """Two machines with a cable, which are gone after the block."""
    machines = TwoMachines()
    try:
        machines.connect()
        yield machines
    finally:
        machines.close()
