"""The node's parameters: names, defaults, ranges and descriptions, all in this one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from radan_ros import detectors


@dataclass(frozen=True)
class Settings:
    """Values of the node's parameters; each field is a parameter of the same name."""

    model: str
    device: str
    threads: int
    detector: str
    detector_min_face: int
    detector_threshold: float
    detection_period: float
    search_period: float
    max_faces: int
    frame_prefix: str
    image_is_rectified: bool
    assumed_field_of_view: float

    @property
    def field_of_view(self) -> float:
        """The assumed horizontal field of view in radians."""
        return math.radians(self.assumed_field_of_view)


# name: (default, description, smallest, largest)
_PARAMETERS: dict[str, tuple[Any, str, float | None, float | None]] = {
    "model": ("", "Model folder (ours, 3DDFA, 3DDFA_V2 or RADAN); empty: the built-in model.", None, None),
    "device": ("auto", "Where the network and the renderer run: auto, cpu, cuda or cuda:<i>.", None, None),
    "threads": (0, "CPU threads of the network; 0 leaves it to the runtime.", 0, 256),
    "detector": ("dlib_hog", f"Face detector: {', '.join(detectors.NAMES)}.", None, None),
    "detector_min_face": (
        0,
        "Smallest face to find, pixels; 0: a sixth of the image's height. Costs time quadratically.",
        0,
        4000,
    ),
    "detector_threshold": (
        detectors.THRESHOLD,
        "Smallest score of a detection, in the detector's scale (dlib_hog: 0 finds more, of which more are none).",
        -10.0,
        10.0,
    ),
    "detection_period": (0.5, "Seconds between detections while faces are followed; 0: every image.", 0.0, 3600.0),
    "search_period": (
        0.1,
        "Seconds between detections while there is no face; detection_period if that is less.",
        0.0,
        3600.0,
    ),
    "max_faces": (10, "Most faces in one image; the least sure are left out.", 1, 1000),
    "frame_prefix": ("", "Put before the TF frames face_<id>; two nodes in one TF tree need two of them.", None, None),
    "image_is_rectified": (False, "The image is rectified: use P of CameraInfo instead of K and D.", None, None),
    "assumed_field_of_view": (60.0, "Horizontal field of view without CameraInfo, degrees.", 1.0, 179.0),
}


def declare(node: Node) -> Settings:
    """Declare all parameters on a node and read them.

    Raises
    ------
    rclpy.exceptions.ParameterException
        For a value of the wrong type or out of its range; the message names the parameter.
    """
    for field in fields(Settings):
        default, text, smallest, largest = _PARAMETERS[field.name]
        descriptor = ParameterDescriptor(description=text, read_only=True)
        if smallest is not None and largest is not None:
            if isinstance(default, float):
                descriptor.floating_point_range = [FloatingPointRange(from_value=smallest, to_value=largest, step=0.0)]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(smallest), to_value=int(largest), step=1)]
        node.declare_parameter(field.name, default, descriptor)
    return Settings(**{field.name: node.get_parameter(field.name).value for field in fields(Settings)})
