"""ROS4HRI: the faces under /humans/faces and their frames, as REP-155 says.

Needs the package hri_msgs: import this only where `radan_ros.ros.compat.has_hri_msgs` says so.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped
from hri_msgs.msg import FacialLandmarks, IdsList, NormalizedPointOfInterest2D, NormalizedRegionOfInterest2D
from numpy.typing import ArrayLike, NDArray
from rclpy.duration import Duration
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from radan_ros.metric import MetricFace
from radan_ros.ros import topics
from radan_ros.ros.answer import Answer
from radan_ros.ros.compat import event_handler
from radan_ros.ros.images import image_message
from radan_ros.ros.messages import head_frame
from radan_ros.ros.parameters import Settings
from radan_ros.ros.topics import Host
from radan_ros.tracking import Track

FACES = "/humans/faces"
PICTURE = (128, 128)  # width, height of `cropped` and `aligned`: REP-155's default
# The gaze frame in the head frame: z along the head's x, x to the subject's right, y down. Eyes are not measured.
GAZE_IN_HEAD = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
# Landmarks, as in iBUG: the first 68 of REP-155's 70 are the same; the last two are the pupils, right and left.
CHIN, BROWS, EYES = 8, slice(17, 27), (slice(36, 42), slice(42, 48))
DELIVERY = 0.5  # seconds that the last list has to reach everybody before its publisher goes


def face_id(number: int, prefix: str = "") -> str:
    """REP-155's id of the face with our number: ``f0007``, with a letter first, without which no topic can be named.

    Five characters as long as the numbers allow it: hri_rviz looks for the id in a frame's last five.

    Parameters
    ----------
    number : int
    prefix : str
        Parameter `frame_prefix`; what topic names cannot hold of it becomes an underscore.
    """
    text = re.sub(r"[^A-Za-z0-9_]", "_", prefix) + f"f{number:04d}"
    return f"f{text}" if text[0].isdigit() else text


def face_window(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Box of the whole face, hairline to chin: landmarks end at the brows.

    The hairline is as far above the brows as they are above the nose's base, which is half of their way to the chin
    (the thirds of a face), also where the head is tilted.

    Parameters
    ----------
    landmarks : (68, 2) or (68, 3) array_like
        Pixels; only x and y are read.

    Returns
    -------
    (4,) float64
        Left, top, right, bottom: the first pixel and one past the last; may reach over the image's edge.
    """
    points = np.asarray(landmarks, np.float64)[:, :2]
    brows = points[BROWS]
    hairline = brows + (brows.mean(axis=0) - points[CHIN]) / 2
    everything = np.concatenate([points, hairline])
    return np.concatenate([everything.min(axis=0), everything.max(axis=0) + 1])


def face_picture(image: NDArray[np.uint8], landmarks: ArrayLike, *, aligned: bool = False) -> NDArray[np.uint8]:
    """Cut the face's window out of an image, scaled to fit `PICTURE`, centred, black around it (REP-155's `cropped`).

    Parameters
    ----------
    image : (H, W, 3) uint8
    landmarks : (68, 2) or (68, 3) array_like
        Pixels.
    aligned : bool
        Turn it first so that the eyes lie side by side (REP-155's `aligned`).

    Returns
    -------
    (128, 128, 3) uint8
        Black where the window reaches over the image's edge.
    """
    import cv2

    points = np.asarray(landmarks, np.float64)[:, :2]
    turn = _level(points) if aligned else np.eye(2)
    left, top, right, bottom = face_window(points @ turn.T)
    scale = min(PICTURE[0] / (right - left), PICTURE[1] / (bottom - top))
    width, height = max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top)))
    # Bilinear sampling skips pixels of a large face: such a one is drawn finer by a whole number and averaged.
    finer = max(1, int(1 / scale))
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * finer * turn
    matrix[:, 2] = scale * finer * (0.5 - np.array([left, top])) - 0.5  # centres at integers, hence the halves
    face = cv2.warpAffine(image, matrix, (width * finer, height * finer), flags=cv2.INTER_LINEAR)
    if finer > 1:
        face = cv2.resize(face, (width, height), interpolation=cv2.INTER_AREA)
    picture = np.zeros((PICTURE[1], PICTURE[0], 3), np.uint8)
    x, y = (PICTURE[0] - width) // 2, (PICTURE[1] - height) // 2
    picture[y : y + height, x : x + width] = face
    return picture


