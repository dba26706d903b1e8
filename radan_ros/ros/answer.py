"""What the node found in one image, as it hands it to everything that publishes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from radan_ros.camera import CameraModel
from radan_ros.face_models import FaceModel
from radan_ros.metric import MetricFace, mesh_in_image, vertices_in_camera
from radan_ros.rendering import Renderer, Rendering
from radan_ros.tracking import Track


@dataclass(frozen=True)
class Answer:
    """One image and its faces. What is costly is computed when it is first asked for, and once.

    Attributes
    ----------
    header : Header
        Of the image; every output carries it unchanged.
    image : (H, W, 3) uint8
        BGR. Not to be written to.
    camera : CameraModel
    face_model : FaceModel
    tracks : sequence of Track
        The faces to publish.
    metric : sequence of MetricFace
        The same faces in the camera frame, in the same order.
    renderer : Renderer, optional
        Of the face model; without it one is made where it is needed.
    seconds : dict
        What stages of the work took so far; see `diagnostics.STAGES`.
    """

    header: Header
    image: NDArray[np.uint8]
    camera: CameraModel
    face_model: FaceModel
    tracks: Sequence[Track]
    metric: Sequence[MetricFace]
    renderer: Renderer | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def vertices(self) -> NDArray[np.float32]:
        """Dense meshes (N, V, 3) in the camera frame, metres."""
        return vertices_in_camera(self.metric, self.face_model)

    @cached_property
    def vertices_in_image(self) -> NDArray[np.float32]:
        """Dense meshes (N, V, 3): x, y in image pixels, third the depth in metres."""
        return mesh_in_image(self.vertices, self.camera)

    @cached_property
    def rendering(self) -> Rendering:
        """Depth (H, W) in metres and PNCC (H, W, 3) of all faces: one pass for whoever wants either."""
        started = time.perf_counter()
        renderer = self.renderer or Renderer(self.face_model.triangles, self.face_model.codes)
        drawn = renderer.render(self.vertices_in_image, (self.image.shape[0], self.image.shape[1]))
        self.seconds["rendering"] = time.perf_counter() - started
        return drawn


class Output(Protocol):
    """Publishes one view of the answers. Made on configure, destroyed on cleanup."""

    def wanted(self) -> bool:
        """Whether anybody would see it: nothing is computed for an output that nobody reads."""
        ...

    def publish(self, answer: Answer) -> None:
        """Publish an answer; only called where `wanted`."""
        ...

    def clear(self) -> None:
        """Take back what would otherwise stay on show (markers, lists of faces): on deactivate."""
        ...

    def state(self) -> Any:
        """What the next messages depend on besides their answer, in plain Python values: for who goes on later."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from what `state` said."""
        ...

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        ...
