"""Landmarks by a dlib shape predictor of the user's (Kazemi and Sullivan, 2014): 3DDFA crops around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LANDMARKS = 68


class DlibLandmarks:
    """68 landmarks in a detector's box.

    Parameters
    ----------
    path : path
        A dlib shape predictor of 68 points, as ``shape_predictor_68_face_landmarks.dat``. Mind its licence: that file
        was trained on pictures that are not for commercial use, which is why none comes with this package.
    compat : bool
        Hand the numbers of a box to dlib as they are, as 3DDFA does with those of a .bbox file: to dlib, right and
        bottom are then the last pixel.

    Raises
    ------
    ValueError
        Names the file that is missing, damaged, or of another number of points.
    ImportError
        Names the package to install.
    """

    def __init__(self, path: str | Path, *, compat: bool = False) -> None:
        try:
            import dlib
        except ImportError:
            raise ImportError("dlib's landmarks need dlib: pip install dlib-bin (or dlib, which compiles)") from None
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file (a dlib shape predictor of {LANDMARKS} points)")
        try:
            self._predictor = dlib.shape_predictor(str(path))
            count = self._predictor(np.zeros((64, 64), np.uint8), dlib.rectangle(0, 0, 63, 63)).num_parts
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"{path}: not a dlib shape predictor ({error})") from None
        if count != LANDMARKS:
            raise ValueError(f"{path}: a dlib shape predictor of {count} points, not of {LANDMARKS}")
        self._rectangle, self._past = dlib.rectangle, 0 if compat else 1

    def __call__(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image (H, W, 3) uint8 BGR and a box (4,) in it to landmarks (68, 2) in its pixels."""
        left, top, right, bottom = (round(float(v)) for v in box)
        # A box's right and bottom are one past the last pixel, dlib's are the last. It looks at the mean of the three
        # channels, so that their order does not matter.
        rectangle = self._rectangle(left, top, right - self._past, bottom - self._past)
        shape = self._predictor(np.ascontiguousarray(image), rectangle)
        return np.array([(point.x, point.y) for point in shape.parts()], np.float32)
