"""What one ROS has and another has not, decided here and nowhere else: packages that are not on PyPI, and what changed
between Humble and now.

``tf2_msgs`` is an ordinary import everywhere: where ROS lacks it, the Makefile builds the stand-in of ``stand_ins/``,
whose one message is the same on the wire.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


def has_hri_msgs() -> bool:
    """Whether the messages of ROS4HRI (REP-155) are installed: `radan_ros.ros.hri` imports only where they are."""
    try:
        from hri_msgs.msg import FacialLandmarks, IdsList, NormalizedRegionOfInterest2D  # noqa: F401
    except ImportError:
        return False
    return True


def event_handler() -> Any:
    """rclpy's module with the event callbacks of publishers and subscriptions, which Humble has under another name."""
    try:
        from rclpy import event_handler as module
    except ImportError:
        from rclpy import qos_event as module
    return module


def with_message_info(callback: Callable[[Any, dict[str, Any]], None]) -> Callable[..., None]:
    """A subscription's callback (message, info) as this rclpy takes it: Humble tells no info, and gets an empty one."""
    from rclpy.subscription import Subscription

    if hasattr(Subscription, "CallbackType"):
        return callback
    return lambda message: callback(message, {})


def convert_to_bgr(encoding: str, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert the colours of an image to BGR, 8 bits: by cv_bridge where it works, else by rosbags-image.

    Parameters
    ----------
    encoding : str
        As in sensor_msgs/Image.
    pixels : (H, W) or (H, W, C) uint8 or uint16
        In the machine's byte order; rows may be padded.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    ValueError
        When the encoding has no conversion to colour.
    ImportError
        Names what to install.
    """
    return _converter()(_plain(encoding, pixels))


@functools.cache
def _converter() -> Callable[[SimpleNamespace], NDArray[np.uint8]]:
    """What converts colours here, tried on one pixel: an import that fails is looked for on the disk each time."""
    try:
        _with_cv_bridge(_plain("mono8", np.zeros((1, 1), np.uint8)))
    except ImportError:  # none, or one that was built for another NumPy, which it says only when it is used
        return _with_rosbags_image
    return _with_cv_bridge


def _plain(encoding: str, pixels: NDArray[Any]) -> SimpleNamespace:
    """An image as both libraries take it, which want no more than the fields of the message.

    Rows without padding and in the machine's byte order: neither reads the others rightly (cv_bridge takes padding for
    columns, rosbags-image knows no step).
    """
    packed = np.ascontiguousarray(pixels)
    return SimpleNamespace(
        height=packed.shape[0],
        width=packed.shape[1],
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=packed.strides[0],
        data=packed,
    )


def _with_cv_bridge(plain: SimpleNamespace) -> NDArray[np.uint8]:
    from cv_bridge import CvBridge, CvBridgeError

    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(plain, "bgr8"))
    except CvBridgeError as e:
        raise ValueError(f"encoding '{plain.encoding}' cannot be converted to colour: {e}") from None


def _with_rosbags_image(plain: SimpleNamespace) -> NDArray[np.uint8]:
    try:
        from rosbags.image import ImageError, image_to_cvimage
    except ImportError:
        raise ImportError(
            f"encoding '{plain.encoding}' needs the ROS package cv_bridge, or rosbags-image (pip install rosbags-image)"
        ) from None
    try:
        return np.asarray(image_to_cvimage(plain, "bgr8"))
    except ImageError as e:
        raise ValueError(f"encoding '{plain.encoding}' cannot be converted to colour: {e}") from None
