"""``python -m lightvla_ros.cli``: the command `lightvla` where it is not installed."""

import sys

from lightvla_ros.cli import main

if __name__ == '__main__':
    sys.exit(main())
