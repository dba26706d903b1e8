"""An image with the faces in it, in metres: what files and pictures are made from. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from radan_ros import drawing
from radan_ros.camera import CameraModel
from radan_ros.face import Face
from radan_ros.face_models import FaceModel
from radan_ros.metric import MetricFace, mesh_in_image, metric_face, vertices_in_camera
from radan_ros.pose import euler_from_rotation
from radan_ros.rendering import Renderer, Rendering


@dataclass(frozen=True)
class Scene:
    """One image and its faces. What is costly is computed when it is first asked for, and once.

    Attributes
    ----------
    image : (H, W, 3) uint8
        BGR. Not to be written to.
    camera : CameraModel
    face_model : FaceModel
    faces : sequence of Face
    metric : sequence of MetricFace
        The same faces in the camera frame, in the same order.
    renderer : Renderer, optional
        Of the face model; without it one is made where it is needed.
    ids : sequence of int
        A number a face, which names it and chooses its colour.
    """

    image: NDArray[np.uint8]
    camera: CameraModel
    face_model: FaceModel
    faces: Sequence[Face]
    metric: Sequence[MetricFace]
    renderer: Renderer | None
    ids: Sequence[int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]

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
        """Depth (H, W) in metres and PNCC (H, W, 3) of all faces."""
        renderer = self.renderer or Renderer(self.face_model.triangles, self.face_model.codes)
        return renderer.render(self.vertices_in_image, self.size)

    def landmark_picture(self) -> NDArray[np.uint8]:
        """The image with meshes, landmarks and numbers of the faces."""
        return drawing.overlay(self.image, self._drawn(), triangles=self.face_model.triangles)

    def overlay(self) -> NDArray[np.uint8]:
        """The image with meshes, landmarks, axes and angles of the heads; without a face it is the image."""
        return drawing.overlay(self.image, self._drawn(poses=True), self.camera, self.face_model.triangles)

    def pose_picture(self) -> NDArray[np.uint8]:
        """The image with a box around each head that opens to where it looks, and its angles."""
        out = self.image.copy()
        # Far to near, so that what is nearer lies on top.
        for i in sorted(range(len(self.faces)), key=lambda i: -self.metric[i].pose.translation[2]):
            pose, colour = self.metric[i].pose, drawing.colour_of(self.ids[i])
            drawing.draw_pose_box(out, pose.rotation, pose.translation, self.camera, colour, in_place=True)
            turned = drawing.angles_text(euler_from_rotation(pose.rotation))
            drawing.label_face(out, self.faces[i].landmarks, turned, colour)
        return out

    def _drawn(self, *, poses: bool = False) -> list[drawing.DrawnFace]:
        drawn = []
        for number, face, metric, placed in zip(self.ids, self.faces, self.metric, self.vertices_in_image, strict=True):
            label = f"face {number}"
            if poses:
                # A distance without a calibrated camera is a guess.
                label += f"   {metric.pose.translation[2]:.2f} m" if self.camera.calibrated else ""
                label += f"   {drawing.angles_text(euler_from_rotation(metric.pose.rotation))}"
            drawn.append(
                drawing.DrawnFace(
                    landmarks=face.landmarks[:, :2],
                    label=label,
                    number=number,
                    rotation=metric.pose.rotation,
                    origin=metric.pose.translation,
                    vertices=placed,
                )
            )
        return drawn


def fitted(
    faces: Sequence[Face], face_model: FaceModel, camera: CameraModel
) -> tuple[list[int], list[MetricFace], list[str]]:
    """The faces in metres: the indices of those that a pose was found for, these, and why the others have none."""
    kept, metric, reasons = [], [], []
    for i, face in enumerate(faces):
        try:
            metric.append(metric_face(face, face_model, camera))
            kept.append(i)
        except ValueError as error:
            reasons.append(f"face {i} has no pose: {error}")
    return kept, metric, reasons
