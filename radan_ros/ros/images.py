"""sensor_msgs/Image and CompressedImage to arrays and back: validated, and without a copy where none is needed."""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from radan_ros.ros import compat

# Encoding: (bytes a channel, channels). 8UC1 and 8UC3 carry no colour order: read as mono8 and bgr8, as cv_bridge does.
_ENCODINGS = {
    "bgr8": (1, 3),
    "rgb8": (1, 3),
    "mono8": (1, 1),
    "8UC1": (1, 1),
    "8UC3": (1, 3),
    "bgra8": (1, 4),
    "rgba8": (1, 4),
    "mono16": (2, 1),
    "bgr16": (2, 3),
    "rgb16": (2, 3),
    "yuv422_yuy2": (1, 2),
    "yuyv": (1, 2),
    "yuv422": (1, 2),
    "uyvy": (1, 2),
    **{f"bayer_{order}{bits}": (bits // 8, 1) for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)},
}
# The first two of the four are YUYV, the others UYVY: each has an old and a new name in sensor_msgs.
_SAME_AS = {"8UC1": "mono8", "8UC3": "bgr8", "yuv422_yuy2": "yuyv", "yuv422": "uyvy"}
ENCODINGS = tuple(_ENCODINGS)


def image_view(message: Image) -> NDArray[Any]:
    """The pixels of an image message as an array that shares its memory.

    Returns
    -------
    (H, W) or (H, W, C) uint8 or uint16
        In the message's channel order (YUV 4:2:2: two bytes a pixel); rows may be padded (strided), as `step` says.
        16-bit images of the other byte order are copied.

    Raises
    ------
    ValueError
        Says which field of the message is wrong.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding not in _ENCODINGS:
        raise ValueError(f"encoding '{encoding}' is not supported (supported: {', '.join(ENCODINGS)})")
    if height == 0 or width == 0:
        raise ValueError(f"the image is empty: width {width}, height {height}")
    depth, channels = _ENCODINGS[encoding]
    if channels == 2 and width % 2:
        raise ValueError(f"width is {width}, but {encoding} holds its pixels in pairs")
    row = width * channels * depth
    if step < row:
        raise ValueError(f"step is {step} bytes, but a row of {width} {encoding} pixels takes {row}")
    data = np.frombuffer(message.data, np.uint8)
    needed = step * (height - 1) + row  # the last row may lack its padding
    if len(data) < needed:
        raise ValueError(
            f"data holds {len(data)} bytes, but {width}x{height} {encoding} with step {step} takes {needed}"
        )
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(f"{order}u2") if depth == 2 else np.dtype(np.uint8)
    shape: tuple[int, ...] = (height, width) if channels == 1 else (height, width, channels)
    strides = (step, depth) if channels == 1 else (step, depth * channels, depth)
    view: NDArray[Any] = np.ndarray(shape, dtype, data, strides=strides)
    if depth == 2 and bool(message.is_bigendian) != (sys.byteorder == "big"):
        return view.astype(dtype.newbyteorder("="))
    return view


def image_to_bgr(message: Image) -> NDArray[np.uint8]:
    """An image message as (H, W, 3) uint8 BGR; bgr8 without padding is a view of the message.

    Raises
    ------
    ValueError
        Says which field of the message is wrong.
    """
    view = image_view(message)
    encoding = _SAME_AS.get(message.encoding, message.encoding)
    if encoding == "bgr8":
        return np.ascontiguousarray(view)
    if encoding in ("yuyv", "uyvy"):
        return _yuv_to_bgr(encoding, view)
    return compat.convert_to_bgr(encoding, view)


def _yuv_to_bgr(encoding: str, pairs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of YUV 4:2:2 (H, W, 2), by BT.601 with the limited range that cameras use."""
    import cv2

    code = cv2.COLOR_YUV2BGR_YUYV if encoding == "yuyv" else cv2.COLOR_YUV2BGR_UYVY
    return np.asarray(cv2.cvtColor(pairs, code), np.uint8)


def compressed_to_bgr(message: CompressedImage) -> NDArray[np.uint8]:
    """A JPEG or PNG as (H, W, 3) uint8 BGR; 16 bits lose their lower half.

    ``format`` is read as compressed_image_transport writes it: ``jpeg`` and ``png`` hold colours as these formats do;
    ``bgr8; jpeg compressed bgr8`` names the encoding before compression and the one that was compressed.

    Raises
    ------
    ValueError
        Says what is wrong with the message.
    """
    import cv2

    encoding, _, compression = message.format.partition(";")
    data = np.frombuffer(message.data, np.uint8)
    if "compressedDepth" in compression:
        raise ValueError(f"format '{message.format}' is a depth image")
    bayer = encoding.startswith("bayer_")
    # Not turned by what the JPEG says of its orientation: CameraInfo and frame are those of the unturned image.
    flags = cv2.IMREAD_UNCHANGED if bayer else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as e:
        raise ValueError(f"format '{message.format}': {e.err}") from None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes of format '{message.format}' are no JPEG or PNG that can be read")
    if bayer and pixels.ndim == 2:
        return compat.convert_to_bgr(encoding, pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"format '{message.format}' does not fit the image in it ({pixels.dtype} {pixels.shape})")
    colour = encoding.rstrip("0123456789") in ("rgb", "bgr", "rgba", "bgra")
    if compression and colour and "compressed bgr" not in compression:
        return np.ascontiguousarray(pixels[..., ::-1])
    return np.asarray(pixels, np.uint8)


def to_bgr(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Either kind of image message as (H, W, 3) uint8 BGR; raises ValueError as `image_to_bgr` does."""
    return compressed_to_bgr(message) if isinstance(message, CompressedImage) else image_to_bgr(message)


def image_message(header: Header, pixels: NDArray[Any], encoding: str) -> Image:
    """An array as an image message.

    Parameters
    ----------
    header : std_msgs.msg.Header
        Copied as it is.
    pixels : (H, W) or (H, W, C) array
        In the machine's byte order.
    encoding : str
        E.g. ``32FC1`` or ``rgb8``.
    """
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = pixels.nbytes // max(1, pixels.shape[0])
    message.data = flat_array(
        "B", pixels.view(np.uint8) if pixels.flags.c_contiguous else np.ascontiguousarray(pixels).view(np.uint8)
    )
    return message


def flat_array(typecode: str, values: NDArray[Any]) -> array.array[Any]:
    """NumPy values as the array.array that rclpy takes as it is: anything else it checks item by item."""
    flat = array.array(typecode)
    flat.frombytes(np.ascontiguousarray(values).data.cast("B") if values.size else b"")
    return flat
