"""The model: LightVLA on OpenVLA-OFT, in PyTorch. Needs the extra ``train``; a robot does not.

- ``ablation``: a model that keeps other tokens than its pruner chose
- ``compared``: pruning methods of others, for comparison
- ``config``: the model's configuration, and two presets
- ``flops``: ``lightvla flops``: counts the FLOPs of a chunk
- ``fp8``: the decoder's products in 8-bit floating point
- ``fused``: decoder layers with fewer, larger products
- ``halves``: the model's two halves in the form that engines take
- ``language``: LLaMA's decoder blocks without a causal mask
- ``layers``: norms and attention of all parts; head and proprio projector
- ``learned_queries``: LightVLA*: learnable queries
- ``model``: the whole model
- ``pruner``: each query picks the token that it scores highest; the union is kept
- ``training_free``: pruning rules for models that were trained with every token
- ``vision``: the two vision towers and their fusion
- ``weights``: the model of a policy folder, with its weights
- ``word_tokenizer``: one token per word, for policies trained from scratch
"""
