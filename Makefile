# make demo and make test do all their own set-up. PYTHON=python3.12 picks another Python.
SHELL := /bin/bash
VENV := .venv/bin
# only when the machine itself stood still; see test/ros/conftest.py
AGAIN = --reruns 2 --only-rerun MachineStoodStill
SIM = OMP_NUM_THREADS=1 $(VENV)/python -m pytest test/sim -n 2 --dist loadfile
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
ifdef ROS_DISTRO
# With a sourced ROS our messages lie in .venv, and their libraries must be found there. (The PyPI
# wheels see to that by themselves.)
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib:$(LD_LIBRARY_PATH)
export AMENT_PREFIX_PATH := $(CURDIR)/.venv:$(AMENT_PREFIX_PATH)
endif

.PHONY: help setup setup-train demo test lint unit ros ros-kilted sim colcon wheel bench soak test-gpu docs clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup:  ## everything that is needed, into .venv
	@tools/setup.sh

setup-train:  ## PyTorch as well, into .venv
	@tools/setup.sh train

demo: setup  ## the closed loop in LIBERO through real ROS 2; leaves out/demo
	$(VENV)/lightvla demo

test: setup-train lint docs unit  ## all: lint, site, unit, ROS, closed loop in LIBERO, colcon build, wheel
	$(SIM)
	$(VENV)/python -m pytest test $(AGAIN) --ignore test/unit --ignore test/sim
	tools/colcon_check.sh
	tools/wheel_check.sh

lint: setup  ## style, and the types of the public face and of what uses TensorRT
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy

unit: setup-train  ## tests without ROS, on two cores
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest test/unit -n 2 --dist loadfile

ros: setup  ## tests with real rclpy
	$(VENV)/python -m pytest test/ros $(AGAIN)

ros-kilted: setup-train  ## the same on the wheels of Kilted, in build/kilted; not a part of `make test`
	tools/ros_kilted.sh

sim: setup  ## tests with real LIBERO, on two cores
	$(SIM)

colcon: setup  ## a plain colcon build, imported
	tools/colcon_check.sh

wheel: setup  ## the wheel, installed into an empty environment and run elsewhere
	tools/wheel_check.sh

bench: setup  ## what the node adds outside the engine
	$(VENV)/lightvla bench node

soak: setup  ## policy, executor and simulated arm for an hour; what grows or is missed
	$(VENV)/lightvla bench soak

test-gpu:  ## all that needs a GPU of NVIDIA; no set-up: PYTHON is one with PyTorch and CUDA
	tools/test_gpu.sh

docs: setup  ## write the generated tables, and build the site into build/docs
	$(VENV)/lightvla reference --update docs/reference/nodes.md
	$(VENV)/sphinx-build -q -W --keep-going docs build/docs

clean:  ## remove all that was made
	rm -rf .venv build out
