"""The ROS 2 nodes: the only part of the package that imports ROS.

- ``bridge_modes``: how the simulated robot executes chunks: in lockstep, or by the clock
- ``bridge_output``: the LIBERO bridge's publishers
- ``bridge_parameters``: the LIBERO bridge's parameters
- ``clock_watch``: notices that the system's clock was set
- ``conversions``: conversions between messages and the package's own types
- ``demo``: whole graphs of processes: the demo and its benchmark
- ``graph_watch``: who publishes on the policy node's topics
- ``launch_arguments``: the launch arguments, for messages that name them
- ``libero_bridge_node``: a simulated Panda that looks like a robot to the policy node
- ``lifecycle``: a lifecycle node that logs every failed transition
- ``parameters``: tables that declare, document and validate parameters
- ``picture_reader``: the cameras' messages -> pictures that a policy may act on
- ``policy_inputs``: the policy node's subscriptions
- ``policy_loading``: loads a policy while the node stays reachable
- ``policy_node``: the policy node: cameras and an instruction in, action chunks out
- ``policy_outputs``: the policy node's publishers of chunks and kept patches
- ``policy_parameters``: the policy node's parameters
- ``policy_runner``: runs a loaded policy, from stored inputs to published chunks
- ``policy_statistics``: the policy node's counts, and the duration of each stage
- ``policy_status``: the policy node's status, log lines and diagnostics
- ``qos``: profiles of the topics, and subscriptions that report a mismatch
- ``qos_overrides``: QoS overrides in a parameter file, checked
- ``reference``: the documentation's tables, generated from the declarations
- ``replay_node``: answers observations from a recording instead of a policy
- ``sampled_group``: takes the newest message of a fast topic at a lower rate
- ``spin``: runs a node until a signal ends it
- ``state_reader``: the robot's state messages -> its state
"""
