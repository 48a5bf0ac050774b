"""When may the robot move: inbox, reasons, worker, doubts about pictures. No ROS in it."""
