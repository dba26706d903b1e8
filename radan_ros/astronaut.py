"""A moving picture that needs no camera: a portrait of NASA's before a camera that is held by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray


class Astronaut:
    """The portrait of Eileen Collins (NASA, public domain; scikit-image carries it) before a moving camera.

    640x480, 30 frames a second, 6 seconds; the same frames each time, and the last leads back to the first, so that a
    loop has no jump.
    """

    skipped = 0
    size = (480, 640)
    fps = 30.0
    count: int | None = 180
    name = "built-in picture (astronaut)"

    _FACE = (222.0, 118.0)
    _BORDER = 192

    def __init__(self) -> None:
        try:
            from skimage import data
        except ImportError as error:
            raise ImportError(f"the built-in picture needs scikit-image: pip install scikit-image ({error})") from None
        self._canvas = _blurred_border(np.ascontiguousarray(data.astronaut()[:, :, ::-1]), self._BORDER)

    @staticmethod
    def motion(index: int) -> NDArray[np.float64]:
        """Similarity from pixels of the picture (512x512) to pixels of frame `index`, (2, 3)."""
        turn = 2 * math.pi * index / 180
        scale = 1.55 + 0.3 * math.sin(turn - 0.6)
        angle = math.radians(11 * math.sin(2 * turn))
        centre = np.array([300 + 70 * math.sin(turn), 215 + 22 * math.sin(2 * turn + 1)])
        rotation = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return np.column_stack([rotation, centre - rotation @ np.array(Astronaut._FACE)])

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` of the motion, (480, 640, 3) uint8 BGR."""
        matrix = self.motion(index)
        matrix[:, 2] -= matrix[:, :2] @ np.array([self._BORDER, self._BORDER])
        height, width = self.size
        warped = cv2.warpAffine(
            self._canvas, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(warped, np.uint8)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.frame(index) for index in range(180))


def _blurred_border(picture: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
    """The picture with a strongly blurred reflection around it, and a soft edge between the two."""
    wide = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REFLECT)
    blurred = cv2.GaussianBlur(wide, (0, 0), 24).astype(np.float32)
    inside = np.zeros(wide.shape[:2], np.float32)
    inside[border + 10 : -border - 10, border + 10 : -border - 10] = 1
    # Within the 10 pixels inside the edge, so that nothing of the sharp reflection shows.
    weight = cv2.blur(inside, (19, 19))[:, :, None]
    return np.asarray(np.rint(wide * weight + blurred * (1 - weight)), np.uint8)
