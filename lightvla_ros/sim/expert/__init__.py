"""The scripted pick-and-place expert.

- ``grasps``: where to grasp, and at which heights to move
- ``memoryless``: what is right to do in a state, whatever came before
- ``script``: waypoints, and P-control to reach them
"""
