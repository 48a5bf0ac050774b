#!/usr/bin/env python3
"""Export a policy for deployment: two ONNX graphs, and engines for the GPU at hand."""

import sys

from lightvla_ros.cli.export import main

if __name__ == '__main__':
    sys.exit(main())
