"""Measure an export of the true 7B from a checkpoint in the published format, random weights.

    .venv/bin/python test/tools/measure_7b_export.py --work /tmp/seven

It writes a folder of 15 GB in the published format, exports it in a process of its own, and prints
that process's time and peak memory, and the disk that the result takes. Needs about 50 GB of disk.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'test' / 'support'))

from published_folder import write_published  # noqa: E402

from lightvla_ros.vla.config import openvla_oft_7b  # noqa: E402


def main() -> None:
    """Generate, export, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work', type=Path, required=True, help='scratch folder; emptied after')
    parser.add_argument('--precision', default='fp16')
    parser.add_argument('--keep', action='store_true', help='leave the exported policy there')
    parsed = parser.parse_args()
    parsed.work.mkdir(parents=True, exist_ok=True)
    source, out = parsed.work / 'published', parsed.work / 'policy'
    if not source.exists():
        write_published(source, openvla_oft_7b(), shards=8)
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable, str(ROOT / 'models' / 'export_trt.py'), '--checkpoint', str(source),
        '--out', str(out), '--target', 'onnx', '--precision', parsed.precision, '--no-weights',
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    print(f'exported in {seconds:.0f} s; peak memory {peak / 1e9:.1f} GB')
    for name, size in sizes.items():
        print(f'  {name:24} {size / 1e9:8.3f} GB')
    print(f'  {"in all":24} {sum(sizes.values()) / 1e9:8.3f} GB')
    if not parsed.keep:
        shutil.rmtree(parsed.work)


if __name__ == '__main__':
    main()
