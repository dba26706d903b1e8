"""How topics are made: their quality of service, which parameters can override, and what all views share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

if TYPE_CHECKING:
    from radan_ros.ros.answer import Answer


def sensor() -> QoSProfile:
    """For images and CameraInfo. Newest frame wins: a queue would only make the answer older."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def reliable(depth: int = 10) -> QoSProfile:
    """For what is published of each image."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """For what is published once; late subscribers get it."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Host(Protocol):
    """What publishes for the outputs, as far as they use it: a node, or what writes into a bag."""

    @property
    def publishers(self) -> Iterable[Any]:
        """All publishers that were made and not destroyed."""
        ...

    def create_publisher(self, msg_type: Any, topic: str, qos_profile: Any, /, **options: Any) -> Any:
        """A publisher, which has `publish`, `get_subscription_count`, `topic_name` and `wait_for_all_acked`."""
        ...

    def destroy_publisher(self, publisher: Any) -> bool:
        """Remove a publisher."""
        ...

    def count_publishers(self, topic_name: str) -> int:
        """How many publish a topic."""
        ...

    def get_clock(self) -> Any:
        """A clock, for what is about no image."""
        ...

    def get_logger(self) -> Any:
        """Where to complain."""
        ...


def publisher(node: Host, kind: Any, topic: str, profile: QoSProfile) -> Any:
    """A publisher whose QoS can be overridden by parameters. `profile` is changed by them: give a new one each time."""
    options = QoSOverridingOptions.with_default_policies()
    with _named(topic):
        return node.create_publisher(kind, topic, profile, qos_overriding_options=options)


def subscription(node: Node, kind: Any, topic: str, callback: Any, profile: QoSProfile) -> Any:
    """A subscription whose QoS can be overridden by parameters, as in `publisher`.

    Its durability, too: a CameraInfo may be published once and kept for those who come later.
    """
    kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
    options = QoSOverridingOptions(kinds)
    with _named(topic):
        return node.create_subscription(kind, topic, callback, profile, qos_overriding_options=options)


@contextmanager
def _named(topic: str) -> Iterator[None]:
    """Give errors, those of wrong QoS overrides mostly, the topic's name, which rclpy leaves out."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise type(error)(f"topic {topic}: {error}") from error


class View:
    """A topic with a message for an image, only while somebody subscribes: what such outputs share."""

    def __init__(self, node: Host, kind: Any, topic: str) -> None:
        self._node = node
        self._publisher = publisher(node, kind, topic, reliable())

    def wanted(self) -> bool:
        """Whether somebody subscribes."""
        return bool(self._publisher.get_subscription_count())

    def skip(self, answer: Answer) -> None:
        """Go on as if the answer had been published: another process does that."""

    def clear(self) -> None:
        """Nothing of it stays on show."""

    def state(self) -> Any:
        """Each message is about one image."""
        return None

    def restore(self, state: Any) -> None:
        """Nothing to remember."""

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_publisher(self._publisher)
