"""Several nodes together: the demo, the benchmark of the node, and episodes through ROS.

- ``bench_delays``: ``lightvla bench delays``: episodes whose observations come late
- ``bench_executor``: ``lightvla bench executor``: from a chunk to a command, and the jitter
- ``bench_node``: ``lightvla bench node``: the time that the policy node adds outside the engine
- ``bench_view``: ``lightvla bench node --view``: what the live page costs the policy node
- ``conductor``: the demo's own node, which starts and films episodes
- ``delay_report``: the figures of ``lightvla bench delays``
- ``measured_node``: a node in this process, with another one that feeds it
- ``processes``: the bridge and the policy or replay node, each in its own process
- ``report``: the demo's options, and the summary that it writes
- ``ros_episodes``: episodes through ROS for ``lightvla eval``
- ``run``: ``lightvla demo``
- ``soak``: ``lightvla bench soak``: whether the nodes grow, or miss anything, in a long run
"""
