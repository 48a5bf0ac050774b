"""Real LIBERO on a Panda, its scripted expert, and episodes by LIBERO's protocol. No ROS here."""
