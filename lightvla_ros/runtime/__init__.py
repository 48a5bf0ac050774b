"""Whether the robot may move. No ROS.

- ``chunk_schedule``: which step of which chunk acts now
- ``inbox``: what has arrived, and whether it makes an observation
- ``instruction_gate``: when a new instruction becomes the current one, and when that expires
- ``picture_doubts``: signs that a picture does not show what is before the camera
- ``reasons``: why the robot does not move, by code
- ``supervisor``: the rule by which the robot may move, and why not
- ``worker``: the inference thread
"""
