"""From a model to a policy folder that a robot can run.

- ``buckets``: which sizes the act graph is run in
- ``estimates``: what an export or a build will take, said before it begins
- ``export``: a folder with weights -> a folder with graphs
- ``import_checkpoint``: a downloaded checkpoint -> a policy folder with weights
- ``observations``: recorded observations for golden answers
- ``onnx_files``: weights -> the two ONNX files and the table of embeddings
- ``published``: a published checkpoint, read strictly and by the shard
- ``published_config``: what its configuration files say of the model
- ``published_files``: one of its files, read so that damage ends in one line
- ``published_lora``: LoRA adapters beside it, merged where they are not
- ``published_statistics``: the bounds of its dataset's numbers
- ``shape_proof``: whether graphs of the true shapes build, a few layers at a time
- ``tensorrt``: TensorRT plans of the ONNX files
- ``untrained``: a policy of the real model with random weights
"""
