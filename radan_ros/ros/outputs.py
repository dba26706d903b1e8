"""Everything that the node publishes of an answer. Made on configure; which views there are, `publish` decides."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from radan_ros.face_models import FaceModel
from radan_ros.msg import FaceArray, FaceMeshArray, FaceTopology
from radan_ros.ros import compat, messages, topics
from radan_ros.ros.answer import Answer, Output
from radan_ros.ros.images import image_message
from radan_ros.ros.parameters import Settings, differences
from radan_ros.ros.topics import View
from radan_ros.ros.views import Cloud, Markers, Overlay


class FacesOutput:
    """``~/faces`` and ``/tf``: what a robot steers by, always published and before all else."""

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        self._prefix = settings.frame_prefix
        self._faces = topics.publisher(node, FaceArray, "~/faces", topics.reliable())
        self._tf = topics.publisher(node, TFMessage, "/tf", topics.reliable(100))

    def wanted(self) -> bool:
        """Always."""
        return True

    def publish(self, answer: Answer) -> None:
        """Publish the faces, none included, and their frames."""
        faces = list(zip(answer.tracks, answer.metric, strict=True))
        size = answer.image.shape[:2]
        self._faces.publish(
            messages.face_array(answer.header, size, answer.face_model, answer.camera.calibrated, faces)
        )
        if faces:
            self._tf.publish(messages.transforms(answer.header, self._prefix, faces))

    def clear(self) -> None:
        """Nothing to take back: each message is about one image, and carries its stamp."""

    def destroy(self) -> None:
        """Remove the publishers."""
        self._node.destroy_publisher(self._faces)
        self._node.destroy_publisher(self._tf)


class MeshesOutput(View):
    """``~/meshes``: dense meshes in the camera frame."""

    def __init__(self, node: Node, settings: Settings) -> None:
        super().__init__(node, FaceMeshArray, "~/meshes")

    def publish(self, answer: Answer) -> None:
        """Publish the meshes."""
        ids = [track.id for track in answer.tracks]
        self._publisher.publish(messages.mesh_array(answer.header, answer.face_model, ids, answer.vertices))


class PnccOutput(View):
    """``~/pncc``: the code of the face model's points, drawn."""

    def __init__(self, node: Node, settings: Settings) -> None:
        super().__init__(node, Image, "~/pncc")

    def publish(self, answer: Answer) -> None:
        """Draw and publish it."""
        self._publisher.publish(image_message(answer.header, answer.rendering.colour, "rgb8"))


class DepthOutput(View):
    """``~/depth``: metres along z of the camera frame, NaN without a face."""

    def __init__(self, node: Node, settings: Settings) -> None:
        super().__init__(node, Image, "~/depth")

    def publish(self, answer: Answer) -> None:
        """Draw and publish it."""
        self._publisher.publish(image_message(answer.header, answer.rendering.depth, "32FC1"))


def _humans(node: Node, settings: Settings) -> Output | None:
    if not compat.has_hri_msgs():
        return None
    from radan_ros.ros.hri import HumansOutput

    return HumansOutput(node, settings)


# Name in the parameter `publish`: what makes it (None where its messages are not installed), and the parameters that
# it reads and that may change.
_TABLE: dict[str, tuple[Callable[[Node, Settings], Output | None], frozenset[str]]] = {
    "meshes": (MeshesOutput, frozenset()),
    "pncc": (PnccOutput, frozenset()),
    "depth": (DepthOutput, frozenset()),
    "markers": (lambda node, _: Markers(node), frozenset()),
    "points": (lambda node, _: Cloud(node), frozenset()),
    "overlay": (lambda node, _: Overlay(node), frozenset()),
    "humans": (_humans, frozenset({"retain"})),
}


class Outputs:
    """All publishers of a configured node but the diagnostics."""

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        self._settings = settings
        self.faces = FacesOutput(node, settings)
        self._topology = topics.publisher(node, FaceTopology, "~/topology", topics.latched())
        self._views: dict[str, Output] = {}
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """Make the views that `publish` names, and remove the others."""
        changed = differences(self._settings, settings)
        self._settings = settings
        for name, view in list(self._views.items()):
            if name not in settings.publish or _TABLE[name][1] & changed:
                view.clear()
                view.destroy()
                del self._views[name]
        for name, (make, _) in _TABLE.items():
            if name in settings.publish and name not in self._views:
                made = make(self._node, settings)
                if made is not None:
                    self._views[name] = made

    def announce(self, face_model: FaceModel) -> None:
        """Publish what all meshes share, for subscribers of now and later."""
        self._topology.publish(messages.topology(face_model))

    def publish_views(self, answer: Answer) -> None:
        """Publish whatever somebody wants to see."""
        for view in self._views.values():
            if view.wanted():
                view.publish(answer)

    def clear(self) -> None:
        """Take back what would otherwise stay on show."""
        for output in (self.faces, *self._views.values()):
            output.clear()

    def destroy(self) -> None:
        """Remove all publishers."""
        for output in (self.faces, *self._views.values()):
            output.destroy()
        self._views = {}
        self._node.destroy_publisher(self._topology)
