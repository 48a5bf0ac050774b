"""The engine on TensorRT.

- ``api``: the part of TensorRT's API that is used, as a type
- ``cuda``: CUDA with every return code checked
- ``engine``: the engine
- ``machine``: the machine that a plan depends on, and TensorRT's log
- ``memory``: the position of each tensor in GPU memory
- ``plan``: loads and checks a plan file, and creates its execution contexts
"""
