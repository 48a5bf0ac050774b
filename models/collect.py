#!/usr/bin/env python3
"""Collect demonstrations in LIBERO: `lightvla collect` under the name of this file."""

import sys

from lightvla_ros.cli import main

if __name__ == '__main__':
    sys.exit(main(['collect', *sys.argv[1:]]))
