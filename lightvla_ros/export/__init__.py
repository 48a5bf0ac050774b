"""Turns a model into a policy folder that a robot can run.

- ``buckets``: which sizes the act graph is run in
- ``calibrate``: ``lightvla calibrate``: measures activations for fp8
- ``estimates``: disk, memory and time of an export or a build, estimated before it begins
- ``export``: a folder with weights -> a folder with graphs
- ``import_checkpoint``: a downloaded checkpoint -> a policy folder with weights
- ``observations``: recorded observations for golden answers
- ``onnx_files``: weights -> the two ONNX files and the table of embeddings
- ``published``: a published checkpoint, read strictly and shard by shard
- ``published_config``: the model's settings in the checkpoint's configuration files
- ``published_files``: a single file of the checkpoint; damage gives a one-line error
- ``published_lora``: the checkpoint's LoRA adapter, merged if the weights lack it
- ``published_statistics``: the bounds that the checkpoint normalises states and actions by
- ``shape_proof``: a test that graphs of a model's true shapes build, with a few of its layers
- ``tensorrt``: TensorRT plans of the ONNX files
- ``untrained``: a policy of the real model with random weights
"""
