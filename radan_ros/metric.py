"""Faces in metres: the pose of the head, its landmarks and its mesh in the camera frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radan_ros.camera import CameraModel
from radan_ros.face import Face
from radan_ros.face_models import FaceModel
from radan_ros.pose import (
    HEAD_IN_MODEL,
    HeadPose,
    WeakPerspective,
    decompose_camera,
    head_rotation,
    perspective_fit,
)

SELLION = 27  # landmark at the origin of the head frame (REP-155)
# Assumed error of a landmark relative to the face box: about the mean error of this family of networks on
# photographs (NME 3 to 4 %), halved since the errors of 68 landmarks are only in part common to all.
_LANDMARK_SIGMA = 0.02
# Relative spread of the distance: of adult heads, and of the focal length where a field of view is assumed.
_SIZE_SPREAD, _FOCAL_SPREAD = 0.04, 0.5


@dataclass(frozen=True)
class MetricFace:
    """A face in the camera frame.

    Attributes
    ----------
    pose : HeadPose
        Of the head frame in the camera frame, metres.
    landmarks : (68, 3) float32
        In the camera frame, metres.
    """

    pose: HeadPose
    landmarks: NDArray[np.float32]


def to_head_frame(points: NDArray[np.float32], sellion: NDArray[np.float32], unit: float) -> NDArray[np.float64]:
    """Points of the face model (…, 3) in model units to the head frame in metres, origin at `sellion` (3,)."""
    return np.asarray((points.astype(np.float64) - sellion) @ HEAD_IN_MODEL * unit)


def metric_face(face: Face, face_model: FaceModel, camera: CameraModel) -> MetricFace:
    """Fit the reconstructed shape, in metres, to the face's landmarks through the camera.

    The metres come from the face model's unit and the reconstructed shape: a head of another size than that is placed
    too near or too far by the same ratio (`perspective_fit` states the spread, in the covariance).

    Raises
    ------
    ValueError
        When no pose in front of the camera fits.
    """
    points = face_model.landmark_points(face.coefficients[None])[0]
    in_head = to_head_frame(points, points[SELLION], face_model.unit)
    weak = decompose_camera(face.camera)
    guess = WeakPerspective(
        weak.scale / face_model.unit, head_rotation(weak.rotation), face.landmarks[SELLION].astype(np.float64)
    )
    size = float(np.sqrt(np.prod(face.box[2:] - face.box[:2])))
    spread = _SIZE_SPREAD if camera.calibrated else _FOCAL_SPREAD
    pose = perspective_fit(
        in_head, face.landmarks[:, :2], camera, guess, pixel_sigma=_LANDMARK_SIGMA * size, size_spread=spread
    )
    return MetricFace(pose, (in_head @ pose.rotation.T + pose.translation).astype(np.float32))


def vertices_in_camera(
    faces: Sequence[Face], metric: Sequence[MetricFace], face_model: FaceModel
) -> NDArray[np.float32]:
    """Dense meshes in the camera frame.

    Returns
    -------
    (N, V, 3) float32
        Metres: x right, y down, z forward.
    """
    if not faces:
        return np.zeros((0, len(face_model.mean), 3), np.float32)
    shapes = face_model.vertices(np.stack([face.coefficients for face in faces]))
    sellion = shapes[:, face_model.landmarks[SELLION]]
    rotations = np.stack([m.pose.rotation for m in metric]) @ HEAD_IN_MODEL.T * face_model.unit
    # One product instead of a chain over the dense mesh: camera = A shape + (t - A sellion).
    offsets = np.stack([m.pose.translation for m in metric]) - np.einsum("nij,nj->ni", rotations, sellion)
    return np.asarray(shapes @ rotations.transpose(0, 2, 1).astype(np.float32) + offsets[:, None].astype(np.float32))


def mesh_in_image(vertices: NDArray[np.float32], camera: CameraModel) -> NDArray[np.float32]:
    """Meshes (N, V, 3) in the camera frame to what the renderer draws: x, y in pixels, third the depth in metres.

    Vertices at or behind the camera are NaN in x and y: the renderer leaves their triangles out.
    """
    out = np.empty_like(vertices)
    for mesh, target in zip(vertices, out, strict=True):
        target[:, :2] = camera.project(mesh)
        target[:, 2] = mesh[:, 2]
    return out
