"""The engine on TensorRT.

- ``cuda``: CUDA with every return code checked
- ``engine``: the engine
- ``machine``: what a plan is tied to, and TensorRT's log
- ``memory``: where each tensor lies in GPU memory
- ``plan``: a plan file, loaded and checked, and its execution contexts
"""
