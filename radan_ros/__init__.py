"""Dense 3D faces from camera images: mesh, landmarks, metric head pose, depth, PNCC (RADAN, Zhou et al., FG 2021).

The whole library in three lines::

    pipeline = radan_ros.Pipeline(radan_ros.open_model(), radan_ros.open_detector("dlib_hog"))
    faces = pipeline(image)                # boxes -> parameters and 68 landmarks
    vertices = pipeline.vertices(faces)    # -> dense meshes in image pixels

Nothing here needs ROS except ``radan_ros.ros`` and the generated ``radan_ros.msg``.
"""

from radan_ros.camera import CameraModel
from radan_ros.detectors import open_detector
from radan_ros.face import Detection, Face
from radan_ros.fitting import fit_landmarks
from radan_ros.model import Model, open_model
from radan_ros.pipeline import Pipeline

__all__ = ["CameraModel", "Detection", "Face", "Model", "Pipeline", "fit_landmarks", "open_detector", "open_model"]
