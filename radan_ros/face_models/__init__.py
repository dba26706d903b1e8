"""3D morphable face models: what they are, and how each file format of them is read."""

from radan_ros.face_models.bfm import read_3ddfa, read_3ddfa_v2
from radan_ros.face_models.face_model import FaceModel
from radan_ros.face_models.native import read_face_model, write_face_model

__all__ = ["FaceModel", "read_3ddfa", "read_3ddfa_v2", "read_face_model", "write_face_model"]
