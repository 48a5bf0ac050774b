"""Success rates in LIBERO (``lightvla eval``, ``compare``, ``listen``), and figures of the alarm.

- ``alarm``: how well the alarm tells planted faults and failing episodes
- ``chosen_tokens``: an engine that keeps other tokens than its pruner
- ``chunk_flops``: FLOPs of an evaluation's chunks
- ``compare``: two results on the same episodes, pair by pair
- ``compared_engine``: the PyTorch engine with a pruning method of others
- ``direct``: episodes without ROS, with the same numbers as through ROS
- ``efficiency``: what two policies spend on the same solved episodes
- ``engine_episodes``: episodes on the engine that will be deployed, for ``lightvla verify``
- ``engine_recording``: a recording's observations on that engine, for ``lightvla verify``
- ``episodes``: options of an evaluation, and the record of an episode
- ``evaluate``: runs the episodes that the journal lacks, then writes the result
- ``journal``: file to which each finished episode is appended, so that none is run twice
- ``listen``: episodes with another task's instruction in each task's scene
- ``listen_result``: figures and tables of instructed against reached objects
- ``planted_faults``: faults of pictures and instructions, planted into observations
- ``pool``: worker processes that run episodes
- ``ranking``: area under the ROC curve with its uncertainty
- ``rates``: success rates with their uncertainty
- ``result``: the result: its document, file and table
- ``tables``: a table of evaluations: its rows, and the finished table
"""
