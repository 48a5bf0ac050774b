#!/usr/bin/env bash
# Compares what our source uses of TensorRT with the Python bindings of the releases that are named:
#
#   test/tools/tensorrt_bindings.sh cu12-bindings==10.3.0 cu13-bindings==10.13.3.9
#
# PyPI has the bindings, but not the libraries that they link. Empty libraries take their place: to
# tell its classes and signatures, the module calls none of their functions.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf 'void *%s;\n' createInferBuilder_INTERNAL createInferRefitter_INTERNAL \
  createInferRuntime_INTERNAL createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL \
  getBuilderPluginRegistry getPluginRegistry getNvOnnxParserVersion initLibNvInferPlugins \
  >"$work/empty.c"
for release in "$@"; do
  bindings=$work/$release
  "$python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: \
    --target "$bindings" "tensorrt-$release"
  major=${release#*==}
  major=${major%%.*}
  for library in nvinfer nvinfer_plugin nvonnxparser; do
    cc -shared -o "$bindings/lib$library.so.$major" "$work/empty.c"
  done
  mkdir "$bindings/tensorrt"
  echo 'from tensorrt_bindings import *; from tensorrt_bindings import __version__' \
    >"$bindings/tensorrt/__init__.py"
  export LD_LIBRARY_PATH=$bindings PYTHONPATH=$bindings:$PWD
  "$python" -c 'import tensorrt; print("TensorRT", tensorrt.__version__)'
  "$python" -m pytest -q test/unit/test_tensorrt_api.py
done
