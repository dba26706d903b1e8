"""Dense 3D faces from camera images: mesh, landmarks, metric head pose, depth, PNCC (RADAN, Zhou et al., FG 2021).

From a picture to meshes::

    import radan_ros

    image = radan_ros.read_picture("picture.jpg")
    pipeline = radan_ros.Pipeline(radan_ros.open_model(), radan_ros.open_detector())
    faces = pipeline(image)  # boxes -> parameters and 68 landmarks
    vertices = pipeline.vertices(faces)  # -> dense meshes in image pixels

and on to metres, in the camera frame::

    import math

    camera = radan_ros.CameraModel.from_field_of_view(image.shape[:2], math.radians(60))
    heads = [radan_ros.metric_face(face, pipeline.model.face_model, camera) for face in faces]
    meshes = radan_ros.vertices_in_camera(heads, pipeline.model.face_model)

The names in `__all__` are stable: what they take and return changes only with a note of it. ``docs/library.md`` shows
each at work. Nothing here needs ROS except ``radan_ros.ros`` and the generated ``radan_ros.msg``.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own, without loading it
if TYPE_CHECKING:
    from radan_ros.camera import CameraModel
    from radan_ros.detectors import open_detector
    from radan_ros.export import write_mesh
    from radan_ros.face import Detection, Face
    from radan_ros.fitting import fit_landmarks
    from radan_ros.metric import metric_face, vertices_in_camera
    from radan_ros.model import Model, open_model
    from radan_ros.pictures import read_picture
    from radan_ros.pipeline import Pipeline
    from radan_ros.tracking import Tracker

__all__ = [
    "CameraModel",
    "Detection",
    "Face",
    "Model",
    "Pipeline",
    "Tracker",
    "fit_landmarks",
    "metric_face",
    "open_detector",
    "open_model",
    "read_picture",
    "vertices_in_camera",
    "write_mesh",
]

# Loaded when they are asked for (PEP 562): whoever only wants radan_ros.msg needs none of the libraries underneath.
_MODULES = {
    "CameraModel": "camera",
    "Detection": "face",
    "Face": "face",
    "Model": "model",
    "Pipeline": "pipeline",
    "Tracker": "tracking",
    "fit_landmarks": "fitting",
    "metric_face": "metric",
    "open_detector": "detectors",
    "open_model": "model",
    "read_picture": "pictures",
    "vertices_in_camera": "metric",
    "write_mesh": "export",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> object:
        import importlib

        if name in _MODULES:
            value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        else:  # radan_ros.drawing after import radan_ros
            missing = AttributeError(f"module {__name__!r} has no attribute {name!r}")
            if name.startswith("_"):
                raise missing
            try:
                value = importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
                raise missing from None
        globals()[name] = value
        return value
