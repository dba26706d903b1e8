"""Labelled faces to measure on, and the squares that their crops were cut from. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Annotation:
    """Points that somebody gave for N faces.

    Attributes
    ----------
    name : str
    points : (N, P, 2 or 3) float64
        Picture pixels as the file counts them; NaN for points that are not visible. P is 68 or 21; a third column is
        depth in pixels towards the viewer.
    sizes : (N,) float64
        What errors are divided by, pixels.
    """

    name: str
    points: Array
    sizes: Array


@dataclass(frozen=True)
class LabelledFaces:
    """N faces, one a picture, to measure on.

    Attributes
    ----------
    name : str
    pictures : list of Path
    annotations : tuple of Annotation
    yaws : dict of (N,) float64
        Degrees, by the name of the split that they make.
    squares : (N, 4) float64 or None
        Where the pictures are crops: their boxes in the pictures that they were cut from, as the file has them.
    uncut : (N, 4) float64 or None
        The same before they were cut off at the pictures' edges: what the crops show (`uncut_squares`).
    origin : int
        The first pixel's number in annotations and squares: 1 in Matlab's files and .pts files, else 0.
    poses : (N, 3) float64 or None
        ``Pose_Para`` of the whole pictures' .mat files: pitch, yaw, roll in radians (see `scoring`).
    whole : list of Path or None
        The pictures that the crops were cut from, where they are there.
    """

    name: str
    pictures: list[Path]
    annotations: tuple[Annotation, ...]
    yaws: dict[str, Array]
    squares: Array | None = None
    uncut: Array | None = None
    origin: int = 0
    poses: Array | None = None
    whole: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.pictures)


def uncut_squares(squares: ArrayLike, points: ArrayLike) -> Array:
    """Squares that 3DDFA's crops show, of boxes that were cut off at the pictures' edges.

    Its ``ImageROI.m`` makes a crop of the whole square, black beyond the picture, but gives the box of what lies in the
    picture. The square comes from the 68 points: their box's larger side times the square root of two, about its
    centre, rounded as Matlab does. (A box alone does not tell: it may be cut along both axes.)

    Parameters
    ----------
    squares : (N, 4) array_like
        Boxes of the file, whole pixels from 1.
    points : (N, 68, 2 or 3) array_like
        What they were made from, in the same pixels.

    Returns
    -------
    (N, 4) float64
        The square of the points where the box is the part of it in a picture: left and top are the square's within a
        pixel, or 1 where that lies before it; right and bottom are the square's within a pixel, or before it. Any other
        box was not made from these points, and stays as it is.
    """
    given, xy = np.asarray(squares, np.float64), np.asarray(points, np.float64)[..., :2]
    low, high = xy.min(axis=1), xy.max(axis=1)
    side = (high - low).max(axis=1, keepdims=True) * np.sqrt(2)
    left_top = _rounded((low + high - side) / 2)
    whole = np.hstack([left_top, left_top + _rounded(side)])
    cut = np.hstack([(given[:, :2] == 1) & (left_top < 1), given[:, 2:] < whole[:, 2:]])
    known = (cut | (np.abs(whole - given) <= 1)).all(axis=1, keepdims=True)
    return np.where(known, whole, given)


def _rounded(values: Array) -> Array:
    """To whole numbers as Matlab rounds: halves away from zero."""
    return np.asarray(np.copysign(np.floor(np.abs(values) + 0.5), values))
