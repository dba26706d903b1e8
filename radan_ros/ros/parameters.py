"""The node's parameters: names, defaults, ranges and descriptions, all in this one place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from radan_ros import detectors

TRANSPORTS = ("raw", "compressed")
OUTPUTS = ("meshes", "pncc", "depth", "markers", "points", "overlay", "humans")  # what `publish` may name


def _parameter(
    default: Any, description: str, low: float | None = None, high: float | None = None, *, fixed: str = ""
) -> Any:
    """A field of `Settings` with what ROS shall know of it; `fixed` says why it cannot change while the node runs."""
    if fixed:
        description += f" Read-only: {fixed}."
    return field(default=default, metadata={"description": description, "range": (low, high), "fixed": bool(fixed)})


@dataclass(frozen=True)
class Settings:
    """Values of the node's parameters; each field is a parameter of the same name. Without arguments, the defaults."""

    model: str = _parameter("", "Model folder (ours, 3DDFA, 3DDFA_V2 or RADAN); empty: the built-in model.")
    device: str = _parameter("auto", "Where the network and the renderer run: auto, cpu, cuda or cuda:<i>.")
    threads: int = _parameter(0, "CPU threads of the network; 0 leaves it to the runtime.", 0, 256)
    detector: str = _parameter("dlib_hog", f"Face detector: {', '.join(detectors.NAMES)}.")
    detector_min_face: int = _parameter(
        0, "Smallest face to find, pixels; 0: a sixth of the image's height. Costs time quadratically.", 0, 4000
    )
    detector_threshold: float = _parameter(
        detectors.THRESHOLD,
        "Smallest score of a detection, in the detector's scale (dlib_hog: 0 finds more, of which more are none).",
        -10.0,
        10.0,
    )
    detection_period: float = _parameter(
        0.5, "Seconds between detections while faces are followed; 0: as often as it can.", 0.0, 3600.0
    )
    search_period: float = _parameter(
        0.1, "Seconds between detections while there is no face; detection_period if that is less.", 0.0, 3600.0
    )
    max_faces: int = _parameter(10, "Most faces in one image; new ones wait for a place.", 1, 1000)
    min_confidence: float = _parameter(
        0.5, "A followed face whose probability of being one falls below this is dropped.", 0.0, 1.0
    )
    confirm_images: int = _parameter(2, "Images in a row that must show a face before it is published.", 1, 100)
    retain: float = _parameter(
        1.0, "Seconds for which a face out of sight keeps its id, should it come back.", 0.0, 3600.0
    )
    deterministic_ids: bool = _parameter(
        False, "For tests: every image waits for the detector, so that the same images give the same answers."
    )
    smoothing: float = _parameter(
        1.0, "Factor on the time constants of the smoothing of pose, shape and expression; 0: none.", 0.0, 100.0
    )
    frame_prefix: str = _parameter(
        "",
        "Put before the TF frames face_<id>; two nodes in one TF tree need two of them.",
        fixed="frames that were published under another name would stay in the listeners' trees",
    )
    image_is_rectified: bool = _parameter(False, "The image is rectified: use P of CameraInfo instead of K and D.")
    assumed_field_of_view: float = _parameter(60.0, "Horizontal field of view without CameraInfo, degrees.", 1.0, 179.0)
    image_transport: str = _parameter(
        "raw",
        "How images come: raw (topic image, sensor_msgs/Image) or compressed (topic image/compressed, "
        "sensor_msgs/CompressedImage with JPEG or PNG).",
        fixed="the subscription's topic and its QoS overrides are named after it",
    )
    max_rate: float = _parameter(
        0.0, "Most images a second, by their stamps; the others are skipped before any work. 0: all.", 0.0, 1000.0
    )
    publish: tuple[str, ...] = _parameter(
        OUTPUTS,
        f"Outputs that may be published: {', '.join(OUTPUTS)}; each only while it has a subscriber. Faces and TF are "
        'always published. None of them: [""].',
    )
    camera_timeout: float = _parameter(
        2.0, "Seconds without an image after which the diagnostics warn; 0: never.", 0.0, 3600.0
    )

    def __post_init__(self) -> None:
        """Raise ValueError, naming the parameter, for a value that no range of ROS refuses."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{f.name} is {value}, not a finite number")
        for name, known in (("detector", detectors.NAMES), ("image_transport", TRANSPORTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} '{getattr(self, name)}' is unknown (known: {', '.join(known)})")
        if self.frame_prefix.startswith("/"):
            raise ValueError(f"frame_prefix '{self.frame_prefix}' begins with a slash, which tf2 takes in no frame")
        unknown = [name for name in self.publish if name not in OUTPUTS]
        if unknown:
            raise ValueError(f"publish names '{unknown[0]}', which is unknown (known: {', '.join(OUTPUTS)})")

    @property
    def field_of_view(self) -> float:
        """The assumed horizontal field of view in radians."""
        return math.radians(self.assumed_field_of_view)


_FIELDS = {f.name: f for f in fields(Settings)}


def declare(node: Node) -> Settings:
    """Declare all parameters on a node and read them.

    Raises
    ------
    rclpy.exceptions.ParameterException, ValueError
        For a value of the wrong type or out of its range; the message names the parameter.
    """
    for f in _FIELDS.values():
        descriptor = ParameterDescriptor(description=f.metadata["description"], read_only=f.metadata["fixed"])
        low, high = f.metadata["range"]
        if isinstance(f.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
        elif low is not None:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        node.declare_parameter(f.name, list(f.default) if isinstance(f.default, tuple) else f.default, descriptor)
    return changed(Settings(), (node.get_parameter(name) for name in _FIELDS))


def changed(settings: Settings, parameters: Iterable[Parameter]) -> Settings:
    """Settings with the values of some parameters; others than ours (QoS overrides, use_sim_time) are left out.

    Raises
    ------
    ValueError
        When the result as a whole is not valid; names the parameter.
    """
    return replace(settings, **{p.name: _value(p.value) for p in parameters if p.name in _FIELDS})


def from_values(values: Mapping[str, Any]) -> Settings:
    """Settings of which some are given, checked as a node's parameters are; the others are the defaults.

    Raises
    ------
    ValueError
        For a name that is none, a value of the wrong type or out of its range; names the parameter.
    """
    unknown = [name for name in values if name not in _FIELDS]
    if unknown:
        raise ValueError(f"{unknown[0]} is no parameter (known: {', '.join(_FIELDS)})")
    good: dict[str, Any] = {}
    for name, value in values.items():
        default, (low, high) = _FIELDS[name].default, _FIELDS[name].metadata["range"]
        kind = list if isinstance(default, tuple) else type(default)
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (float, int) if kind is float else kind):
            raise ValueError(f"{name} is {value!r}, not of type {kind.__name__}")
        if low is not None and not low <= value <= high:
            raise ValueError(f"{name} is {value}, not between {low:g} and {high:g}")
        good[name] = float(str(value)) if kind is float else _value(value)
    return replace(Settings(), **good)


def _value(value: Any) -> Any:
    # An array of strings cannot be empty in a parameter file, where its type would be unknown: [""] is.
    return tuple(name for name in value if name) if isinstance(value, list) else value


def differences(old: Settings, new: Settings) -> set[str]:
    """Names of the parameters in which two settings differ."""
    return {name for name in _FIELDS if getattr(old, name) != getattr(new, name)}
