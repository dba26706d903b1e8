"""By what a face is known again in later images: where it should be by now, its colours, what it looked like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros import boxes
from radan_ros.face import Face

VELOCITY_TIME = 0.1  # seconds over which a velocity is averaged
ERROR_TIME = 0.3  # seconds over which the two guesses of where a face goes are compared
# Heads that nod and shake turn round sooner than any average of their velocity: on such clips a crop that goes ahead
# loses faces that a crop at the last place keeps. Those who walk by are better met ahead. So the guess counts that was
# right lately, and going ahead has to be this much better, in squared pixels.
CLEARLY_BETTER = 0.7
GOES_ON = 1.0  # seconds that a motion is believed in
# Where a face's colour is taken: the means of three landmarks each, on cheeks, nose, brows, eyelids, mouth and chin.
_PATCHES = np.array([
    (36, 48, 31), (45, 54, 35), (39, 42, 27), (27, 30, 29), (31, 48, 2), (35, 54, 14), (48, 57, 5), (54, 57, 11),
    (57, 8, 58), (1, 36, 31), (15, 45, 35), (21, 22, 27), (17, 36, 19), (26, 45, 24),
])  # fmt: skip
_TEMPLATE = 28  # pixels: side of a face that is looked for in a later image
_WINDOW = 2.5  # times its side: how far it is looked for
_LIKE = 0.6  # correlation from which it is taken for found
_GRID = 30  # pixels of the reduced square that colours are read from: each is the mean of a patch


@dataclass(frozen=True)
class Motion:
    """Where a square is, and whether it stays or goes on.

    Attributes
    ----------
    square : (4,) float32
        Left, top, right, bottom in pixels.
    time : float
        Seconds, when it was there.
    velocity : (2,) float64
        Pixels a second, averaged.
    error_staying, error_going : float
        By how many squared pixels it was missed lately by the guess that it stays, and that it goes on.
    """

    square: NDArray[np.float32]
    time: float
    velocity: NDArray[np.float64]
    error_staying: float = 0.0
    error_going: float = 0.0

    @classmethod
    def begin(cls, square: ArrayLike, time: float) -> Motion:
        """A square that is seen for the first time."""
        return cls(np.asarray(square, np.float32), time, np.zeros(2))

    def at(self, time: float) -> NDArray[np.float32]:
        """The square (4,) float32 that is to be expected at a time."""
        if self.error_going >= CLEARLY_BETTER * self.error_staying:
            return self.square
        return np.asarray(self.square + np.tile(self.velocity * min(time - self.time, GOES_ON), 2), np.float32)

    def then(self, square: ArrayLike, time: float) -> Motion:
        """The motion after the square was seen at a later time."""
        seen = np.asarray(square, np.float32)
        span = time - self.time
        move = (seen - self.square).astype(np.float64).reshape(2, 2).mean(axis=0)
        missed = move - self.velocity * span
        share = -np.expm1(-span / ERROR_TIME)
        velocity = self.velocity - np.expm1(-span / VELOCITY_TIME) * (move / span - self.velocity)
        return Motion(
            seen,
            time,
            velocity,
            self.error_staying + share * (float(move @ move) - self.error_staying),
            self.error_going + share * (float(missed @ missed) - self.error_going),
        )


def colours(image: NDArray[np.uint8], face: Face) -> NDArray[np.float32]:
    """The colours of a face at fourteen places that move with it.

    They tell people apart far better than the shape coefficients do: of two pictures from one video and one of somebody
    else (28 people of YouTube Faces that the network was not trained on), the two were further apart than the strangers
    in 2.1 % of all cases, and by shape in 12 %.

    Parameters
    ----------
    image : (H, W, 3) uint8
    face : Face

    Returns
    -------
    (14, 3) float32
        In percent of their own mean, so that light and exposure count little; NaN at places outside the image.
    """
    import cv2

    small = cv2.resize(boxes.crop(image, face.roi), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    places = face.landmarks[_PATCHES, :2].mean(axis=1)
    x, y = ((places + 0.5 - face.roi[:2]) * _GRID / (face.roi[2:] - face.roi[:2])).clip(0, _GRID - 1).astype(np.intp).T
    inside = (np.abs(2 * places - (image.shape[1], image.shape[0])) < (image.shape[1], image.shape[0])).all(axis=1)
    seen = np.where(inside[:, None], small[y, x], np.float32(np.nan))
    return np.asarray(seen * (100 / max(float(np.mean(seen[inside])), 1.0)), np.float32) if inside.any() else seen


def difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """How different two faces' `colours` are, in percent (root mean square); 0 where less than half can be compared."""
    squares = (a - b) ** 2
    known = np.isfinite(squares)
    return float(np.sqrt(squares[known].mean())) if 2 * known.sum() >= known.size else 0.0


def moved(box: ArrayLike, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where what was in a box of an image is in a later one.

    A detection is some images old when it comes. Where a face has moved by more than a fifth of its square since, the
    network, given the old place, misses it. So its reduced picture is correlated with the surroundings: 1 to 3 ms.

    Parameters
    ----------
    box : (4,) array_like
        Left, top, right, bottom in pixels of `before`.
    before, after : (H, W, 3) uint8

    Returns
    -------
    (4,) float32
        The box in `after`; unchanged where nothing there is like it.
    """
    import cv2

    given = np.asarray(box, np.float32)
    height, width = before.shape[:2]
    limits = np.array([width, height, width, height])
    inner = np.clip(np.rint(given), 0, limits).astype(int)
    side = float((given[2:] - given[:2]).max())
    reach = _WINDOW * side * np.array([-1, -1, 1, 1])
    outer = np.clip(np.rint(given + reach), 0, limits).astype(int)
    if (inner[2:] - inner[:2]).min() < 8:
        return given
    scale = min(1.0, _TEMPLATE / side)

    def reduced(image: NDArray[np.uint8], part: NDArray[np.int_]) -> NDArray[np.uint8]:
        left, top, right, bottom = part.tolist()
        cut = image[top:bottom, left:right]
        return np.asarray(cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)

    likeness = cv2.matchTemplate(reduced(after, outer), reduced(before, inner), cv2.TM_CCOEFF_NORMED)
    _, best, _, place = cv2.minMaxLoc(likeness)
    if not best >= _LIKE:
        return given
    shift = np.array(place) / scale + outer[:2] - inner[:2]
    return np.asarray(given + np.tile(shift, 2), np.float32)
