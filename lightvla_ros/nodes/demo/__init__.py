"""Whole graphs of processes: the demo, the node's benchmark, episodes through ROS."""
