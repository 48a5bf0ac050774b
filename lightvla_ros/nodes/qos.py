"""Quality of service: the profiles of the topics, and subscriptions that report a mismatch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from rclpy.callback_groups import CallbackGroup
from rclpy.duration import Duration
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

# Best effort matches any publisher; depth 1, because only the newest message matters. No deadline
# and no liveliness: requesting one disconnects ordinary cameras (``docs/explanation/timing.md``).
SENSOR_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# The last message also reaches subscribers that join later.
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Volatile, as `ros2 topic pub` publishes: a robot that restarts must not find an old order.
ORDER_QOS = QoSProfile(depth=1)
RECEIPT = Duration(seconds=0.5)  # longest wait for the receipt of the last messages


def subscribe(
    node: Node,
    kind: type,
    topic: str,
    callback: Callable,
    qos: QoSProfile,
    group: CallbackGroup | None = None,
) -> Subscription:
    """Subscribe with QoS that YAML can override; log when a publisher's QoS does not match."""
    name = node.resolve_topic_name(topic)

    def incompatible(event: QoSRequestedIncompatibleQoSInfo) -> None:
        node.get_logger().error(
            f'a publisher of {name} offers an incompatible QoS '
            f'({event.last_policy_kind}); no message will come from it'
        )

    return node.create_subscription(
        kind,
        topic,
        callback,
        qos,
        callback_group=group,
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )


def wait_until_received(publisher: Publisher) -> None:
    """Wait, but not for long, until all subscribers have what was published.

    A process that ends takes with it the messages that are still under way: under load, a robot did
    not get the last hold.
    """
    with suppress(RuntimeError):  # of a middleware that cannot tell
        publisher.wait_for_all_acked(RECEIPT)
