"""Quality of service that several topics share."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# Best effort matches any publisher; depth 1, because only the newest matters. No deadline and no
# liveliness: asking for one disconnects ordinary cameras (``docs/explanation/timing.md``).
SENSOR_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# The last message also reaches who subscribes later.
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
