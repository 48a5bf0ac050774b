"""The ROS 2 nodes: the only part of the package that knows ROS.

- ``bridge_modes``: how the simulated robot executes chunks: in lockstep, or by the clock
- ``bridge_output``: what leaves the LIBERO bridge
- ``bridge_parameters``: the LIBERO bridge's parameters
- ``clock_watch``: notices that the system's clock was set
- ``conversions``: between messages and our own types
- ``demo``: whole graphs of processes: the demo and its benchmark
- ``graph_watch``: who publishes on the policy node's topics
- ``launch_arguments``: what a user who launches the node can set
- ``libero_bridge_node``: a simulated Panda that looks like a robot to the policy node
- ``lifecycle``: a lifecycle node whose transitions may fail without silence
- ``parameters``: tables that declare, document and validate parameters
- ``picture_reader``: the cameras' messages -> pictures that a policy may act on
- ``policy_inputs``: what comes into the policy node
- ``policy_loading``: loads a policy while the node stays reachable
- ``policy_node``: the policy node: cameras and an instruction in, action chunks out
- ``policy_outputs``: what leaves the policy node
- ``policy_parameters``: the policy node's parameters
- ``policy_runner``: a loaded policy at work: from what came in to the chunks that go out
- ``policy_statistics``: what the policy node counts, and how long each stage took
- ``policy_status``: what the policy node says of itself
- ``qos``: profiles of the topics, and subscriptions that report a mismatch
- ``qos_overrides``: QoS overrides in a parameter file, checked
- ``reference``: the tables of the documentation, printed from the declarations
- ``replay_node``: answers observations from a recording, in a policy's place
- ``sampled_group``: takes the newest of a fast topic at the rate that is used
- ``spin``: runs a node until a signal asks it to end
- ``state_reader``: the robot's state messages -> its state
"""
