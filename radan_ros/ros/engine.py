"""What answers images: model, renderer, detector and tracker, opened as the settings say."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.exceptions import ParameterException
from std_msgs.msg import Header

from radan_ros.camera import CameraModel
from radan_ros.detectors import Detector, open_detector
from radan_ros.errors import line
from radan_ros.face_models import FaceModel
from radan_ros.metric import MetricFace, metric_face, seen_face
from radan_ros.model import Model, open_model
from radan_ros.networks.runtime import choose
from radan_ros.pipeline import Pipeline
from radan_ros.rendering import Renderer
from radan_ros.ros.answer import Answer
from radan_ros.ros.parameters import Settings, differences
from radan_ros.smoothing import Smoothing
from radan_ros.tracking import Track, Tracker, TrackerSettings

# What a wrong parameter, model or device ends in; anything else is a fault of ours and keeps its traceback.
OPEN_ERRORS = (ValueError, ImportError, OSError, RuntimeError, MemoryError, ParameterException)
# The parameters for which the model, and the detector, are opened anew.
_MODEL = {"model", "device", "threads"}
_DETECTOR = {"detector", "detector_min_face", "detector_threshold"}


@dataclass(frozen=True)
class Parts:
    """What takes time to open."""

    model: Model
    renderer: Renderer
    detector: Detector


class Engine:
    """Model, renderer, detector and tracker; used by one thread at a time; `prepare` may run beside it.

    Parameters
    ----------
    settings : Settings
    logger
        The node's.
    parts : Parts, optional
        Those of another engine with the same settings, which may share them.

    Raises
    ------
    ValueError, ImportError, OSError, RuntimeError
        Say which parameter, file or device is wrong.
    """

    def __init__(self, settings: Settings, logger: Any, parts: Parts | None = None) -> None:
        self._logger = logger
        self._settings = settings
        self.parts = parts or Parts(*_open_model(settings, logger), _open_detector(settings))
        self.tracker = Tracker(Pipeline(self.parts.model, self.parts.detector), _tracking(settings))
        self._detections = 0

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self.parts.model.network.device

    def answer(
        self,
        header: Header,
        image: NDArray[np.uint8],
        camera: CameraModel,
        left_out: Callable[[Track, ValueError], None],
        seconds: dict[str, float] | None = None,
    ) -> Answer:
        """Follow the faces into the next image, and place them before the camera.

        Parameters
        ----------
        header : Header
            Of the image.
        image : (H, W, 3) uint8
            BGR. Kept by the answer.
        camera : CameraModel
        left_out : callable
            Told of each face that no pose fits, and why.
        seconds : dict, optional
            What stages of the work took so far; goes on in the answer.

        Raises
        ------
        Exception
            Whatever the tracker raises.
        """
        seconds = {} if seconds is None else seconds
        started = time.perf_counter()
        tracks = self.tracker(image, header.stamp.sec + header.stamp.nanosec * 1e-9)
        followed = time.perf_counter()
        seconds["network"] = followed - started
        if self._detections != self.tracker.detections:
            self._detections = self.tracker.detections
            seconds["detection"] = self.tracker.detector_seconds
        face_model = self.parts.model.face_model
        placed: list[tuple[Track, MetricFace]] = []
        for track in tracks:
            try:
                metric = metric_face(track.face, face_model, camera)
                # What is published of the face in the image is what the camera sees of the head in metres.
                placed.append((replace(track, face=seen_face(track.face, metric)), metric))
            except ValueError as e:
                left_out(track, e)
        seconds["metric"] = time.perf_counter() - followed
        faces, metrics = [track for track, _ in placed], [metric for _, metric in placed]
        return Answer.of(header, image, camera, face_model, faces, metrics, self.parts.renderer, seconds)

    def prepare(self, settings: Settings) -> Parts:
        """Open what other settings need anew, beside what is in use; raises as opening the engine does."""
        changed = differences(self._settings, settings)
        parts = self.parts
        if changed & _MODEL:
            model, renderer = _open_model(settings, self._logger)
            parts = replace(parts, model=model, renderer=renderer)
        if changed & _DETECTOR:
            parts = replace(parts, detector=_open_detector(settings))
        return parts

    def apply(self, parts: Parts, settings: Settings) -> None:
        """Go over to prepared parts, which forgets the faces if the model is a new one, and to the settings."""
        if parts is not self.parts:
            self.tracker.pipeline = Pipeline(parts.model, parts.detector)
        if parts.model is not self.parts.model:
            self.tracker.reset()
        self.tracker.apply(_tracking(settings))
        self.parts, self._settings = parts, settings

    def rest(self, *, wait: bool = True) -> None:
        """Forget the faces, and end the detector's thread until the next image; `wait` for what it is at."""
        self.tracker.close(wait=wait)


def check(old: Settings, new: Settings) -> None:
    """Whether what differs between two settings can be opened, without keeping it.

    Raises
    ------
    ValueError, ImportError, OSError, RuntimeError
        Say which parameter, file or device is wrong.
    """
    changed = differences(old, new)
    # Each by itself: when a model and a device are wrong, one of them has to be changed first.
    if changed & {"model", "threads"}:
        open_model(new.model or None, device="cpu", threads=new.threads or None)
    if "device" in changed:
        choose(new.device, "auto")
    if changed & _DETECTOR:
        _open_detector(new)


def refusal(error: Exception, logger: Any) -> str:
    """The reason to give for an error to whoever asked; the log keeps the traceback of one that is our fault."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, OPEN_ERRORS):
        logger.debug(trace)
        return line(error)
    logger.error(trace)
    return f"{type(error).__name__}: {line(error)}"


def free_gpu() -> None:
    """Give memory that nobody refers to any more back to the GPU, where one was used."""
    gc.collect()
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()


def _open_model(settings: Settings, logger: Any) -> tuple[Model, Renderer]:
    """Model and renderer, with compiling and first use paid for."""
    model = open_model(settings.model or None, device=settings.device, threads=settings.threads or None)
    device = model.network.device
    try:
        renderer = _open_renderer(model.face_model, device)
    except Exception as e:  # a GPU's compiler and driver fail in kinds of their own, some only when they draw
        if device == "cpu":
            raise
        if settings.device != "auto":
            raise ValueError(f"renderer on {device}: {e}") from e
        logger.warning(f"rendering on the CPU: {e}")
        renderer = _open_renderer(model.face_model, "cpu")
    Pipeline(model).regress(np.zeros((120, 120, 3), np.uint8), [np.array([0, 0, 120, 120], np.float32)])
    return model, renderer


def _open_renderer(face_model: FaceModel, device: str) -> Renderer:
    renderer = Renderer(face_model.triangles, face_model.codes, device=device)
    renderer.render(face_model.mean[None] * np.float32(face_model.unit), (32, 32))
    return renderer


def _open_detector(settings: Settings) -> Detector:
    try:
        return open_detector(
            settings.detector, min_face=settings.detector_min_face or None, threshold=settings.detector_threshold
        )
    except ValueError as error:
        raise ValueError(f"detector, detector_min_face: {error}") from error


def _tracking(settings: Settings) -> TrackerSettings:
    return TrackerSettings(
        detection_period=settings.detection_period,
        search_period=settings.search_period,
        max_faces=settings.max_faces,
        min_confidence=settings.min_confidence,
        confirm_images=settings.confirm_images,
        retain=settings.retain,
        deterministic=settings.deterministic_ids,
        smoothing=Smoothing(settings.smoothing) if settings.smoothing else None,
    )
