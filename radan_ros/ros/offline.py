"""The node's work on the messages of a bag, without a running ROS: the same engine, calibration and outputs."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from radan_ros.errors import line
from radan_ros.ros.answer import Answer
from radan_ros.ros.bag_node import BagNode, Log
from radan_ros.ros.diagnostics import Report, Statistics
from radan_ros.ros.engine import Engine, Parts
from radan_ros.ros.images import ENCODINGS, to_bgr
from radan_ros.ros.outputs import Outputs
from radan_ros.ros.painters import Painted, Painters, Scenery
from radan_ros.ros.parameters import OUTPUTS, Settings
from radan_ros.ros.subscriptions import Calibration, RateLimit, seconds_of
from radan_ros.tools.ahead import read_ahead
from radan_ros.tools.bags import CAMERA_INFO, COMPRESSED_IMAGE, FACES, IMAGE, TRANSFORMS, Bag, BagTopic
from radan_ros.tools.record import message_class, message_definition, type_hash
from radan_ros.tools.segments import OutTopic
from radan_ros.tools.sources import SourceError

LOOKS = 100  # CameraInfo messages among which a usable one is looked for before the first image
REASONS = 5  # why images could not be answered, that are told
SKIPPED = 256  # messages between signs of life where nothing is written
AHEAD = 4  # messages that are read, and decoded, before it is their turn
MOST_PAINTERS = 8
PAINTERS_PAY = 100  # images for which a process is worth its start
UNKNOWN = "RIHS01_" + 64 * "0"  # the hash of a type of which nobody knows the definition


# ------------------------------------------------------------------------------------------------------- the cameras


@dataclass(frozen=True)
class Plan:
    """What is made of a bag.

    Attributes
    ----------
    cameras : tuple of BagTopic
        Topics of images.
    settings : Settings
        The node's parameters; `publish` names the views.
    faces, transforms : bool
        Whether ``~/faces`` and ``/tf`` are written.
    name, namespace : str
        Of the node that the topics look as if they came from.
    copy : bool
        Whether the messages of the bag are written, too.
    segment : int
        Images after which a segment ends.
    """

    cameras: tuple[BagTopic, ...]
    settings: Settings
    faces: bool = True
    transforms: bool = True
    name: str = "radan"
    namespace: str = "/"
    copy: bool = True
    segment: int = 1800


def node_names(plan: Plan) -> list[tuple[str, str]]:
    """Namespace and prefix of the frames of each camera's node.

    Of one camera, the plan's. Of several, the node lies where its camera does (``/left/image`` gives
    ``/left/radan/faces`` and the frames ``left_face_0``); where two lie in one folder, in a folder of the image's name.
    Frames that would be alike (of ``/a/b`` and ``/a_b``) get a number: ``a_b_face_0`` and ``a_b_2_face_0``.

    Raises
    ------
    ValueError
        When there are several, and `humans` is published: REP-155 has one list of faces.
    """
    prefix = plan.settings.frame_prefix
    if len(plan.cameras) == 1:
        return [(plan.namespace, prefix)]
    if "humans" in plan.settings.publish:
        raise ValueError("humans has one list of faces, and goes with one camera: choose it with --topics")
    folders = [camera.name.removesuffix("/compressed").rpartition("/")[0] for camera in plan.cameras]
    if len(set(folders)) < len(folders) or "" in folders:
        folders = [camera.name for camera in plan.cameras]
    outer = plan.namespace.rstrip("/")
    prefixes: list[str] = []
    for folder in folders:
        flat = f"{prefix}{folder.strip('/').replace('/', '_')}"  # /a/b as /a_b, which may be there, too
        names = (f"{flat}_", *(f"{flat}_{number}_" for number in range(2, len(folders) + 1)))
        prefixes.append(next(name for name in names if name not in prefixes))
    return [(f"{outer}{folder}", name) for folder, name in zip(folders, prefixes, strict=True)]


Decoded = tuple[Any, NDArray[np.uint8] | None]
"""A message of an image and its pixels."""


class Camera:
    """The node of one topic of images.

    Parameters
    ----------
    bag : Bag
    topic : BagTopic
    settings : Settings
    parts : Parts
        Opened with these settings.
    node : BagNode
    log : Log
    """

    def __init__(self, bag: Bag, topic: BagTopic, settings: Settings, parts: Parts, node: BagNode, log: Log) -> None:
        self.topic, self.settings, self.node = topic, settings, node
        self.info = bag.info_of(topic)
        self._kind = message_class(topic.type)
        self._report = Report(log, Statistics())
        self.engine = Engine(settings, log, parts)
        self.calibration = Calibration(self.info, settings, self._report)
        self.outputs = Outputs(node, settings)
        self._limit = RateLimit(settings.max_rate)
        self.counts = {"images": 0, "answered": 0, "bad": 0, "faces": 0, "failed_fits": 0}
        self._calibrate(bag, settings)

    def _calibrate(self, bag: Bag, settings: Settings) -> None:
        """Take the first usable CameraInfo of the bag beforehand.

        The node would guess until one comes; of a recording it is known which comes, and many begin with an image.
        """
        topic = bag.topics.get(self.info)
        if topic is None or topic.type != CAMERA_INFO:
            return
        messages = bag.messages([topic])
        for _, (_, _, raw) in zip(range(LOOKS), messages, strict=False):
            trial = Calibration(self.info, settings, Report(Log(), Statistics()))
            try:
                message = deserialize_message(raw, CameraInfo)
            except Exception:  # counted when its turn comes
                continue
            trial.take(message)
            if trial.state().startswith("ok"):
                self.calibration.take(message)
                break
        messages.close()

    def hear(self, raw: bytes) -> None:
        """A CameraInfo."""
        try:
            self.calibration.take(deserialize_message(raw, CameraInfo))
        except Exception as error:  # of damaged bytes rclpy has errors of several kinds
            self._report.bad(f"{self.info}: {line(error)}")

    def decode(self, raw: bytes) -> Decoded:
        """Header and pixels of an image; no pixels where `max_rate` may leave it out. Any thread may call it.

        Raises
        ------
        Exception
            Whatever is wrong with it.
        """
        message = deserialize_message(raw, self._kind)
        return message, None if self.settings.max_rate > 0 else to_bgr(message)

    def look(self, decoded: Callable[[], Decoded]) -> Answer | None:
        """The answer to an image; None for one that `max_rate` leaves out.

        Raises
        ------
        Exception
            Whatever is wrong with it.
        """
        self.counts["images"] += 1
        message, image = decoded()
        if self._limit.skips(seconds_of(message.header)):
            return None
        if image is None:
            image = to_bgr(message)
        camera = self.calibration.camera((image.shape[0], image.shape[1]), message.header.frame_id)
        answer = self.engine.answer(message.header, image, camera, self._left_out)
        self.counts["answered"] += 1
        self.counts["faces"] += len(answer.tracks)
        return answer

    def _left_out(self, _track: Any, _error: ValueError) -> None:
        self.counts["failed_fits"] += 1

    def announce(self) -> None:
        """Publish the topology."""
        self.outputs.announce(self.engine.parts.model.face_model)

    def state(self) -> dict[str, Any] | None:
        """All that the next answers depend on, but for the outputs'; None where the tracker cannot tell now."""
        tracker = self.engine.tracker.state()
        if tracker is None:
            return None
        heard = [serialize_message(message) for message in self.calibration.heard]
        return {"tracker": tracker, "heard": heard, "limit": self._limit, "counts": dict(self.counts)}

    def restore(self, state: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Go on from a state."""
        self.engine.tracker.restore(state["tracker"])
        self._limit, self.counts = state["limit"], state["counts"]
        for raw in state["heard"]:
            self.calibration.take(deserialize_message(raw, CameraInfo))
        self.outputs.restore(outputs)


# --------------------------------------------------------------------------------------------------------- the work

Message = tuple[OutTopic, int, bytes | memoryview]
"""Topic, time in ns, and what is written."""
# What a bag is made of: a message, an answer to publish (camera, time, answer), or the end of a segment with what is
# known of the work behind it, pickled; None is a sign of life.
Item = Message | tuple[Camera, int, Answer] | bytes | None


@dataclass(frozen=True)
class Publication:
    """An answer that is being published.

    Attributes
    ----------
    camera : Camera
    time_ns : int
    faces, others : list of Message
        What is there already: comes before, and behind what is painted.
    painted : Future of Painted, optional
    size : int
        Bytes of its image.
    """

    camera: Camera
    time_ns: int
    faces: list[Message]
    painted: Future[Painted] | None
    others: list[Message]
    size: int

    @property
    def done(self) -> bool:
        """Whether all is there."""
        return self.painted is None or self.painted.done()


@dataclass
class Offline:
    """Everything for a bag: reads it in order, and says what is to be written.

    Attributes
    ----------
    log : Log
        Holds warnings.
    bad : dict
        Why images could not be answered: reason to the first such image, and how many there are.
    read : int
        Messages read so far, of `total`.
    """

    bag: Bag
    plan: Plan
    parts: Parts
    log: Log = field(default_factory=Log)
    bad: dict[str, tuple[str, int]] = field(default_factory=dict)
    read: int = 0

    def __post_init__(self) -> None:
        plan = self.plan
        self.cameras: list[Camera] = []
        for topic, (namespace, prefix) in zip(plan.cameras, node_names(plan), strict=True):
            settings = _with_prefix(plan.settings, prefix)
            node = BagNode(plan.name, namespace, self.log, self._wanted)
            self.cameras.append(Camera(self.bag, topic, settings, self.parts, node, self.log))
        ours = [p.topic for camera in self.cameras for p in camera.node.publishers if p.get_subscription_count()]
        theirs = [self.bag.topics[name] for name in sorted(self.bag.topics)] if plan.copy else []
        # A bag that was recorded with the node, or processed before: all that it said then goes, or none would fit.
        of_node = self._of_node()
        replaced = {topic.name for topic in theirs if topic.type != TRANSFORMS and (topic.name, topic.type) in of_node}
        if replaced:
            self.log.warning(f"{self.bag.name}: left out, since it is answered anew: {', '.join(sorted(replaced))}")
        self._copied = {topic.name: self._out(topic, ours) for topic in theirs if topic.name not in replaced}
        prefixes = "|".join(re.escape(prefix) for _, prefix in node_names(plan))
        self._old = re.compile(rf"({prefixes})face_\d+") if replaced or plan.transforms else None
        self.topics = list(self._copied.values())
        self.topics += [topic for topic in dict.fromkeys(ours) if topic.name not in self._copied]
        # /tf may come from the input and from us, and from several cameras: one topic in the bag.
        self._by_name = {topic.name: topic for topic in reversed(self.topics)}
        self.topics = list({topic.name: topic for topic in self.topics}.values())
        self._of_image = {camera.topic.name: camera for camera in self.cameras}
        self._chosen = [topic for topic in self.bag.topics.values() if self._matters(topic)]
        self.total = sum(topic.count for topic in self._chosen)

    def _of_node(self) -> set[tuple[str, str]]:
        """Names and types of all topics that our nodes have, published now or not."""
        found = set()
        for camera in self.cameras:
            node = BagNode(*camera.node.names, self.log, lambda _: False)
            views = tuple(name for name in OUTPUTS if name != "humans")  # whose topics may be others' as well
            Outputs(node, replace(camera.settings, publish=views))
            found |= {(p.topic.name, p.topic.type) for p in (*camera.node.publishers, *node.publishers)}
        return found

    def _wanted(self, name: str) -> bool:
        if name == "/tf":
            return self.plan.transforms
        return self.plan.faces or not name.endswith(f"{self.plan.name}/faces")

    def _out(self, topic: BagTopic, ours: Sequence[OutTopic]) -> OutTopic:
        """A topic of the bag as it is written.

        Raises
        ------
        SourceError
            When it cannot be in one bag with ours.
        """
        definition, digest = definition_of(topic)
        if not definition:
            self.log.warning(f"{topic.name}: the bag has no definition of {topic.type}, and it is not installed")
        qos = topic.qos
        for other in ours:
            if other.name == topic.name:
                if other.type != topic.type:
                    raise SourceError(
                        f"{self.bag.name}: {topic.name} is {topic.type} there, and is to be {other.type}: give the "
                        "node another name (--name), or --only-ours"
                    )
                qos = (*qos, *(profile for profile in other.qos if profile not in qos))
            if other.type == topic.type and UNKNOWN != digest != other.digest:
                raise SourceError(
                    f"{self.bag.name}: {topic.name}: {topic.type} was another type when it was recorded: --only-ours "
                    "leaves it out"
                )
        return OutTopic(topic.name, topic.type, definition, digest, qos)

    @property
    def images(self) -> int:
        """Images that were looked at."""
        return sum(camera.counts["images"] for camera in self.cameras)

    def items(self, decoders: Executor | None = None) -> Iterator[Item]:
        """Go through the bag, from its beginning or from where `restore` led; with `decoders`, read ahead."""
        skipped = self.read
        written = 0
        with contextlib.closing(self._decoding(skipped, decoders)) as messages:
            for number, (topic, time_ns, raw, decoded) in enumerate(messages):
                self.read = number + 1
                if number < skipped:
                    if number % SKIPPED == 0:
                        yield None
                    continue
                copy = self._copied.get(topic.name)
                if copy is not None and not (topic.type == TRANSFORMS and self._is_old(topic, raw)):
                    yield copy, time_ns, raw
                for camera in self.cameras:
                    if topic.name == camera.info and topic.type == CAMERA_INFO:
                        camera.hear(raw)
                image_of = self._of_image.get(topic.name)
                if image_of is None:
                    continue
                try:
                    answer = image_of.look(decoded)
                except Exception as error:  # one bad image costs its own answer
                    image_of.counts["bad"] += 1
                    reason = line(error) if line(error) in self.bad or len(self.bad) < REASONS else "other reasons"
                    first, count = self.bad.get(reason, (f"{topic.name}, image {image_of.counts['images']}", 0))
                    self.bad[reason] = first, count + 1
                    answer = None
                if answer is not None:
                    yield image_of, time_ns, answer
                written += 1
                if written >= self.plan.segment and (ended := self._state()) is not None:
                    yield ended
                    written = 0

    def _decoding(
        self, skipped: int, decoders: Executor | None
    ) -> Generator[tuple[BagTopic, int, bytes, Callable[[], Decoded]], None, None]:
        """The messages of the bag, and how to get at the pixels of images: those of JPEG and PNG are decoded ahead."""
        messages = self.bag.messages(self._chosen)
        waiting: deque[tuple[BagTopic, int, bytes, Callable[[], Decoded]]] = deque()
        damage = None
        with contextlib.closing(read_ahead(messages, AHEAD, _size) if decoders is not None else messages) as stream:
            try:
                for number, (topic, time_ns, raw) in enumerate(stream):
                    camera = self._of_image.get(topic.name)
                    decode: Callable[[], Decoded] = partial(camera.decode if camera else _no_image, raw)
                    if camera and decoders is not None and topic.type == COMPRESSED_IMAGE and number >= skipped:
                        decode = decoders.submit(camera.decode, raw).result
                    waiting.append((topic, time_ns, raw, decode))
                    if len(waiting) > (AHEAD if decoders is not None else 0):
                        yield waiting.popleft()
            except SourceError as error:
                damage = error
            yield from waiting
            if damage is not None:
                raise damage

    def _matters(self, topic: BagTopic) -> bool:
        return topic.name in self._copied or any(topic.name in (c.topic.name, c.info) for c in self.cameras)

    def _is_old(self, topic: BagTopic, raw: bytes) -> bool:
        """Whether a message of transforms is the node's own, and is replaced by ours."""
        if self._old is None:
            return False
        try:
            frames = [transform.child_frame_id for transform in deserialize_message(raw, TFMessage).transforms]
        except Exception:  # whatever it is, it is not ours
            return False
        old = bool(frames) and all(self._old.fullmatch(frame) for frame in frames)
        if old:
            self.log.warning(f"{self.bag.name}: left out, since it is answered anew: frames of faces on {topic.name}")
        return old

    def reasons(self) -> str:
        """Why images could not be answered."""
        told = self.bad.items()
        return "; ".join(f"{first}: {why}{f' ({count} times)' if count > 1 else ''}" for why, (first, count) in told)

    def painters(self, threads: int) -> Painters | None:
        """Processes that draw the views beside, as many as so many threads and so many images are worth; or None."""
        images = sum(camera.topic.count for camera in self.cameras)
        # As many more only take the cores from the thread that follows the faces, which all wait for.
        number = min((threads + 1) // 2, MOST_PAINTERS, images // PAINTERS_PAY)
        drawn = any(camera.outputs.drawn for camera in self.cameras)
        # A GPU draws as fast as one process asks.
        if threads < 2 or number < 1 or not drawn or self.parts.renderer.device != "cpu":
            return None
        scenes = [
            Scenery(*camera.node.names, replace(camera.settings, publish=camera.outputs.drawn))
            for camera in self.cameras
        ]
        return Painters(number, self.parts.model.face_model, scenes)

    def publish(self, item: tuple[Camera, int, Answer], painters: Painters | None = None) -> Publication:
        """Publish an answer; `painters` make its views."""
        camera, time_ns, answer = item
        painted = None
        skipped: tuple[str, ...] = ()
        if painters is not None:
            skipped, state = camera.outputs.drawn, camera.outputs.state()
            painted = painters.paint(self.cameras.index(camera), answer, {name: state[name] for name in skipped})
        camera.node.stamp = answer.header.stamp
        camera.outputs.faces.publish(answer)
        faces = self._written(camera, time_ns)
        for view, error in camera.outputs.publish_views(answer, skipped).items():
            self.log.error(f"{camera.topic.name}: publishing {view}: {line(error)}")
        return Publication(camera, time_ns, faces, painted, self._written(camera, time_ns), answer.image.nbytes)

    def messages(self, publication: Publication) -> list[Message]:
        """The messages of an answer, once they are all there."""
        camera, time_ns = publication.camera, publication.time_ns
        drawn: list[Message] = []
        if publication.painted is not None:
            painted = publication.painted.result()
            drawn = [(self._by_name[name], time_ns, raw) for name, raw in painted.messages]
            for view, reason in painted.failed.items():
                self.log.error(f"{camera.topic.name}: publishing {view}: {reason}")
        return [*publication.faces, *drawn, *publication.others]

    def announce(self) -> list[Message]:
        """What is written before the first message."""
        out = []
        for camera in self.cameras:
            camera.announce()
            out += self._written(camera, self.bag.begin)
        return out

    def _written(self, camera: Camera, time_ns: int) -> list[Message]:
        written, camera.node.written = camera.node.written, []
        return [(self._by_name.get(topic.name, topic), time_ns, raw) for topic, raw in written]

    def _state(self) -> bytes | None:
        cameras = [camera.state() for camera in self.cameras]
        if any(state is None for state in cameras):
            return None
        whole = {"read": self.read, "cameras": cameras, "bad": dict(self.bad)}
        return pickled(whole, self.parts.model.face_model)

    def shown(self) -> list[dict[str, Any]]:
        """What the outputs have to remember of what was published so far."""
        return [camera.outputs.state() for camera in self.cameras]

    def sealed(self, state: bytes, outputs: list[dict[str, Any]]) -> bytes:
        """A state of `items` and what was `shown` then, to which is added what went wrong up to now."""
        return pickle.dumps((state, outputs, list(self.log.errors), list(self.log.notes)))

    def restore(self, state: bytes) -> None:
        """Go on from a sealed state."""
        whole, outputs, errors, notes = unpickled(state, None)
        told = unpickled(whole, self.parts.model.face_model)
        for camera, of_camera, of_outputs in zip(self.cameras, told["cameras"], outputs, strict=True):
            camera.restore(of_camera, of_outputs)
        for text in errors:
            self.log.error(text)
        for text in notes:
            self.log.warning(text)
        self.bad.update(told["bad"])
        self.read = int(told["read"])


def _size(message: tuple[BagTopic, int, bytes]) -> int:
    return len(message[2])


def _no_image(_raw: bytes) -> Decoded:
    raise AssertionError("only images are decoded")


def _with_prefix(settings: Settings, prefix: str) -> Settings:
    return replace(settings, frame_prefix=prefix, deterministic_ids=True)


def check_names(name: str, namespace: str) -> None:
    """Raise ValueError for names that no node can have."""
    try:
        validate_node_name(name)
        validate_namespace(namespace)
    except Exception as error:  # rclpy has several
        raise ValueError(f"'{name}' in '{namespace}' is no name of a node: {line(error)}") from None


def tell_uncalibrated(bag: Bag, cameras: Sequence[BagTopic], log: Log) -> None:
    """Say which topics of images are no cameras' only because no CameraInfo lies beside them, as beside others."""
    folders = {name.rpartition("/")[0] for name, topic in bag.topics.items() if topic.type == CAMERA_INFO}
    drawn = {name.rpartition("/")[0] for name, topic in bag.topics.items() if topic.type == FACES}
    raw = {name for name, topic in bag.topics.items() if topic.type == IMAGE and topic.count}
    for name, topic in bag.topics.items():
        folder = name.rpartition("/")[0]
        other = folder in drawn or folder in raw or name.endswith("compressedDepth") or topic in cameras
        if topic.is_image and topic.count and not other and bag.info_of(topic).rpartition("/")[0] not in folders:
            log.warning(f"{name} is left out: no CameraInfo beside it; --topics takes it")


def without_depth(bag: Bag, cameras: Sequence[BagTopic], log: Log) -> list[BagTopic]:
    """Topics of images but for those whose first one has no colours: a depth camera has images, too.

    Raises
    ------
    SourceError
        When none is left.
    """
    left = []
    for topic in cameras:
        encoding = ENCODINGS[0]
        if topic.type == IMAGE:
            messages = bag.messages([topic])
            first = next(messages, None)
            messages.close()
            try:
                encoding = deserialize_message(first[2], message_class(IMAGE)).encoding if first else encoding
            except Exception:  # told when its turn comes
                pass
        if encoding in ("16UC1", "32FC1"):
            log.warning(f"{topic.name} is left out: its images are of depth ({encoding})")
        else:
            left.append(topic)
    if not left:
        raise SourceError(f"{bag.name}: no images of a camera in this bag, only of depth")
    return left


def definition_of(topic: BagTopic) -> tuple[str, str]:
    """Definition and hash of a recorded type: the bag's own, else as installed here, else as rosbags knows it."""
    from rosbags.typesys import Stores, get_typestore

    if topic.definition:
        return topic.definition, topic.digest or _hash_of(topic.type, topic.definition)
    try:
        return message_definition(topic.type), type_hash(topic.type)
    except LookupError:
        store = get_typestore(Stores.LATEST)
        if topic.type in store.types:
            return str(store.generate_msgdef(topic.type, ros_version=2)[0]), str(store.hash_rihs01(topic.type))
    return "", _hash_of(topic.type, "")  # readers compare it with what they find


def _hash_of(name: str, definition: str) -> str:
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    store, mark = get_typestore(Stores.EMPTY), "=" * 80 + "\n"
    try:
        if definition.startswith(f"{mark}IDL: "):
            for part in definition.split(mark)[1:]:
                store.register(get_types_from_idl(part.partition("\n")[2]))
        else:
            store.register(get_types_from_msg(definition, name))
        return str(store.hash_rihs01(name))
    except Exception:  # a text that it cannot read is copied all the same
        return UNKNOWN


# ----------------------------------------------------------------------------------------------------------- states


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, face_model: Any) -> None:
        super().__init__(file)
        self._face_model = face_model

    def persistent_id(self, obj: Any) -> str | None:
        return "face model" if obj is self._face_model else None


class _Unpickler(pickle.Unpickler):
    """Knows what a state is made of, and nothing else: a bag's folder may come from elsewhere."""

    def __init__(self, file: io.BytesIO, face_model: Any) -> None:
        super().__init__(file)
        self._face_model = face_model

    def persistent_load(self, pid: Any) -> Any:
        return self._face_model

    def find_class(self, module: str, name: str) -> Any:
        ours = ("tracking", "cues", "smoothing", "face", "ros.subscriptions")
        arrays = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"}
        known = module in {f"radan_ros.{part}" for part in ours} and "." not in name
        if known or (module.split(".")[0] == "numpy" and name in arrays) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a state holds no {module}.{name}")


def pickled(state: Any, face_model: Any) -> bytes:
    """A state as bytes, without the face model."""
    file = io.BytesIO()
    _Pickler(file, face_model).dump(state)
    return file.getvalue()


def unpickled(state: bytes, face_model: Any) -> Any:
    """The state again, with this face model; raises pickle.UnpicklingError for what no state holds."""
    return _Unpickler(io.BytesIO(state), face_model).load()
