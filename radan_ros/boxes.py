"""Box arithmetic, and the one affine map between an image and the square crop that a network sees.

A box is left, top, right, bottom in pixels: the first pixel and one past the last, so that its width is right - left.
Pixel centres lie at integers: a box from 10 to 20 covers the pixels 10 .. 19.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

CROP_SIZE = 120  # pixels a side; what every 62-parameter network of the 3DDFA family takes


def square_from_detection(box: ArrayLike) -> NDArray[np.float32]:
    """Square around a detector's box as the 3DDFA family was trained on: 1.58 times the box, 14 % lower.

    Parameters
    ----------
    box : (4,) array_like
        Left, top, right, bottom in pixels.

    Returns
    -------
    (4,) float32
        The square, side rounded down to whole pixels, not clipped to the image.
    """
    left, top, right, bottom = (float(v) for v in np.asarray(box, np.float64))
    size = (right - left + bottom - top) / 2
    side = float(np.floor(size * 1.58))
    x, y = (left + right) / 2, (top + bottom) / 2 + size * 0.14
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def square_from_landmarks(points: ArrayLike) -> NDArray[np.float32]:
    """Square around landmarks: the larger side of their tight box times the square root of two, same centre.

    Parameters
    ----------
    points : (N, 2) or (N, 3) array_like
        Landmarks in image pixels; only x and y are read.

    Returns
    -------
    (4,) float32
    """
    xy = np.asarray(points, np.float64)[:, :2]
    low, high = xy.min(axis=0), xy.max(axis=0)
    half = (high - low).max() / np.sqrt(2)
    centre = (low + high) / 2 + 0.5  # from pixel centres to the edges that a box counts in
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def crop_to_image(roi: ArrayLike, size: int = CROP_SIZE) -> NDArray[np.float64]:
    """The affine map from crop pixels to image pixels, as a (3, 3) matrix on (x, y, 1).

    Both pixel grids have their centres at integers, hence the half pixels: the crop's left edge, at -0.5,
    falls on the left edge of the first pixel of the box, at left - 0.5.
    """
    left, top, right, bottom = np.asarray(roi, np.float64)
    sx, sy = (right - left) / size, (bottom - top) / size
    return np.array([[sx, 0, left + 0.5 * sx - 0.5], [0, sy, top + 0.5 * sy - 0.5], [0, 0, 1]])


def crop(image: NDArray[np.uint8], roi: ArrayLike, size: int = CROP_SIZE) -> NDArray[np.uint8]:
    """Resample a box of an image to a square crop, bilinear, black outside the image.

    Parameters
    ----------
    image : (H, W, 3) uint8
    roi : (4,) array_like
        Left, top, right, bottom in pixels; may reach over the image's edge.
    size : int
        Side of the crop in pixels.

    Returns
    -------
    (size, size, 3) uint8
    """
    import cv2

    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(
        image, crop_to_image(roi, size)[:2], (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(warped, np.uint8)


def crop_reference(image: NDArray[np.uint8], roi: ArrayLike, size: int = CROP_SIZE) -> NDArray[np.uint8]:
    """The crop of 3DDFA's code, for comparison with its figures: the box rounded to whole pixels, then resized."""
    import cv2

    left, top, right, bottom = (int(round(float(v))) for v in np.asarray(roi))  # half to even, as the reference
    height, width = image.shape[:2]
    patch = np.zeros((bottom - top, right - left, image.shape[2]), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x0 < x1 and y0 < y1:
        patch[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return np.asarray(cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def usable(roi: ArrayLike, image_size: tuple[int, int]) -> bool:
    """Whether a box can be cropped: finite, at least 8 pixels wide and high, and at least in part inside (H, W)."""
    box = np.asarray(roi, np.float64)
    if not np.isfinite(box).all():
        return False
    left, top, right, bottom = box
    height, width = image_size
    large_enough = min(right - left, bottom - top) >= 8 and max(right - left, bottom - top) <= 8 * max(height, width)
    return bool(large_enough and left < width and top < height and right > 0 and bottom > 0)


def iou(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union of two boxes, 0 .. 1."""
    p, q = np.asarray(a, np.float64), np.asarray(b, np.float64)
    width, height = np.maximum(np.minimum(p[2:], q[2:]) - np.maximum(p[:2], q[:2]), 0)
    common = width * height
    union = np.prod(p[2:] - p[:2]) + np.prod(q[2:] - q[:2]) - common
    return float(common / union) if union > 0 else 0.0


def read_bbox_file(path: str) -> list[NDArray[np.float32]]:
    """Read a 3DDFA ``.bbox`` file: a line with the number of boxes, then ``index left top right bottom`` a line.

    Returns
    -------
    list of (4,) float32
        Left, top, right, bottom, as they stand there: some may be empty, or not finite.

    Raises
    ------
    ValueError
        Names the file and the line that cannot be read.
    """
    boxes = []
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file if line.strip()]
    if not lines or len(lines[0]) != 1 or not lines[0][0].isdecimal():
        raise ValueError(f"{path}: line 1 is not the number of boxes")
    if int(lines[0][0]) != len(lines) - 1:
        raise ValueError(f"{path}: line 1 says {lines[0][0]} boxes, and {len(lines) - 1} follow")
    for number, fields in enumerate(lines[1:], start=2):
        try:
            _, left, top, right, bottom = (float(v) for v in fields)
        except ValueError:
            raise ValueError(f"{path}: line {number} is not 'index left top right bottom'") from None
        with np.errstate(over="ignore"):
            boxes.append(np.array([left, top, right, bottom], np.float64).astype(np.float32))
    return boxes
