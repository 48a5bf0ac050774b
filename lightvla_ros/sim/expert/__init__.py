"""The scripted expert of LIBERO: grasps, the script, and the memoryless form of it."""
