"""Several nodes together: the demo, the benchmark of the node, and episodes through ROS.

- ``bench_node``: ``lightvla bench node``: the time that the policy node adds outside the engine
- ``conductor``: the demo's own node, which starts and films episodes
- ``processes``: the bridge and the policy or replay node, each in its own process
- ``report``: the demo's options, and the summary that it writes
- ``ros_episodes``: episodes through ROS for ``lightvla eval``
- ``run``: ``lightvla demo``
"""
