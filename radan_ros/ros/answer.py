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
from radan_ros.metric import MetricFace
from radan_ros.rendering import Renderer, Rendering
from radan_ros.scene import Scene
from radan_ros.tracking import Track


@dataclass(frozen=True, kw_only=True)
class Answer(Scene):
    """One image and the faces to publish.

    Attributes
    ----------
    header : Header
        Of the image; every output carries it unchanged.
    tracks : sequence of Track
        The faces.
    seconds : dict
        What stages of the work took so far; see `diagnostics.STAGES`.
    """

    header: Header
    tracks: Sequence[Track]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        header: Header,
        image: NDArray[np.uint8],
        camera: CameraModel,
        face_model: FaceModel,
        tracks: Sequence[Track],
        metric: Sequence[MetricFace],
        renderer: Renderer | None = None,
        seconds: dict[str, float] | None = None,
    ) -> Answer:
        """Make the answer whose faces are those of the tracks."""
        faces, ids = [track.face for track in tracks], [track.id for track in tracks]
        seconds = {} if seconds is None else seconds
        return cls(
            image, camera, face_model, faces, metric, renderer, ids, header=header, tracks=tracks, seconds=seconds
        )

    @cached_property
    def rendering(self) -> Rendering:
        """As of the scene: one pass for whoever wants depth or PNCC."""
        started = time.perf_counter()
        drawn = super().rendering
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
