"""Building TensorRT plans.

- ``build``: the two ONNX graphs of a policy -> plans
- ``install``: new plans put into a policy folder, which stays consistent at almost any time
- ``network``: an ONNX graph -> a plan in memory
- ``progress``: progress lines of the builder
"""
