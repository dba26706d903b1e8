"""Face detectors behind one protocol, opened by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from radan_ros.face import Detection

NAMES = ("dlib_hog",)
# dlib's own 0.0 finds a face in the sleeve of scikit-image's astronaut, at 0.06; her own has 1.7.
THRESHOLD = 0.2
SMALLEST_PART = 6  # a sixth of an image's height: the smallest face that is searched for unasked


class Detector(Protocol):
    """Finds face boxes in an image."""

    name: str

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Image (H, W, 3) uint8 BGR to detections in its pixels, the surest first."""


def open_detector(
    name: str = "dlib_hog",
    *,
    min_face: int | None = None,
    threshold: float = THRESHOLD,
    smallest_part: int = SMALLEST_PART,
) -> Detector:
    """Open a detector by name.

    Parameters
    ----------
    name : {'dlib_hog'}
    min_face : int, optional
        Side of the smallest face to be found, pixels of the given image: smaller costs time quadratically.
        Without it, it is such a part of the image's height as `smallest_part` says, and at least 40.
    threshold : float
        Smallest score of a detection, in the detector's scale (dlib_hog: 0 finds more, of which more are none).
    smallest_part : int
        6 is a sixth.

    Raises
    ------
    ValueError
        For an unknown name.
    ImportError
        Names the package to install.
    """
    if name == "dlib_hog":
        from radan_ros.detectors.dlib_hog import DlibHogDetector

        return DlibHogDetector(min_face, threshold, smallest_part)
    raise ValueError(f"detector '{name}' is unknown (known: {', '.join(NAMES)})")
