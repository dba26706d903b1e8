"""Everything that the node publishes of an answer. Made on configure; which views there are, `publish` decides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, runtime_checkable

from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from radan_ros.face_models import FaceModel
from radan_ros.msg import FaceArray, FaceMeshArray, FaceTopology
from radan_ros.ros import compat, messages, topics
from radan_ros.ros.answer import Answer, Output
from radan_ros.ros.images import image_message
from radan_ros.ros.parameters import Settings
from radan_ros.ros.topics import Host, View
from radan_ros.ros.views import Cloud, Markers, Overlay


class FacesOutput:
    """``~/faces`` and ``/tf``: what a robot steers by, always published and before all else."""

    def __init__(self, node: Host, settings: Settings) -> None:
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
        if faces and answer.header.frame_id:  # listeners refuse a frame without a parent
            self._tf.publish(messages.transforms(answer.header, self._prefix, faces))

    def clear(self) -> None:
        """Nothing to take back: each message is about one image, and carries its stamp."""

    def state(self) -> Any:
        """Nothing, for the same reason."""
        return None

    def restore(self, state: Any) -> None:
        """Nothing to remember."""

    def destroy(self) -> None:
        """Remove the publishers."""
        self._node.destroy_publisher(self._faces)
        self._node.destroy_publisher(self._tf)


class MeshesOutput(View):
    """``~/meshes``: dense meshes in the camera frame."""

    def __init__(self, node: Host, settings: Settings) -> None:
        super().__init__(node, FaceMeshArray, "~/meshes")

    def publish(self, answer: Answer) -> None:
        """Publish the meshes."""
        ids = [track.id for track in answer.tracks]
        self._publisher.publish(messages.mesh_array(answer.header, answer.face_model, ids, answer.vertices))


class PnccOutput(View):
    """``~/pncc``: the code of the face model's points, drawn."""

    def __init__(self, node: Host, settings: Settings) -> None:
        super().__init__(node, Image, "~/pncc")

    def publish(self, answer: Answer) -> None:
        """Draw and publish it."""
        self._publisher.publish(image_message(answer.header, answer.rendering.colour, "rgb8"))


class DepthOutput(View):
    """``~/depth``: metres along z of the camera frame, NaN without a face."""

    def __init__(self, node: Host, settings: Settings) -> None:
        super().__init__(node, Image, "~/depth")

    def publish(self, answer: Answer) -> None:
        """Draw and publish it."""
        self._publisher.publish(image_message(answer.header, answer.rendering.depth, "32FC1"))


def _humans(node: Host, settings: Settings) -> Output | None:
    if not compat.has_hri_msgs():
        return None
    from radan_ros.ros.hri import HumansOutput

    return HumansOutput(node, settings)


# Name in the parameter `publish`: what makes it (None where its messages are not installed). One that reads parameters
# which may change takes them in place, by a method `change`.
_TABLE: dict[str, Callable[[Host, Settings], Output | None]] = {
    "meshes": MeshesOutput,
    "pncc": PnccOutput,
    "depth": DepthOutput,
    "markers": lambda node, _: Markers(node),
    "points": lambda node, _: Cloud(node),
    "overlay": lambda node, _: Overlay(node),
    "humans": _humans,
}


@runtime_checkable
class Changing(Protocol):
    """An output that reads parameters which may change."""

    def change(self, settings: Settings) -> None:
        """Take their new values; must not fail."""
        ...


@contextlib.contextmanager
def _all_or_none(node: Host) -> Iterator[None]:
    """Remove the publishers that a with block has made when it fails."""
    before = list(node.publishers)
    try:
        yield
    except BaseException:
        for publisher in [p for p in node.publishers if p not in before]:
            node.destroy_publisher(publisher)
        raise


class Outputs:
    """All publishers of a configured node but the diagnostics.

    Attributes
    ----------
    closed : bool
        Nothing is published of answers any more; may be set from another thread.
    """

    def __init__(self, node: Host, settings: Settings) -> None:
        self._node = node
        self.closed = False
        self._views: dict[str, Output] = {}
        with _all_or_none(node):
            self.faces = FacesOutput(node, settings)
            self._topology = topics.publisher(node, FaceTopology, "~/topology", topics.latched())
            self.change(settings)

    def change(self, settings: Settings) -> None:
        """Make the views that `publish` names, and remove the others; when one cannot be made, nothing changes."""
        views: dict[str, Output] = {}
        with _all_or_none(self._node):
            for name, make in _TABLE.items():
                if name in settings.publish:
                    view = self._views.get(name) or make(self._node, settings)
                    if view is not None:
                        views[name] = view
        gone = [view for name, view in self._views.items() if views.get(name) is not view]
        self._views = views
        for view in views.values():
            if isinstance(view, Changing):
                view.change(settings)
        for view in gone:
            view.clear()
            view.destroy()

    def announce(self, face_model: FaceModel) -> None:
        """Publish what all meshes share, for subscribers of now and later."""
        self._topology.publish(messages.topology(face_model))

    @property
    def drawn(self) -> tuple[str, ...]:
        """The views that are made of an answer and their own `state` alone, so that another process can make them."""
        return tuple(name for name, view in self._views.items() if isinstance(view, View))

    def publish_views(self, answer: Answer, skipped: Collection[str] = ()) -> dict[str, Exception]:
        """Publish whatever somebody wants to see: the names of the views that failed, which harms no other, and why.

        Of those in `skipped`, which are in `drawn`, only the state goes on.
        """
        failed: dict[str, Exception] = {}
        for name, view in self._views.items():
            if self.closed:
                break
            if name in skipped and isinstance(view, View):
                view.skip(answer)
                continue
            try:
                if view.wanted():
                    view.publish(answer)
            except Exception as e:
                failed[name] = e
        return failed

    def state(self) -> dict[str, Any]:
        """What the views have to remember, by their names."""
        return {name: view.state() for name, view in self._views.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said of the same views."""
        for name, view in self._views.items():
            view.restore(state[name])

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
