"""Measure the peak memory of `lightvla import` on a generated folder of at least 2 GB.

    .venv/bin/python test/tools/measure_import.py --work /tmp/import_measurement

It writes a folder in the published format with wide layers of random numbers, imports it in a
process of its own, and prints that process's peak memory beside the size of the model.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'support'))

from published_folder import tiny_published_config, write_published  # noqa: E402


def main() -> None:
    """Generate, import, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work', type=Path, required=True, help='scratch folder; emptied after')
    parser.add_argument('--layers', type=int, default=20)
    parsed = parser.parse_args()
    parsed.work.mkdir(parents=True)
    source, policy = parsed.work / 'published', parsed.work / 'policy'
    config = tiny_published_config(width=2048, heads=16, mlp_width=5504, layers=parsed.layers)
    write_published(source, replace(config, head_width=1024, projector_width=1024), shards=3)
    shards = sum(path.stat().st_size for path in source.glob('model-*'))
    parts = sum(path.stat().st_size for path in source.glob('*.pt'))
    started = time.perf_counter()
    # VmHWM is of the process itself; the peak in rusage would be inherited from this one
    program = (
        'import sys; from lightvla_ros.cli import main; code = main(sys.argv[1:]);'
        'print([line for line in open("/proc/self/status") if "VmHWM" in line][0].split()[1]);'
        'sys.exit(code)'
    )
    command = [
        sys.executable,
        '-c',
        program,
        'import',
        '--checkpoint',
        str(source),
        '--out',
        str(policy),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - started
    peak = int(output.split()[-1]) * 1024
    model = shards + parts
    print(f'published folder: {model / 1e9:.2f} GB; imported in {seconds:.1f} s')
    print(f'peak memory of the import: {peak / 1e9:.2f} GB = {peak / model:.2f} x the model')
    shutil.rmtree(parsed.work)


if __name__ == '__main__':
    main()
