#!/usr/bin/env python3
"""Export a policy for deployment: `lightvla export` under the name of this file."""

import sys

from lightvla_ros.cli import main

if __name__ == '__main__':
    sys.exit(main(['export', *sys.argv[1:]]))
