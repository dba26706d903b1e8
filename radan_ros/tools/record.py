"""Record topics into a rosbag2 (MCAP), where ``ros2 bag`` is not installed. Also used by the demo.

Messages are taken as the bytes that came over the wire and are never decoded. The bag carries the message
definitions, so that any reader of rosbag2 reads it without this package.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import queue
import re
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radan_ros.errors import line
from radan_ros.tools.numbers import positive
from radan_ros.tools.telling import tell

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile

SEPARATOR = "=" * 80 + "\n"
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
PRIMITIVES = INTEGERS | {"bool", "byte", "char", "float32", "float64", "string", "wstring"}
FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?\s*(?:\[[^\]]*\])?\s+[A-Za-z]")
HISTORY = 100
"""Messages that the middleware keeps for this recorder, per topic, while it writes others."""


# ---------------------------------------------------------------------------------------- message definitions


def message_class(type_name: str) -> Any:
    """Python class of "package/msg/Name"; ImportError or AttributeError text names what is missing."""
    package, _, name = _split(type_name)
    return getattr(importlib.import_module(f"{package}.msg"), name)


def message_definition(type_name: str) -> str:
    """Definition of a message and of all it contains, in rosbag2's "ros2msg" form.

    The text of the .msg files as installed, comments included, the contained ones behind a line of 80 "=" and a line
    "MSG: package/Name" each.

    Raises
    ------
    LookupError
        When a package or its .msg file is not found.
    """
    texts: dict[str, str] = {}
    _collect(type_name, texts)
    (_, first), *others = texts.items()
    parts = [first]
    for other, text in others:
        package, _, name = _split(other)
        parts.append(f"{SEPARATOR}MSG: {package}/{name}\n{text}")
    return "\n".join(parts)


def type_hash(type_name: str) -> str:
    """Hash of a message type ("RIHS01_..."), as its package installed it, or made from its definition (Humble).

    Raises
    ------
    LookupError
        When the package, or the type's description in it, is not found.
    """
    path = _share(type_name, ".json")
    if not path.is_file():
        return _hash_of_definition(type_name)
    hashes = json.loads(path.read_text(encoding="utf-8"))["type_hashes"]
    return str(next(entry["hash_string"] for entry in hashes if entry["type_name"] == type_name))


def _hash_of_definition(type_name: str) -> str:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    texts: dict[str, str] = {}
    _collect(type_name, texts)
    store = get_typestore(Stores.EMPTY)
    store.register({k: v for name, text in texts.items() for k, v in get_types_from_msg(text, name).items()})
    return str(store.hash_rihs01(type_name))


def _split(type_name: str) -> tuple[str, str, str]:
    parts = type_name.split("/")
    if len(parts) != 3 or parts[1] != "msg":
        raise LookupError(f"{type_name}: not a message type (package/msg/Name)")
    return parts[0], parts[1], parts[2]


def _share(type_name: str, suffix: str) -> Path:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    package, kind, name = _split(type_name)
    try:
        return Path(get_package_share_directory(package)) / kind / f"{name}{suffix}"
    except PackageNotFoundError:
        raise LookupError(f"{type_name}: package {package} is not in AMENT_PREFIX_PATH") from None


def _collect(type_name: str, texts: dict[str, str]) -> None:
    path = _share(type_name, ".msg")
    if not path.is_file():
        raise LookupError(f"{type_name}: {path} is not installed")
    texts[type_name] = text = path.read_text(encoding="utf-8").rstrip() + "\n"
    package = _split(type_name)[0]
    for row in text.splitlines():
        match = FIELD.match(row.split("#", 1)[0])
        if match is None or match[1] in PRIMITIVES:
            continue
        parts = match[1].split("/")
        inner = f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}"
        if inner not in texts:
            _collect(inner, texts)


# ---------------------------------------------------------------------------------------- stamps and latencies


def header_stamp(raw: bytes, offset: int = 4) -> int | None:
    """Nanoseconds of the builtin_interfaces/Time at `offset` of a CDR message; None when it is zero or missing."""
    if len(raw) < offset + 8:
        return None
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, offset)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) or None


def stamp_offset(type_name: str) -> int | None:
    """Where the first header stamp lies in a CDR message of this type; None for types without a leading one."""
    if type_name == "tf2_msgs/msg/TFMessage":
        return 8  # behind the encapsulation and the length of the sequence; an empty one is too short to have a stamp
    fields = message_class(type_name).get_fields_and_field_types()
    return 4 if next(iter(fields.values()), None) == "std_msgs/Header" else None


@dataclass
class Topic:
    """What was recorded of one topic.

    Attributes
    ----------
    count : int
        Messages taken.
    lost : int
        Messages that the middleware says it lost before this recorder could take them.
    dropped : int
        Messages taken but not written, because the disk was behind by more than the queue holds.
    stamps : list of int
        Header stamps in ns, where the type has one; kept only where the recorder was asked for it.
    published : list of int
        Times of publication in ns, of the same messages.
    """

    name: str
    type: str
    count: int = 0
    lost: int = 0
    dropped: int = 0
    stamps: list[int] = field(default_factory=list)
    published: list[int] = field(default_factory=list)

    @property
    def latencies(self) -> list[float]:
        """Milliseconds from header stamp to publication, of every message that has both."""
        return [(b - a) / 1e6 for a, b in zip(self.stamps, self.published, strict=True) if b]


# ---------------------------------------------------------------------------------------- the recorder


class BagRecorder:
    """Subscribes topics of a node and writes what comes into a new rosbag2 folder.

    A thread of its own writes; the callbacks only queue. Whatever is lost on the way is counted in `topics`.

    Parameters
    ----------
    node : rclpy Node
        Somebody else spins it.
    folder : path
        The bag; must not exist.
    compress : bool
        Compress the chunks of the MCAP with zstd, which every rosbag2 reads.
    queue_bytes : int, optional
        Messages waiting for the disk may take this much memory; by default a quarter of what is free, at most 2 GiB.
    keep_times : bool
        Keep stamp and time of publication of every message in `topics`. They take some 100 bytes a message for as long
        as the recorder lives: for a recording of minutes, not of days.

    Raises
    ------
    ImportError
        When rosbags is not installed.
    OSError
        When the folder cannot be made; FileExistsError when it is there.
    """

    def __init__(
        self,
        node: Node,
        folder: str | Path,
        *,
        compress: bool = True,
        queue_bytes: int | None = None,
        keep_times: bool = False,
    ) -> None:
        try:
            from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
        except ImportError as error:
            raise ImportError(f"recording needs the package rosbags: pip install rosbags ({error})") from None
        self.topics: dict[str, Topic] = {}
        self.folder = Path(folder)
        self._node, self._keep_times = node, keep_times
        self._limit = _spare_memory() if queue_bytes is None else queue_bytes
        try:
            # Version 8 is what Humble and all later ones read.
            self._writer = Writer(self.folder, version=8, storage_plugin=StoragePlugin.MCAP)
            if compress:
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except WriterError as error:
            raise FileExistsError(str(error)) from None
        self._subscriptions: list[Any] = []
        self._pending: queue.SimpleQueue[tuple[Any, int, bytes] | None] = queue.SimpleQueue()
        self._pending_bytes = 0
        self._count_lock = threading.Lock()
        # The MCAP's chunk is one stream for messages and for new connections. Not the lock of the callbacks:
        # compressing a chunk takes milliseconds.
        self._file_lock = threading.Lock()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="bag writer", daemon=True)
        self._thread.start()

    def add(self, topic: str, type_name: str | None = None) -> bool:
        """Subscribe a topic with the QoS that its publishers offer. False while nobody publishes it, and when `failed`.

        Raises
        ------
        LookupError
            When its type is not installed here, or two types are published under the name.
        """
        from radan_ros.ros.compat import event_handler, with_message_info

        name = self._node.resolve_topic_name(topic)
        if name in self.topics:
            return True
        offers = self._node.get_publishers_info_by_topic(name)
        types = {offer.topic_type for offer in offers}
        if not types:
            return False
        if len(types) > 1:
            raise LookupError(f"{name}: published as {' and as '.join(sorted(types))}")
        offered = types.pop()
        if type_name is not None and type_name != offered:
            raise LookupError(f"{name}: published as {offered}, not as {type_name}")
        try:
            kind = message_class(offered)
        except (ImportError, AttributeError) as error:
            raise LookupError(f"{name}: type {offered} is not installed here ({error})") from None
        entry = Topic(name, offered)
        definition, digest = message_definition(offered), type_hash(offered)
        qos = [bag_qos(offer.qos_profile) for offer in offers]
        try:
            with self._file_lock:
                connection = self._writer.add_connection(
                    name, offered, msgdef=definition, rihs01=digest, offered_qos_profiles=qos
                )
        except OSError as error:  # as in _write()
            self._error = error
            return False
        offset = stamp_offset(offered)

        def take(raw: bytes, info: dict[str, int]) -> None:
            self._take(entry, connection, offset, raw, info)

        def lose(status: Any) -> None:
            entry.lost = status.total_count

        self.topics[name] = entry
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                name,
                with_message_info(take),
                matching_qos([offer.qos_profile for offer in offers]),
                raw=True,
                event_callbacks=event_handler().SubscriptionEventCallbacks(message_lost=lose),
            )
        )
        return True

    def wait_for(self, topics: Sequence[str], timeout: float) -> list[str]:
        """`add` these as their publishers appear; what is still missing after `timeout` seconds. Others must spin."""
        end = time.monotonic() + timeout
        missing = list(topics)
        while True:
            missing = [topic for topic in missing if not self.add(topic)]
            if not missing or time.monotonic() >= end or not self._node.context.ok():
                return missing
            time.sleep(0.05)

    def _take(self, entry: Topic, connection: Any, offset: int | None, raw: bytes, info: dict[str, int]) -> None:
        entry.count += 1
        received = info.get("received_timestamp") or time.time_ns()
        stamp = header_stamp(raw, offset) if self._keep_times and offset is not None else None
        if stamp is not None:
            entry.stamps.append(stamp)
            entry.published.append(info.get("source_timestamp") or 0)
        if self._pending_bytes + len(raw) > self._limit:
            entry.dropped += 1
        else:
            with self._count_lock:
                self._pending_bytes += len(raw)
            self._pending.put((connection, received, raw))

    def _write(self) -> None:
        while (item := self._pending.get()) is not None:
            connection, stamp, raw = item
            try:
                if self._error is None:
                    with self._file_lock:
                        self._writer.write(connection, stamp, raw)
            except Exception as error:  # a full disk, mostly; close() tells it, and the subscriptions go on
                self._error = error
            with self._count_lock:
                self._pending_bytes -= len(raw)

    @property
    def failed(self) -> Exception | None:
        """What stopped the writing, a full disk for instance; None while all is well."""
        return self._error

    def close(self) -> None:
        """Write what is queued, the index and metadata.yaml.

        Raises
        ------
        OSError
            When writing failed on the way, or fails now.
        """
        for subscription in self._subscriptions:
            if self._node.context.ok():
                self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._pending.put(None)
        self._thread.join()
        if self._error is None:
            try:
                self._writer.close()
                return
            except OSError as error:
                self._error = error
        with contextlib.suppress(OSError):
            self._writer.abort()
        raise OSError(f"{self.folder}: the bag is incomplete: {self._error}") from self._error


def resolved(node: Node, topic: str) -> str:
    """A topic's full name, as remapped.

    Raises
    ------
    ValueError
        When it is no name of a topic.
    """
    from rclpy.exceptions import NameValidationException

    try:
        return str(node.resolve_topic_name(topic))
    except (RuntimeError, NameValidationException) as error:
        raise ValueError(f"topic {topic}: {error}") from None


def matching_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """QoS of a subscription that every one of the offers is compatible with, as strict as they all allow."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offered)
    latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offered)
    return QoSProfile(
        depth=HISTORY,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def bag_qos(offer: QoSProfile) -> Any:
    """The same QoS as rosbags writes it into the bag; policies that both do not know are UNKNOWN."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    def policy(kind: Any, value: Any) -> Any:
        return getattr(kind, value.name, kind.UNKNOWN)

    def duration(value: Any) -> Any:
        seconds, nanoseconds = divmod(value.nanoseconds, 1_000_000_000)
        return QosTime(seconds, nanoseconds)

    return Qos(
        policy(QosHistory, offer.history),
        offer.depth,
        policy(QosReliability, offer.reliability),
        policy(QosDurability, offer.durability),
        duration(offer.deadline),
        duration(offer.lifespan),
        policy(QosLiveliness, offer.liveliness),
        duration(offer.liveliness_lease_duration),
        offer.avoid_ros_namespace_conventions,
    )


def _spare_memory() -> int:
    """A quarter of the free memory in bytes, at most 2 GiB; 256 MiB where the system does not tell."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 256 << 20
    return min(free // 4, 2 << 30)


# ---------------------------------------------------------------------------------------- the program


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``record``; returns the exit status."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from radan_ros.ros.ending import Ending

    ending = Ending()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(remove_ros_args(["record", *arguments])[1:])
        if not options.topics and not options.all:
            print("record: name topics, or --all", file=sys.stderr)
            return 2
        if Path(options.out).exists():
            raise FileExistsError(f"{options.out}: exists already, choose another name")
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("record")
        names = [resolved(node, topic) for topic in options.topics]
        recorder = BagRecorder(node, options.out, compress=not options.no_compression)
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        print(f"record: {line(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    ending.finish()  # the bag
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    refused: dict[str, str] = {}
    started = time.monotonic()
    well = tell("record", f"recording into {options.out}; Ctrl-C ends it")
    try:
        look = 0.0
        while not ending.asked() and recorder.failed is None:
            now = time.monotonic()
            if options.duration and now - started >= options.duration:
                break
            if now >= look:
                look = now + 0.05
                wanted = [*names]
                if options.all:
                    wanted += [name for name, _ in node.get_topic_names_and_types()]
                for topic in wanted:
                    try:
                        if topic not in refused:
                            recorder.add(topic)
                    except LookupError as error:
                        refused[topic] = str(error)
                        print(f"record: not recorded: {error}", file=sys.stderr, flush=True)
            executor.spin_once(timeout_sec=0.1)
    finally:
        try:
            recorder.close()
        except OSError as error:
            print(f"record: {line(error)}", file=sys.stderr)
            well = False
        node.destroy_node()
        rclpy.try_shutdown()
    for of in recorder.topics.values():
        trouble = f", {of.lost} lost, {of.dropped} not written" if of.lost or of.dropped else ""
        well = tell("record", f"{of.count:7d}  {of.name} ({of.type}){trouble}") and well
    for name in names:
        if name not in recorder.topics:
            print(f"record: nobody published {name}", file=sys.stderr)
            well = False
    return 0 if well else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="record",
        description="Record topics into a rosbag2 folder (MCAP). ROS arguments follow --ros-args.",
    )
    parser.add_argument("out", help="the bag's folder; must not exist")
    parser.add_argument("topics", nargs="*", help="topics; each is recorded once somebody publishes it")
    parser.add_argument("--all", action="store_true", help="every topic that is published")
    parser.add_argument("--duration", type=positive, metavar="S", help="end after this many seconds")
    parser.add_argument("--no-compression", action="store_true", help="write the messages as they are")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
