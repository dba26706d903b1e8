"""Faces to messages. Every message carries the header of the image, unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, PoseWithCovariance, Quaternion, Transform, TransformStamped, Vector3
from geometry_msgs.msg import Pose as PoseMessage
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from radan_ros.camera import CameraModel
from radan_ros.face_models import FaceModel
from radan_ros.metric import MetricFace
from radan_ros.msg import Face as FaceMessage
from radan_ros.msg import FaceArray, FaceMesh, FaceMeshArray, FaceTopology
from radan_ros.pose import euler_from_rotation, quaternion_from_rotation
from radan_ros.ros.images import flat_array
from radan_ros.tracking import Track


def camera_from_info(info: CameraInfo, rectified: bool) -> CameraModel:
    """Camera of the images that come with a CameraInfo.

    Its figures are of the sensor at full resolution; the image is its region of interest, binned (0: not set).

    Raises
    ------
    ValueError
        When it is not calibrated or of an unknown distortion model.
    """
    camera = CameraModel.from_calibration(
        (info.height, info.width), info.k, info.d, info.distortion_model, info.p, rectified
    )
    roi, binning = info.roi, (info.binning_x or 1, info.binning_y or 1)
    size = (roi.height or info.height) // binning[1], (roi.width or info.width) // binning[0]
    return camera.part(size, (roi.x_offset, roi.y_offset), binning)


def face_array(
    header: Header,
    size: tuple[int, int],
    face_model: FaceModel,
    calibrated: bool,
    faces: Sequence[tuple[Track, MetricFace]],
) -> FaceArray:
    """All faces of an image of `size` (height, width); an empty message for none."""
    message = FaceArray(header=header, height=size[0], width=size[1], metric=calibrated)
    message.model, message.version = face_model.name, face_model.version
    message.faces = [_face(track, metric) for track, metric in faces]
    return message


def _face(track: Track, metric: MetricFace) -> FaceMessage:
    face, pose = track.face, metric.pose
    message = FaceMessage(id=track.id, score=float(face.score), box=face.box, roi=face.roi)
    message.confidence = float(face.confidence)
    message.parameters = flat_array("f", face.parameters)
    message.landmarks_px = np.ascontiguousarray(face.landmarks[:, :2]).reshape(-1)
    message.landmarks = metric.landmarks.reshape(-1)
    x, y, z, w = quaternion_from_rotation(pose.rotation)
    px, py, pz = (float(v) for v in pose.translation)
    message.pose = PoseWithCovariance(
        pose=PoseMessage(position=Point(x=px, y=py, z=pz), orientation=Quaternion(x=x, y=y, z=z, w=w)),
        covariance=pose.covariance.reshape(-1),
    )
    message.yaw, message.pitch, message.roll = euler_from_rotation(pose.rotation)
    return message


def transforms(header: Header, prefix: str, faces: Sequence[tuple[Track, MetricFace]]) -> TFMessage:
    """The head frames ``<prefix>face_<id>`` in the frame of the image (REP-155)."""
    return TFMessage(transforms=[head_frame(header, f"{prefix}face_{track.id}", metric) for track, metric in faces])


def head_frame(header: Header, child: str, metric: MetricFace) -> TransformStamped:
    """A head frame under the name `child`, in the frame of the image."""
    x, y, z, w = quaternion_from_rotation(metric.pose.rotation)
    px, py, pz = (float(v) for v in metric.pose.translation)
    transform = Transform(translation=Vector3(x=px, y=py, z=pz), rotation=Quaternion(x=x, y=y, z=z, w=w))
    return TransformStamped(header=header, child_frame_id=child, transform=transform)


def mesh_array(
    header: Header, face_model: FaceModel, ids: Sequence[int], vertices: NDArray[np.float32]
) -> FaceMeshArray:
    """Meshes (N, V, 3), metres in the camera frame."""
    message = FaceMeshArray(header=header, model=face_model.name, version=face_model.version)
    message.meshes = [FaceMesh(id=i, vertices=flat_array("f", mesh)) for i, mesh in zip(ids, vertices, strict=True)]
    return message


def topology(face_model: FaceModel) -> FaceTopology:
    """What all meshes of a face model share."""
    message = FaceTopology(model=face_model.name, version=face_model.version, vertex_count=len(face_model.mean))
    message.triangles = flat_array("I", face_model.triangles.astype(np.uint32))
    message.pncc_code = flat_array("B", np.clip(np.rint(face_model.codes), 0, 255).astype(np.uint8))
    message.landmarks = face_model.landmarks.astype(np.uint32)
    return message
