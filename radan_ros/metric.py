"""Faces in metres: the pose of the head, its landmarks and its mesh in the camera frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from radan_ros.camera import CameraModel
from radan_ros.face import Face
from radan_ros.face_models import FaceModel
from radan_ros.pose import HEAD_IN_MODEL, HeadPose, decompose_camera, head_rotation, perspective_fit

SELLION = 27  # landmark at the origin of the head frame (REP-155)
# Assumed error of a landmark in x and in y, relative to the face box: on photographs, networks of this family are off
# by 3 to 4 % of it in the mean.
_LANDMARK_SIGMA = 0.02
# Relative spread of the size of adult heads, and of the focal length where a field of view is assumed.
_SIZE_SPREAD, _FOCAL_SPREAD = 0.04, 0.5
# How far the perspective fit may change the shape that the network saw in weak perspective: standard deviation of what
# each mode moves, in metres, the root mean square over the landmarks or over the mesh, whichever is larger. The scale
# of a model's coefficients does not matter then. Measured on rendered faces and on best weak-perspective answers
# (benchmark/pose.py): half as much leaves more of what weak perspective does to the shape (2.6 against 2.1 mm at
# 0.5 m), twice as much bends near heads to it (rotation 2.0 against 1.7 degrees, distance 1.9 against 1.5 %).
_FREEDOM = 0.5e-3
# The errors of a network's landmarks have common causes: 68 of them tell as little as so many independent ones would,
# by the errors of position and rotation on rendered faces (benchmark/pose.py).
_INDEPENDENT = 4


@dataclass(frozen=True)
class MetricFace:
    """A face in the camera frame: one rigid head, whose mesh, landmarks and pose agree.

    Attributes
    ----------
    pose : HeadPose
        Of the head frame in the camera frame, metres.
    landmarks : (68, 3) float32
        In the camera frame, metres.
    coefficients : (50,) float32
        Shape and expression, as the perspective fit has them: near those of the network, which sees weak perspective.
    landmarks_px : (68, 2) float32
        The landmarks in the image: what the camera sees of `landmarks`.
    """

    pose: HeadPose
    landmarks: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    landmarks_px: NDArray[np.float32]


def to_head_frame(points: NDArray[np.float32], sellion: NDArray[np.float32], unit: float) -> NDArray[np.float64]:
    """Points of the face model (…, 3) in model units to the head frame in metres, origin at `sellion` (3,)."""
    return np.asarray((points.astype(np.float64) - sellion) @ HEAD_IN_MODEL * unit)


def metric_face(face: Face, face_model: FaceModel, camera: CameraModel) -> MetricFace:
    """Fit the reconstructed head, in metres, to the face's landmarks through the camera.

    The metres come from the face model's unit and the reconstructed shape: a head of another size than that is placed
    too near or too far by the same ratio. Where the camera is not calibrated, so is one that is seen through another
    lens than the assumed one, and off the axis it is turned, too. The covariance states both.

    Raises
    ------
    ValueError
        When no pose in front of the camera fits.
    """
    mean, modes, freedom = _landmarks_of(face_model)
    coefficients = face.coefficients.astype(np.float64)
    points = mean + (modes @ coefficients).T
    size = float(np.sqrt(np.prod(face.box[2:] - face.box[:2])))
    pose, change = perspective_fit(
        points,
        face.landmarks[:, :2],
        camera,
        head_rotation(decompose_camera(face.camera).rotation),
        modes=modes * freedom,
        pixel_sigma=_LANDMARK_SIGMA * size,
        independent=_INDEPENDENT,
        size_spread=_SIZE_SPREAD,
        focal_spread=0.0 if camera.calibrated else _FOCAL_SPREAD,
    )
    change = change * freedom
    in_camera = (points + (modes @ change).T) @ pose.rotation.T + pose.translation
    return MetricFace(
        pose, in_camera.astype(np.float32), (coefficients + change).astype(np.float32), camera.project(in_camera)
    )


class _Landmarks(NamedTuple):
    """What the fit needs of a face model: metres, in the head frame; the sellion stays at the origin."""

    mean: NDArray[np.float64]  # (68, 3)
    modes: NDArray[np.float64]  # (3, 68, M)
    freedom: NDArray[np.float64]  # (M,), standard deviation of what the fit may change of each coefficient


_landmarks: WeakKeyDictionary[FaceModel, _Landmarks] = WeakKeyDictionary()  # computed once for each face model


def _landmarks_of(face_model: FaceModel) -> _Landmarks:
    if face_model not in _landmarks:
        mean = face_model.mean[face_model.landmarks]
        bases = (face_model.shape_basis, face_model.expression_basis)
        at_landmarks = np.concatenate([basis[face_model.landmarks] for basis in bases], axis=2).astype(np.float64)
        moved = np.einsum("lim,ij->jlm", at_landmarks - at_landmarks[SELLION], HEAD_IN_MODEL) * face_model.unit
        squares = np.concatenate([np.einsum("vim,vim->m", basis, basis) for basis in bases]) / len(face_model.mean)
        largest = np.sqrt(np.maximum(squares * face_model.unit**2, (moved**2).sum(axis=(0, 1)) / moved.shape[1]))
        freedom = np.where(largest > 0, _FREEDOM / np.maximum(largest, 1e-30), 0)
        in_head = to_head_frame(mean, mean[SELLION], face_model.unit)
        _landmarks[face_model] = _Landmarks(in_head, np.ascontiguousarray(moved), freedom)
    return _landmarks[face_model]


def seen_face(face: Face, metric: MetricFace) -> Face:
    """The face with its landmarks where the camera sees those of the metric head: what goes with mesh, depth and pose.

    The network's own are those of a weak-perspective head, which differ by 1 % of the face at half a metre.
    """
    return replace(face, landmarks=np.column_stack([metric.landmarks_px, face.landmarks[:, 2]]))


def vertices_in_camera(metric: Sequence[MetricFace], face_model: FaceModel) -> NDArray[np.float32]:
    """Dense meshes in the camera frame.

    Returns
    -------
    (N, V, 3) float32
        Metres: x right, y down, z forward.
    """
    if not metric:
        return np.zeros((0, len(face_model.mean), 3), np.float32)
    shapes = face_model.vertices(np.stack([m.coefficients for m in metric]))
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
