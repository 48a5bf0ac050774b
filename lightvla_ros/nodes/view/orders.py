"""What the page's buttons do: through the topic and the services that all others use, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.errors import InstructionError
from lightvla_ros.nodes.qos import ORDER_QOS, wait_until_received
from lightvla_ros.nodes.view.server import Order, OrderError
from lightvla_ros.policy.prompt import check_instruction

PATIENCE = 3.0  # s until a service is there, and until it has answered
GLANCE = 0.01


class Orders:
    """Gives a policy node orders as any other node does; each method is called from any thread.

    It is a node of its own, as the policy node's callbacks never wait for an answer.

    :param node: The policy node.
    """

    def __init__(self, node: Node) -> None:
        # without global arguments: a remapped name of the policy node is not for this one
        self._node = Node(
            f'{node.get_name()}_view',
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._pause = node.resolve_service_name('~/pause')
        self._reset = node.resolve_service_name('~/reset')
        self._instruction = node.resolve_topic_name('instruction')
        self._clients: dict[str, Any] = {}
        self._calling = threading.Lock()
        self._instructing = threading.Lock()
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, name='orders', daemon=True)
        self._thread.start()

    def by_name(self) -> dict[str, Order]:
        """Return the orders."""
        return {
            'hold': lambda _: self._set_pause(True),
            'release': lambda _: self._set_pause(False),
            'reset': lambda _: self._call(Trigger, self._reset, Trigger.Request()),
            'instruct': self._instruct,
        }

    def close(self) -> None:
        """Remove the node."""
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()

    def _set_pause(self, paused: bool) -> str:
        return self._call(SetBool, self._pause, SetBool.Request(data=paused))

    def _call(self, kind: type, name: str, request: Any) -> str:
        """Call a service; return its message.

        :raises OrderError: When it refuses, or does not answer.
        """
        with self._calling:  # only to find the client: a second call need not wait for the first
            client = self._clients.get(name) or self._node.create_client(kind, name)
            self._clients[name] = client
        _wait(client.service_is_ready, f'{name} is not there')
        future = client.call_async(request)
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(PATIENCE):
            client.remove_pending_request(future)
            raise OrderError(f'{name} does not answer; use the emergency stop of the robot')
        response = future.result()
        if not response.success:
            raise OrderError(response.message)
        return response.message

    def _instruct(self, content: Mapping[str, Any]) -> str:
        """Publish an instruction, as ``ros2 topic pub --once`` does.

        The publisher is there only meanwhile: an input with two publishers makes the node hold.
        """
        text = content.get('text')
        if not isinstance(text, str):
            raise OrderError('an instruction must be text')
        with self._instructing:
            publisher = self._node.create_publisher(
                String,
                self._instruction,
                ORDER_QOS,
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
            )
            try:
                listens = publisher.get_subscription_count
                _wait(lambda: listens() > 0, f'nobody listens to {self._instruction}')
                publisher.publish(String(data=text))
                wait_until_received(publisher)
            finally:
                self._node.destroy_publisher(publisher)
        try:
            check_instruction(text)
        except InstructionError as error:  # sent all the same: it may hold a word that stops
            raise OrderError(f'sent, but it will be refused: {error}') from None
        return 'sent'


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise OrderError(otherwise)
        time.sleep(GLANCE)
