"""Success rates in LIBERO: ``lightvla eval``, ``compare`` and ``listen``.

- ``chosen_tokens``: an engine whose pruner is overruled
- ``chunk_flops``: FLOPs of an evaluation's chunks
- ``compare``: two results on the same episodes, pair by pair
- ``direct``: episodes without ROS, with the same numbers as through it
- ``episodes``: what is asked for, and what is written down about an episode
- ``evaluate``: an evaluation: what its journal lacks is run, then the result is written
- ``journal``: each episode appended as it ends, so that none is run twice
- ``listen``: another task's instruction in each task's scene
- ``listen_result``: what a policy was told against what it reached for
- ``pool``: worker processes that run episodes
- ``rates``: success rates with their uncertainty
- ``result``: the result: its document, file and table
"""
