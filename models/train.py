#!/usr/bin/env python3
"""Train a policy: `lightvla train` under the name of this file."""

import sys

from lightvla_ros.cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
