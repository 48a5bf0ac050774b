"""Pruning methods of others, for comparison on LightVLA's base; in PyTorch alone, never exported.

- ``choices``: one function per method: which patches it keeps
- ``flops``: FLOPs of a chunk, counted as for LightVLA and as the methods' authors count
- ``pruned_model``: the model with such a method instead of its own pruner
"""
