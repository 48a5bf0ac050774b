"""Observation in, chunk out: pictures, prompt, state, engine calls, actions. No ROS, no PyTorch."""
