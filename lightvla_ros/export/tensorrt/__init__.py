"""Building TensorRT plans.

- ``build``: the two ONNX graphs of a policy -> plans
- ``install``: new plans put into a policy folder, so that it is whole at nearly any time
- ``network``: an ONNX graph -> a plan in memory
- ``progress``: how far the builder is, in a line now and then
"""