def _level(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation (2, 2) of the image that brings the eyes (of landmarks (68, 2)) side by side."""
    right, left = (points[eye].mean(axis=0) for eye in EYES)
    along = left - right
    up = points[BROWS].mean(axis=0) - points[CHIN]
    if np.hypot(*along) < 0.2 * np.hypot(*up):  # in profile one eye hides the other: their line says nothing
        along = np.array([-up[1], up[0]])
    c, s = along / np.hypot(*along)
    return np.array([[c, s], [-s, c]])


def tracked_landmarks(landmarks: ArrayLike, size: tuple[int, int], confidence: float) -> NDArray[np.float64]:
    """The 70 points of REP-155.

    Parameters
    ----------
    landmarks : (68, 2) or (68, 3) array_like
        Pixels.
    size : (int, int)
        Height and width of the image.
    confidence : float
        Of the face, 0 .. 1.

    Returns
    -------
    (70, 3) float64
        x and y from 0 at the image's left and top edge to 1 at the other, and the confidence. A point outside the
        image has no such coordinates: 0, 0, 0, as of a landmark that is not known. Pupils are not seen: the middle of
        the lids with confidence 0.
    """
    points = np.asarray(landmarks, np.float64)[:, :2]
    out = np.empty((70, 3))
    out[:68, :2] = points
    out[68:, :2] = [points[eye].mean(axis=0) for eye in EYES]
    out[:68, 2], out[68:, 2] = confidence, 0
    out[:, :2] = (out[:, :2] + 0.5) / size[::-1]
    out[((out[:, :2] < 0) | (out[:, :2] > 1)).any(axis=1)] = 0
    return out


class HumansOutput:
    """Publishes the faces as ROS4HRI's tools expect them: see `radan_ros.ros.answer.Output`.

    ``/humans/faces/tracked`` lists the ids, once an image; under ``/humans/faces/<id>/`` there are `roi`, `landmarks`,
    `cropped` and `aligned`, each only worked for while subscribed; ``face_<id>`` and ``gaze_<id>`` go to TF. A face
    out of sight stays on the list for `retain` seconds, for which it may come back under its id.

    The list is the whole list: consumers drop every face that is not on it. Two nodes must not publish on one.

    Parameters
    ----------
    node : Host
    settings : Settings
        `frame_prefix` and `retain` are read.
    """

    def __init__(self, node: Host, settings: Settings) -> None:
        self._node = node
        self._prefix = settings.frame_prefix
        self._retain = round(settings.retain * 1e9)
        self._faces: dict[str, _Face] = {}
        self._frame_id = ""
        self._alone = True
        self._tracked = topics.publisher(node, IdsList, f"{FACES}/tracked", topics.reliable())
        self._tf = topics.publisher(node, TFMessage, "/tf", topics.reliable(100))

    def change(self, settings: Settings) -> None:
        """Take another `retain`: the faces on the list stay, and are judged by it from the next image on."""
        self._retain = round(settings.retain * 1e9)

    def wanted(self) -> bool:
        """Always: who listens to /tf or waits for a face cannot be told from the count of subscribers."""
        return True

    def publish(self, answer: Answer) -> None:
        """Publish the list, the frames, and what is subscribed to of each face."""
        header = answer.header
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        self._frame_id = header.frame_id
        seen = {face_id(track.id, self._prefix): i for i, track in enumerate(answer.tracks)}
        for name in seen:
            if name not in self._faces:
                self._faces[name] = _Face(self._node, name)
                self._look_for_others()
            self._faces[name].seen = stamp
        # A stamp that went back or stands ends the waiting: it would never end by itself.
        kept = {
            name: face for name, face in self._faces.items() if name in seen or 0 < stamp - face.seen <= self._retain
        }
        if seen and header.frame_id:  # listeners refuse a frame without a parent
            self._tf.publish(_frames(header, {name: answer.metric[i] for name, i in seen.items()}))
        self._tracked.publish(IdsList(header=header, ids=list(kept)))
        for name, i in seen.items():
            self._faces[name].publish(header, answer.image, answer.tracks[i])
        for name in self._faces.keys() - kept.keys():
            self._faces[name].destroy(self._node)
        self._faces = kept

    def state(self) -> dict[str, int]:
        """The faces on the list, and when each was seen last (ns), in the order of the list."""
        return {name: face.seen for name, face in self._faces.items()}

    def restore(self, state: dict[str, int]) -> None:
        """These are the faces on the list."""
        self._faces = {name: _Face(self._node, name) for name in state}
        for name, seen in state.items():
            self._faces[name].seen = seen

    def clear(self) -> None:
        """Tell that there are no faces any more."""
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=self._frame_id)
        self._tracked.publish(IdsList(header=header))
        for face in self._faces.values():
            face.destroy(self._node)
        self._faces = {}

    def destroy(self) -> None:
        """Remove all publishers; faces that are still on the list are taken from it first."""
        if self._faces:
            self.clear()
        self._tracked.wait_for_all_acked(Duration(seconds=DELIVERY))
        for publisher in (self._tracked, self._tf):
            self._node.destroy_publisher(publisher)

    def _look_for_others(self) -> None:
        """Warn once where another node publishes the list as well: consumers would see the faces come and go."""
        topic = self._tracked.topic_name
        if self._alone and self._node.count_publishers(topic) > 1:
            self._alone = False
            self._node.get_logger().warning(
                f"another node publishes {topic} as well, and each list replaces the other: let one of them publish "
                "humans (parameter publish), or remap the topic"
            )


class _Face:
    """Publishes the topics of one face. Their QoS has no parameters: those of faces long gone would heap up."""

    def __init__(self, node: Host, name: str) -> None:
        self.seen = 0  # stamp, nanoseconds

        # With the default event handlers each face would put eight entities into the executor's wait set: 25 us of each
        # spin. They only warn of subscribers with another QoS.
        silent = event_handler().PublisherEventCallbacks(use_default_callbacks=False)

        def publisher(kind: Any, topic: str) -> Any:
            return node.create_publisher(kind, f"{FACES}/{name}/{topic}", topics.reliable(1), event_callbacks=silent)

        self._roi = publisher(NormalizedRegionOfInterest2D, "roi")
        self._landmarks = publisher(FacialLandmarks, "landmarks")
        self._cropped = publisher(Image, "cropped")
        self._aligned = publisher(Image, "aligned")

    def publish(self, header: Header, image: NDArray[np.uint8], track: Track) -> None:
        height, width = image.shape[:2]
        landmarks = track.face.landmarks
        # Models without a measure of presence say NaN; the face was confirmed.
        confidence = float(np.nan_to_num(track.face.confidence, nan=1.0))
        if self._roi.get_subscription_count():
            box = np.clip(face_window(landmarks) / (width, height, width, height), 0, 1)
            xmin, ymin, xmax, ymax = box.tolist()
            self._roi.publish(
                NormalizedRegionOfInterest2D(header=header, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax, c=confidence)
            )
        if self._landmarks.get_subscription_count():
            points = tracked_landmarks(landmarks, (height, width), confidence).tolist()
            message = FacialLandmarks(header=header, height=height, width=width)
            message.landmarks = [NormalizedPointOfInterest2D(x=x, y=y, c=c) for x, y, c in points]
            self._landmarks.publish(message)
        if self._cropped.get_subscription_count():
            self._cropped.publish(image_message(header, face_picture(image, landmarks), "bgr8"))
        if self._aligned.get_subscription_count():
            self._aligned.publish(image_message(header, face_picture(image, landmarks, aligned=True), "bgr8"))

    def destroy(self, node: Host) -> None:
        for publisher in (self._roi, self._landmarks, self._cropped, self._aligned):
            node.destroy_publisher(publisher)


def _frames(header: Header, faces: dict[str, MetricFace]) -> TFMessage:
    """``face_<id>`` in the frame of the image, ``gaze_<id>`` in it: the direction of the head."""
    message = TFMessage()
    for name, metric in faces.items():
        head = head_frame(header, f"face_{name}", metric)
        gaze = TransformStamped(child_frame_id=f"gaze_{name}", transform=Transform(rotation=GAZE_IN_HEAD))
        gaze.header.stamp, gaze.header.frame_id = header.stamp, head.child_frame_id
        message.transforms += [head, gaze]
    return message
