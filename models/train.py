#!/usr/bin/env python3
"""Train a policy: demonstrations and a configuration in, a policy folder out."""

import sys

from lightvla_ros.cli.train import main

if __name__ == '__main__':
    sys.exit(main())
