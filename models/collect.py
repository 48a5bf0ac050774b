#!/usr/bin/env python3
"""Collect demonstrations in LIBERO, for models/train.py."""

import sys

from lightvla_ros.cli.collect import main

if __name__ == '__main__':
    sys.exit(main())
