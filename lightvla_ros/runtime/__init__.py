"""Decides whether the robot may move. Knows no ROS.

- ``chunk_executor``: a stream of chunks -> commanded poses and gripper
- ``chunk_schedule``: which step of which chunk acts now
- ``chunk_timeline``: the target pose at a time, from chunks
- ``expected_path``: the poses that an arm is expected to reach by a chunk
- ``gripper_switch``: when to open and to close the gripper
- ``inbox``: keeps the newest messages and pairs them into observations
- ``instruction_gate``: when a new instruction becomes the current one, and when it expires
- ``own_robot``: the launch and parameter files of a robot, from its contract
- ``picture_doubts``: signs that a picture does not show the scene before the camera
- ``reasons``: why the robot does not move, by code
- ``rolled_state``: the state when a chunk will start to act
- ``safety_filter``: bounds every commanded pose, and stops
- ``safety_limits``: its bounds, with units and ranges
- ``seams``: the jumps of the target between one chunk and the next
- ``stopping_plan``: motion that can always come to rest within its bounds
- ``supervisor``: the rule by which the robot may move, and why not
- ``worker``: the inference thread
- ``workspace``: where the end effector may be
"""
