"""Pruning methods of others, for comparison on one base, in PyTorch.

Of these, only those of ``vla/training_free.py`` can be exported.

- ``action_reuse``: when FlashVLA gives the last chunk again
- ``choices``: one function per method: which patches it keeps
- ``flops``: FLOPs of a chunk, counted as for LightVLA and as the methods' authors count
- ``memory``: what the methods keep between the chunks of an episode
- ``pictures``: what the towers saw
- ``pruned_model``: the model with such a method instead of its own pruner
- ``recycling``: SparseVLM with several layers that prune, and recycled tokens
- ``sequence``: the decoder's input with all patches, and a layer's attention
- ``sp_vla``: SP-VLA's choice, by contours and by SigLIP's attention
- ``vla_cache``: VLA-Cache, which prunes nothing and computes a part of the patches
"""
