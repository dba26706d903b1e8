"""A node whose topics go into a bag, for the outputs, which know no difference."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.expand_topic_name import expand_topic_name
from rclpy.serialization import serialize_message

from radan_ros.ros.cdr import without_padding_noise
from radan_ros.tools.record import bag_qos, message_definition, type_hash
from radan_ros.tools.segments import OutTopic

Put = Callable[[OutTopic, bytes], None]


class Log:
    """Takes what a node's logger takes, and keeps warnings and errors."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.errors: list[str] = []

    def info(self, text: str) -> None:
        """Nobody needs to know while no robot runs."""

    debug = info

    def warning(self, text: str) -> None:
        """Keep a text, once."""
        if text not in self.notes:
            self.notes.append(text)

    def error(self, text: str) -> None:
        """Keep what went wrong, once."""
        if text not in self.errors:
            self.errors.append(text)


class BagPublisher:
    """A topic of the bag, as the outputs know publishers."""

    def __init__(self, topic: OutTopic, kind: Any, put: Put | None) -> None:
        self.topic, self.topic_name = topic, topic.name
        self._kind, self._put = kind, put

    def publish(self, message: Any) -> None:
        """Write a message, or one that is serialised."""
        if self._put is not None:
            raw = message if isinstance(message, bytes) else serialize_message(message)
            self._put(self.topic, without_padding_noise(raw, self._kind))

    def get_subscription_count(self) -> int:
        """One, the bag, unless the topic is not wanted in it."""
        return int(self._put is not None)

    def wait_for_all_acked(self, _timeout: Any) -> bool:
        """Nobody has to answer."""
        return True


class BagNode:
    """Stands for a node whose topics go into a bag: a `radan_ros.ros.topics.Host`.

    Parameters
    ----------
    name, namespace : str
        Of the node; relative topic names are resolved by them.
    log : Log
    wanted : callable
        Whether a topic shall be in the bag.

    Attributes
    ----------
    names : tuple of str
        Name and namespace.
    publishers : list of BagPublisher
    written : list of (OutTopic, bytes)
        What was published since it was emptied.
    stamp : Time
        What its clock says.
    """

    def __init__(self, name: str, namespace: str, log: Log, wanted: Callable[[str], bool]) -> None:
        self.names, self._log, self._wanted = (name, namespace), log, wanted
        self.publishers: list[BagPublisher] = []
        self.written: list[tuple[OutTopic, bytes]] = []
        self.stamp = Time()

    def create_publisher(self, msg_type: Any, topic: str, qos_profile: Any, /, **_: Any) -> BagPublisher:
        """A publisher; overrides of its QoS by parameters are of no use in a bag."""
        name = str(expand_topic_name(topic, *self.names))
        kind = type_name(msg_type)
        out = OutTopic(name, kind, message_definition(kind), type_hash(kind), (bag_qos(qos_profile),))
        publisher = BagPublisher(out, msg_type, self._put if self._wanted(name) else None)
        self.publishers.append(publisher)
        return publisher

    def _put(self, topic: OutTopic, raw: bytes) -> None:
        self.written.append((topic, raw))

    def destroy_publisher(self, publisher: BagPublisher) -> bool:
        """Forget a publisher; what it wrote stays."""
        self.publishers.remove(publisher)
        return True

    def count_publishers(self, topic_name: str) -> int:
        """One: itself."""
        return 1

    def get_clock(self) -> Any:
        """The time of the bag."""
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: self.stamp))

    def get_logger(self) -> Log:
        """Where warnings are kept."""
        return self._log


def type_name(kind: Any) -> str:
    """A message class as "package/msg/Name"."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
