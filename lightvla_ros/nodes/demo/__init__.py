"""Whole graphs of processes: the demo, the benchmark of the node, and episodes through ROS.

- ``bench_node``: ``lightvla bench node``: what the policy node adds outside the engine
- ``conductor``: the demo's own node, which starts and films episodes
- ``processes``: the bridge and the node that answers it, in processes of their own
- ``report``: the demo's options, and the summary that it leaves
- ``ros_episodes``: episodes through ROS for ``lightvla eval``
- ``run``: ``lightvla demo``
"""
