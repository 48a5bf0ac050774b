"""Checks before the first motion, for `lightvla doctor`. Each returns findings; none knows ROS.

- ``findings``: what a check found: pass, warn or fail, and what to do
- ``installation``: libraries, their versions, and GPUs
- ``picture_sheet``: what arrives beside what the policy was trained on, as a PNG
- ``pictures``: the cameras' pictures against the folder's recorded ones
- ``policy_folder``: a policy folder and the engine that will run it
- ``robot_state``: pose and fingers against the training data
- ``streams``: rate, jitter, age and clocks of messages
"""
