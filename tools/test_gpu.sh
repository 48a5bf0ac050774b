#!/usr/bin/env bash
# All that needs a GPU of NVIDIA: tests, verification of the bundled policy, and the bench of the
# 7B's shapes. It needs no network and no ROS, only a Python with PyTorch and CUDA, the packages of
# setup.py, safetensors, matplotlib and pytest.
#
#   PYTHON=python3 make test-gpu        meant to take 5 minutes at most; results in results/gpu (or GPU_OUT)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
out=${GPU_OUT:-results/gpu}
name=$("$python" -c 'import re, torch
assert torch.cuda.is_available(), "PyTorch finds no GPU of NVIDIA"
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))')
lightvla() { "$python" -m lightvla_ros.cli "$@"; }
mkdir -p "$out"
copy=$(mktemp -d)/policy
trap 'rm -rf "$(dirname "$copy")"' EXIT

"$python" -m pytest test/gpu -s
cp -r models/libero_tiny "$copy"
{
  lightvla verify "$copy" --engine torch-cuda --precision fp32
  # a policy may be refused in 16 bits, which is a result; that verify comes to one is what counts
  said=$(lightvla verify "$copy" --engine torch-cuda --precision fp16) || true
  echo "$said"
  grep -qE 'torch-cuda fp16: (passed|FAILED)' <<< "$said"
  if "$python" -c 'import onnxruntime as o; exit("CUDAExecutionProvider" not in o.get_available_providers())' 2>/dev/null; then
    lightvla verify "$copy" --provider CUDAExecutionProvider
  fi
} | tee "$out/$name.verify.txt"
lightvla bench gpu --precision bf16 fp8 --out "$out/$name.json"
# the second start takes the compiled blocks from the cache; its times of preparation are what counts
lightvla bench gpu --precision bf16 --rounds 20 --out "$out/$name.second-start.json"
