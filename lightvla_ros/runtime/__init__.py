"""Decides whether the robot may move. Knows no ROS.

- ``chunk_schedule``: which step of which chunk acts now
- ``inbox``: keeps the newest messages and pairs them into observations
- ``instruction_gate``: when a new instruction becomes the current one, and when it expires
- ``picture_doubts``: signs that a picture does not show the scene before the camera
- ``reasons``: why the robot does not move, by code
- ``supervisor``: the rule by which the robot may move, and why not
- ``worker``: the inference thread
"""
