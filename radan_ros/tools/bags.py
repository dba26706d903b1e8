"""Read rosbag2 recordings (sqlite3 or MCAP, compressed or not) by the library rosbags, and publish them again.

Messages are handed on as the bytes that were recorded: what is played is what came over the wire.
"""

from __future__ import annotations

import argparse
import contextlib
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radan_ros.errors import line
from radan_ros.tools.record import header_stamp, message_class, type_hash
from radan_ros.tools.salvage import FILES, SalvageReader, is_data_file
from radan_ros.tools.sources import SourceError

if TYPE_CHECKING:
    from rclpy.node import Node
    from rosbags.rosbag2 import Reader

# When to send a message, in seconds after the first; and what sends it, which returns the stamp of an image in ns.
Step = tuple[float, Callable[[], "int | None"]]

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, TRANSFORMS = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
FACES = "radan_ros/msg/FaceArray"


@dataclass(frozen=True)
class BagTopic:
    """A recorded topic.

    Attributes
    ----------
    name, type : str
        The type as "package/msg/Name".
    count : int
        Messages in the bag.
    latched : bool
        Whether late subscribers were given what was published before (durability transient local).
    digest : str
        Hash of the type ("RIHS01_..."); empty in bags of before ROS 2 Iron, and in an MCAP without its metadata.yaml.
    definition : str
        Of the type and all that it contains, as the bag has it; empty in bags of before ROS 2 Iron.
    qos : tuple
        What its publishers offered (`rosbags.interfaces.Qos`).
    """

    name: str
    type: str
    count: int
    latched: bool
    digest: str
    definition: str = ""
    qos: tuple[Any, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether it holds pictures, compressed or not."""
        return self.type in (IMAGE, COMPRESSED_IMAGE)


def is_bag(text: str) -> bool:
    """Whether this is the path of a rosbag2 folder, or of a file of one."""
    path = Path(text).expanduser()
    if path.is_dir():
        return any(p.name == "metadata.yaml" or is_data_file(p) for p in path.iterdir())
    return is_data_file(path) and path.is_file()


def bag_name(path: Path) -> str:
    """Name of a bag: all of a folder's, dots as well (``run.1``); of a file's what stands before its endings."""
    if path.is_dir():
        return path.name
    plain = path.name.removesuffix(".zstd")
    return next((plain.removesuffix(end) for end in FILES if plain.endswith(end)), plain)


class Bag:
    """A rosbag2 folder, or a single .mcap or .db3 file of one.

    Parameters
    ----------
    text : str
        Its path.
    salvage : bool
        Damage is no error: what can be read is read, and `losses` says what cannot.

    Attributes
    ----------
    name : str
        Its path.
    topics : dict
        Name to `BagTopic`, sorted by name.
    seconds : float
        From the first message to the last.
    begin : int
        Time of the first message in ns; 0 without any.
    losses : list of str
        With `salvage`, what could not be read, so far.

    Raises
    ------
    SourceError
        With one line that says why it cannot be read.
    """

    def __init__(self, text: str, *, salvage: bool = False) -> None:
        self.path = Path(text).expanduser()
        self.name = str(self.path)
        self.topics: dict[str, BagTopic] = {}
        self.losses: list[str] = []
        self._salvage = salvage
        self._salvaged: SalvageReader | None = None
        with self._open() as reader:
            self.begin = reader.start_time if reader.message_count else 0
            self.seconds = max(0, reader.end_time - reader.start_time) * 1e-9 if reader.message_count else 0.0
            for connection in sorted(reader.connections, key=lambda c: c.topic):
                qos = connection.ext.offered_qos_profiles  # type: ignore[union-attr]  # of rosbag2, not rosbag1
                latched = any(profile.durability.name == "TRANSIENT_LOCAL" for profile in qos)
                before = self.topics.get(connection.topic)
                if before is not None and before.type != connection.msgtype:
                    raise SourceError(f"{self.name}: {connection.topic} is both {before.type} and {connection.msgtype}")
                topic = BagTopic(
                    connection.topic,
                    connection.msgtype,
                    connection.msgcount,
                    latched,
                    connection.digest,
                    connection.msgdef.data,
                    tuple(qos),
                )
                self.topics[connection.topic] = topic if before is None else _both(before, topic)

    def choose(self, names: Sequence[str] = ()) -> list[BagTopic]:
        """Topics to play.

        Parameters
        ----------
        names : sequence of str
            With or without the leading slash. Without any: every CameraInfo and the images beside it, which are those
            of cameras (all images where there is no CameraInfo beside any), and the transforms.

        Raises
        ------
        SourceError
            When a name is not in the bag, or nothing is chosen and there is no image.
        """
        wanted = [name if name.startswith("/") else f"/{name}" for name in names]
        missing = [name for name in wanted if name not in self.topics]
        if missing:
            raise SourceError(f"{self.name}: no topic {missing[0]} in this bag (it has {self._contents()})")
        if wanted:
            return [self.topics[name] for name in dict.fromkeys(wanted)]
        folders = {_folder(topic.name) for topic in self.topics.values() if topic.type == CAMERA_INFO}
        images = [topic for topic in self.topics.values() if topic.is_image and topic.count]
        if not images:
            raise SourceError(f"{self.name}: no images in this bag (it has {self._contents()})")
        of_cameras = [topic for topic in images if _camera(topic) in folders]
        others = [topic for topic in self.topics.values() if topic.type in (CAMERA_INFO, TRANSFORMS)]
        return [*(of_cameras or images), *others]

    def messages(self, topics: Sequence[BagTopic]) -> Generator[tuple[BagTopic, int, bytes], None, None]:
        """The messages of some topics in the order of their recording: topic, time of recording in ns, CDR bytes.

        Raises
        ------
        SourceError
            When the bag is damaged.
        """
        names = {topic.name for topic in topics}
        with self._open() as reader:
            connections = [c for c in reader.connections if c.topic in names]
            stream = iter(reader.messages(connections) if connections else ())
            read = 0
            while True:
                try:
                    connection, time_ns, raw = next(stream)
                    read += 1
                except StopIteration:
                    if isinstance(reader, SalvageReader) and len(connections) == len(reader.connections):
                        reader.missing(read)
                    return
                except Exception as error:  # rosbags has no common error for what a damaged file may hold
                    raise SourceError(f"{self.name}: damaged: {line(error)}") from None
                yield self.topics[connection.topic], time_ns, bytes(raw)

    def cameras(self, names: Sequence[str] = ()) -> list[BagTopic]:
        """Topics of images in which to look for faces.

        Parameters
        ----------
        names : sequence of str
            As in `choose`. Without any: those that `choose` takes for images of cameras, but for what a node of this
            package drew, for depth images by their names, and for the compressed form of what is there raw.

        Raises
        ------
        SourceError
            When a name is not in the bag or not one of images, or there is none.
        """
        chosen = self.choose(names)
        other = next((topic for topic in chosen if names and not topic.is_image), None)
        if other is not None:
            raise SourceError(f"{self.name}: {other.name} holds no images but {other.type}")
        if names:
            return chosen
        ours = {_folder(topic.name) for topic in self.topics.values() if topic.type == FACES}
        raw = {topic.name for topic in chosen if topic.type == IMAGE}
        left = [
            topic
            for topic in chosen
            if topic.is_image
            and _folder(topic.name) not in ours
            and not topic.name.endswith("compressedDepth")
            and not (topic.type == COMPRESSED_IMAGE and _folder(topic.name) in raw)
        ]
        if not left:
            raise SourceError(f"{self.name}: no images of a camera in this bag (it has {self._contents()})")
        return left

    @staticmethod
    def info_of(topic: BagTopic) -> str:
        """Name of the CameraInfo's topic beside an image topic, as image_transport names it."""
        return f"{_camera(topic)}/camera_info"

    @contextlib.contextmanager
    def _open(self) -> Iterator[Reader | SalvageReader]:
        try:
            from rosbags.rosbag2 import Reader
        except ImportError as error:
            raise SourceError(
                f"{self.name}: reading bags needs the package rosbags: pip install rosbags ({error})"
            ) from None
        try:
            if not self._salvage:
                reader = Reader(self.path)
                reader.open()
            elif self._salvaged is None:  # it stays open: to unpack or to search it again would take as long again
                self._salvaged = SalvageReader(self.path)
                self.losses = self._salvaged.losses
                weakref.finalize(self, self._salvaged.close)
        except Exception as error:  # as above
            cut = self.path.is_dir() and not (self.path / "metadata.yaml").is_file() and not self._salvage
            hint = " (a recording that was cut off has no metadata.yaml: ros2 bag reindex makes one)" if cut else ""
            raise SourceError(f"{self.name}: cannot be read as a rosbag2: {line(error)}{hint}") from None
        if self._salvaged is not None:
            yield self._salvaged
            return
        try:
            yield reader
        finally:
            reader.close()

    def _contents(self) -> str:
        return ", ".join(f"{topic.name} ({topic.type})" for topic in self.topics.values()) or "no topics"


class BagStream:
    """The messages of a bag as they were recorded, on their topics, with their stamps and their distances in time."""

    skipped = 0
    tolerance = 0.1

    def __init__(self, node: Node, bag: Bag, options: argparse.Namespace) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from rosgraph_msgs.msg import Clock

        self._bag, self._options = bag, options
        self._topics = bag.choose(options.topics)
        self.rate = options.rate or 1.0
        self._publishers = {}
        for topic in self._topics:
            try:
                kind, digest = (message_class(topic.type), type_hash(topic.type) if topic.digest else "")
            except (ImportError, AttributeError, LookupError) as error:
                raise SourceError(
                    f"{bag.name}: {topic.name}: type {topic.type} is not installed here ({error})"
                ) from None
            if digest != topic.digest:
                raise SourceError(f"{bag.name}: {topic.name}: {topic.type} was another type when it was recorded")
            best_effort = options.best_effort and not topic.latched
            qos = QoSProfile(
                # Whoever comes late gets all of it (every static transform), or nothing.
                depth=max(1, topic.count) if topic.latched else 5 if topic.is_image else 100,
                reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
            )
            self._publishers[topic.name] = node.create_publisher(kind, topic.name, qos)
        images = [topic for topic in self._topics if topic.is_image]
        self.images = [self._publishers[topic.name] for topic in images]
        self.others = [self._publishers[topic.name] for topic in self._topics if not topic.is_image]
        self.steps = None if options.loop or options.frames else sum(topic.count for topic in self._topics)
        self.name, self.speed = bag.name, f"{self.rate:g} times the recorded speed"
        # Between the last message and the first of the next pass: as between two images.
        self._pause = bag.seconds / max(1, max((topic.count for topic in images), default=0) - 1)
        self._clock = node.create_publisher(Clock, "/clock", 10) if options.clock else None
        self.others += [self._clock] if self._clock is not None else []
        self._time = Clock()
        self._due = 0

    def __iter__(self) -> Iterator[Step]:
        sent, begin = 0, 0.0
        while True:
            first: int | None = None
            for topic, time_ns, raw in self._bag.messages(self._topics):
                if topic.is_image and sent == self._options.frames:
                    return
                sent += topic.is_image
                first = time_ns if first is None else first
                self._due = time_ns

                def send(topic: Any = topic, raw: bytes = raw) -> int | None:
                    self.tick(0)
                    self._publishers[topic.name].publish(raw)
                    return (header_stamp(raw) or 0) if topic.is_image else None

                yield begin + (time_ns - first) * 1e-9 / self.rate, send
            if first is None:
                raise SourceError(f"{self._bag.name}: no message on {', '.join(t.name for t in self._topics)}")
            if not self._options.loop:
                return
            begin += (self._bag.seconds + self._pause) / self.rate

    def tick(self, left: float) -> None:
        """Publish the time of the bag on ``/clock``, `left` seconds before the next message."""
        if self._clock is not None:
            now = self._due - int(left * self.rate * 1e9)
            self._time.clock.sec, self._time.clock.nanosec = divmod(now, 1_000_000_000)
            self._clock.publish(self._time)


def _both(a: BagTopic, b: BagTopic) -> BagTopic:
    """A topic that is recorded in two parts."""
    qos = (*a.qos, *(profile for profile in b.qos if profile not in a.qos))
    return replace(
        a,
        count=a.count + b.count,
        latched=a.latched or b.latched,
        digest=a.digest or b.digest,
        definition=a.definition or b.definition,
        qos=qos,
    )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _camera(topic: BagTopic) -> str:
    """The folder in which image_transport puts the CameraInfo of an image topic."""
    name = topic.name
    return _folder(_folder(name) if topic.type == COMPRESSED_IMAGE else name)
