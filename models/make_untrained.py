#!/usr/bin/env python3
"""Write an untrained policy: `lightvla make-untrained` under the name of this file."""

import sys

from lightvla_ros.cli import main

if __name__ == '__main__':
    sys.exit(main(['make-untrained', *sys.argv[1:]]))
