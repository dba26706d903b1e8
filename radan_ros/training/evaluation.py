"""What a model is worth: landmark errors by the turn of the head, and whether eyes and mouth follow. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.pose import decompose_camera, euler_from_rotation, head_rotation

YAW_BINS = ((0, 30), (30, 60), (60, 90))  # degrees, as AFLW2000-3D and 300W-LP papers report

_EYES = (slice(36, 42), slice(42, 48))
# Upper and lower lid, left and right of the pupil, by place in an eye; its corners.
_LIDS, _CORNERS = ((1, 5), (2, 4)), (0, 3)
_INNER_LIPS = ((61, 67), (62, 66), (63, 65))


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation, median and number of some values; NaN where there are none."""

    mean: float
    std: float
    median: float
    count: int


def spread(values: ArrayLike) -> Spread:
    """Summary of (N,) values."""
    given = np.asarray(values, np.float64)
    if not given.size:
        return Spread(float("nan"), float("nan"), float("nan"), 0)
    return Spread(float(given.mean()), float(given.std()), float(np.median(given)), int(given.size))


def face_sizes(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Square root of the area of the tight box of landmarks (..., 68, 2 or 3): (...), in their unit.

    Points that are not known (NaN) are left out; NaN where none is.
    """
    xy = np.asarray(landmarks, np.float64)[..., :2]
    return np.sqrt(np.prod(np.fmax.reduce(xy, axis=-2) - np.fmin.reduce(xy, axis=-2), axis=-1))


def nme(predicted: ArrayLike, given: ArrayLike, sizes: ArrayLike | None = None) -> NDArray[np.float64]:
    """Normalised mean error: mean distance of the points over the square root of the area of the given points' box.

    Parameters
    ----------
    predicted, given : (..., P, 2 or 3) array_like
        In the same pixels; only x and y are read. Points that are not given (NaN) are left out.
    sizes : (...) array_like, optional
        What to divide by instead.

    Returns
    -------
    (...) float64
        A part of the face's size: 0.04 is 4 %. NaN where no point is given.
    """
    p, g = (np.asarray(points, np.float64)[..., :2] for points in (predicted, given))
    known = np.isfinite(g).all(axis=-1)
    distances = np.where(known, np.linalg.norm(p - g, axis=-1), 0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return distances / known.sum(axis=-1) / (face_sizes(g) if sizes is None else np.asarray(sizes, np.float64))


def by_yaw(
    values: ArrayLike, yaw: ArrayLike, bins: Sequence[tuple[float, float]] = YAW_BINS
) -> dict[tuple[float, float], Spread]:
    """Values (N,) by the size of the yaw (N,) in degrees; each bin has its lower end, the last one both.

    Angles beyond the last bin are in none.
    """
    v, angle = np.asarray(values, np.float64), np.abs(np.asarray(yaw, np.float64))
    last = bins[-1][1]
    return {
        (low, high): spread(v[(low <= angle) & ((angle < high) | ((angle == high) & (high == last)))])
        for low, high in bins
    }


def by_yaw_3ddfa(values: ArrayLike, yaw: ArrayLike) -> dict[tuple[float, float], Spread]:
    """Values (N,) by the size of the yaw (N,) in degrees as 3DDFA's benchmark parts them.

    Here bins have their upper end: up to 30, over 30 to 60, and all over 60, also beyond 90.
    """
    v, angle = np.asarray(values, np.float64), np.abs(np.asarray(yaw, np.float64))
    parts = (angle <= 30, (angle > 30) & (angle <= 60), angle > 60)
    return {bin_: spread(v[part]) for bin_, part in zip(YAW_BINS, parts, strict=True)}


def mean_of_bins(bins: dict[tuple[float, float], Spread]) -> float:
    """Mean of the bins' means, every bin alike (the mean of 3DDFA's benchmark); bins without values left out."""
    return spread_of_bins(bins).mean


def spread_of_bins(bins: dict[tuple[float, float], Spread]) -> Spread:
    """Spread of the bins' means (3DDFA's benchmark prints its mean and std); bins without values left out."""
    return spread([bin_.mean for bin_ in bins.values() if bin_.count])


def head_angles(cameras: ArrayLike) -> NDArray[np.float64]:
    """Yaw, pitch and roll of `pose.euler_from_rotation` in degrees, (N, 3), of cameras to image or crop pixels.

    Parameters
    ----------
    cameras : (N, 3, 4) array_like
        Face model to pixels, x right, y down; only the first two rows are read.
    """
    rows = [euler_from_rotation(head_rotation(decompose_camera(c).rotation)) for c in np.asarray(cameras, np.float64)]
    return np.degrees(np.array(rows).reshape(-1, 3))


def eye_openings(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Distance of the lids (mean of two pairs) over the distance of the corners, mean of both eyes.

    Parameters
    ----------
    landmarks : (..., 68, 2 or 3) array_like
        Only x and y are read.

    Returns
    -------
    (...) float64
        About 0.3 for open eyes (Soukupova and Cech, CVWW 2016, call it the eye aspect ratio).
    """
    xy = np.asarray(landmarks, np.float64)[..., :2]
    ratios = []
    for eye in _EYES:
        points = xy[..., eye, :]
        lids = np.mean([_distance(points, *pair) for pair in _LIDS], axis=0)
        ratios.append(lids / np.maximum(_distance(points, *_CORNERS), 1e-6))
    return np.asarray(np.mean(ratios, axis=0))


def mouth_openings(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Distance of the inner lips (mean of three pairs) over the size of the face.

    The width of the mouth would be no measure to divide by: it shrinks with the turn of the head and with a pucker.

    Parameters
    ----------
    landmarks : (..., 68, 2 or 3) array_like
        Only x and y are read.

    Returns
    -------
    (...) float64
        0 closed, about 0.2 wide open.
    """
    xy = np.asarray(landmarks, np.float64)[..., :2]
    return np.asarray(np.mean([_distance(xy, *pair) for pair in _INNER_LIPS], axis=0) / face_sizes(xy))


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's correlation of two (N,) samples; NaN where one of them does not vary."""
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def _distance(points: NDArray[np.float64], a: int, b: int) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1))
