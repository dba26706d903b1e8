"""dlib's frontal face detector: histograms of oriented gradients, a linear classifier (King, 2015)."""

from __future__ import annotations

import copy
import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.face import Detection

WINDOW = 80  # pixels: side of the smallest face that dlib's detector finds
SMALLEST = 40  # pixels: faces under this are too coarse to search for unasked


class DlibHogDetector:
    """dlib HOG on an image reduced (or enlarged) so that the smallest face asked for is as large as its window."""

    name = "dlib_hog"

    def __init__(self, min_face: int | None, threshold: float, smallest_part: int) -> None:
        opened = _opened()
        if min_face is not None and min_face < 20:
            raise ValueError(f"min_face is {min_face}: dlib_hog cannot find faces under 20 pixels")
        self._detector = copy.deepcopy(opened)
        self._lock = threading.Lock()  # it has one scratch memory, and lets other threads run meanwhile
        self._min_face, self._part = min_face, smallest_part
        self._threshold = threshold

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Image (H, W, 3) uint8 BGR to detections in its pixels, the surest first."""
        import cv2

        # dlib was trained on RGB; area averaging keeps gradients that plain subsampling would alias.
        scaled = image
        scale = WINDOW / (self._min_face or max(SMALLEST, image.shape[0] // self._part))
        if scale != 1:
            size = tuple(max(1, round(v * scale)) for v in (image.shape[1], image.shape[0]))
            scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        rgb = cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB)
        with self._lock:
            rectangles, scores, _ = self._detector.run(rgb, 0, self._threshold)
        sx, sy = image.shape[1] / scaled.shape[1], image.shape[0] / scaled.shape[0]
        # dlib's right and bottom are the last pixel; a box's are one past it.
        return [
            Detection(
                np.array([r.left() * sx, r.top() * sy, (r.right() + 1) * sx, (r.bottom() + 1) * sy], np.float32),
                float(score),
            )
            for r, score in sorted(zip(rectangles, scores, strict=True), key=lambda pair: -pair[1])
        ]


@cache
def _opened() -> Any:
    """dlib's detector, never run: it unpacks for a quarter of a second, and copies in 2 ms."""
    try:
        import dlib
    except ImportError:
        raise ImportError("the detector dlib_hog needs dlib: pip install dlib-bin (or dlib, which compiles)") from None
    return dlib.get_frontal_face_detector()
