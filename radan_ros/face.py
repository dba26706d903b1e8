"""The values that flow from one stage to the next: a detection goes in, a face comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Detection:
    """A face box in an image.

    Attributes
    ----------
    box : (4,) float32
        Left, top, right, bottom in pixels; the first pixel and one past the last.
    score : float
        In the detector's own scale, larger is surer; NaN where the box did not come from a detector.
    """

    box: FloatArray
    score: float = float("nan")


@dataclass(frozen=True)
class Face:
    """One face as the network sees it: weak perspective, image pixels.

    Attributes
    ----------
    roi : (4,) float32
        The square that was cropped for the network: left, top, right, bottom in pixels.
    score : float
        Score of the detection, or NaN.
    parameters : (62,) float32
        Unwhitened output of the network: row-major 3x4 camera in crop pixels (12), shape (40), expression (10).
    camera : (3, 4) float32
        Maps homogeneous points of the face model (model units) to image pixels: x right, y down, and a third
        coordinate in pixels that grows away from the viewer. A scaled rotation up to the network's error.
    landmarks : (68, 3) float32
        Landmarks in the frame of `camera`: x, y in image pixels, third away from the viewer (iBUG/dlib order).
    confidence : float
        Probability that the square shows a face that this answer fits, 0 .. 1 (see `presence`); NaN where it is not
        known.
    """

    roi: FloatArray
    score: float
    parameters: FloatArray
    camera: FloatArray
    landmarks: FloatArray
    confidence: float = float("nan")

    @property
    def coefficients(self) -> FloatArray:
        """The 50 shape and expression coefficients, (50,) float32."""
        return self.parameters[12:]

    @property
    def box(self) -> FloatArray:
        """Tight box of the landmarks: left, top, right, bottom in pixels, (4,) float32."""
        points = self.landmarks[:, :2]
        return np.concatenate([points.min(axis=0), points.max(axis=0)])
