"""What a robot has and PyPI has not, decided here and nowhere else.

``tf2_msgs`` is an ordinary import everywhere: where ROS lacks it, the Makefile builds the stand-in of ``stand_ins/``,
whose one message is the same on the wire.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


def convert_to_bgr(message: Any, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert the colours of an image message to BGR, 8 bits.

    Parameters
    ----------
    message : sensor_msgs.msg.Image
        Validated already.
    pixels : (H, W) or (H, W, C) uint8 or uint16
        A view of its data in the machine's byte order.

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
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        return _convert_without_cv_bridge(message.encoding, pixels)
    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(message, "bgr8"))
    except CvBridgeError as e:
        raise ValueError(f"encoding '{message.encoding}' cannot be converted to colour: {e}") from None


def _convert_without_cv_bridge(encoding: str, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    try:
        from rosbags.image import ImageError, image_to_cvimage
    except ImportError:
        raise ImportError(
            f"encoding '{encoding}' needs the ROS package cv_bridge, or rosbags-image (pip install rosbags-image)"
        ) from None
    # It takes rows without padding, and anything with the fields of the message.
    height, width = pixels.shape[:2]
    plain = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        data=np.ascontiguousarray(pixels),
    )
    try:
        return np.asarray(image_to_cvimage(plain, "bgr8"))
    except ImageError as e:
        raise ValueError(f"encoding '{encoding}' cannot be converted to colour: {e}") from None
