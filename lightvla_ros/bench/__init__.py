"""``lightvla bench`` and ``lightvla plan``: the time of a chunk, measured and at best.

- ``chunk_runner``: an engine that is asked for chunks of a given number of visual tokens, and timed
- ``engines``: a policy folder's engines: pruned against not, and against eager PyTorch
- ``gpu``: the model on a GPU, against the measured limits of the same GPU
- ``gpu_plan``: how fast a chunk can be at best on a GPU, and which engine that calls for
- ``gpu_report``: that measurement as a table and as a plot
- ``gpus``: GPUs and the peaks of their spec sheets
- ``layers``: the language model of a preset in its true shapes, with random weights
- ``load_watch``: whether the machine had anything else to do meanwhile
- ``methods``: engines on the chunks of recorded episodes, in turn
- ``report``: what was measured, as text
- ``timing``: measurements in turns, and the rate of matrix products as a yardstick
"""
