"""Real LIBERO on a Panda, and episodes by LIBERO's protocol. No ROS.

- ``arm``: the Panda's end effector: where it is, and P-control
- ``closed_loop``: a policy drives an episode
- ``crisp_arm``: LIBERO's arm under the control law of crisp_controllers
- ``distractor``: one thing more on the table
- ``episode``: an episode by LIBERO's protocol
- ``exchange``: two things of a scene exchange places
- ``expert``: the scripted expert
- ``franka_hand``: the hand, at the speed of a real one
- ``goals``: what else a scene could be asked for
- ``hand``: which object the hand takes hold of
- ``libero_env``: LIBERO's environment: any suite, task and saved initial state
- ``looks``: other colours of things, and other light
- ``motion``: how far and how smoothly the arm moved in an episode
- ``patch_owners``: what each visual token lies on
- ``recording``: the actions of an episode, and how it ended
- ``rendering``: rendering without a screen
- ``saved_state``: a moment of an episode, kept and brought back
- ``segmentation``: what each pixel shows
- ``servo_arm``: LIBERO's arm under MoveIt Servo's rules
- ``torque_arm``: LIBERO's arm with joint torques, for controllers that replace robosuite's
"""
