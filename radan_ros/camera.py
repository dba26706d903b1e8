"""Pinhole cameras with lens distortion: from calibration figures or from a field of view; project and unproject."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The models of sensor_msgs/CameraInfo with the number of coefficients that each may have.
DISTORTION_MODELS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}

# Focal lengths, in larger sides of the image, of lenses that there are: from a fisheye to a telescope.
_FOCAL = (0.05, 1000.0)


@dataclass(frozen=True)
class CameraModel:
    """A calibrated (or assumed) camera. Camera frame: x right, y down, z forward, metres. Pixel centres at integers.

    Attributes
    ----------
    size : (int, int)
        Image height and width in pixels.
    matrix : (3, 3) float64
        Intrinsics K.
    distortion : (n,) float64
        Coefficients D in OpenCV's order; empty for a rectified image.
    distortion_model : str
        ``plumb_bob``, ``rational_polynomial`` or ``equidistant``.
    calibrated : bool
        False where the intrinsics were assumed: distances then have no true scale.
    """

    size: tuple[int, int]
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    distortion_model: str = "plumb_bob"
    calibrated: bool = True

    @classmethod
    def from_calibration(
        cls,
        size: tuple[int, int],
        k: ArrayLike,
        d: ArrayLike = (),
        distortion_model: str = "plumb_bob",
        p: ArrayLike | None = None,
        rectified: bool = False,
    ) -> CameraModel:
        """From the fields of a sensor_msgs/CameraInfo.

        Parameters
        ----------
        size : (int, int)
            Height and width in pixels.
        k : (9,) array_like
            Row-major intrinsics of the raw image.
        d : (n,) array_like
            Distortion coefficients of the raw image.
        distortion_model : str
            Name of the model; an empty name with no coefficients means none.
        p : (12,) array_like, optional
            Row-major projection matrix of the rectified image.
        rectified : bool
            True when the image is rectified already: P is used, and neither K nor D.

        Raises
        ------
        ValueError
            When the figures are those of an uncalibrated camera (zeros), not finite, those of no lens, without a
            principal point, or of an unknown model.
        """
        name = "P" if rectified else "K"
        matrix = np.array(p if rectified else k, np.float64).reshape(-1)
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name} is not finite")
        matrix = matrix.reshape(3, 4)[:, :3] if rectified else matrix.reshape(3, 3)
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise ValueError(
                f"{name} has focal lengths {matrix[0, 0]:g}, {matrix[1, 1]:g}: the camera is not calibrated"
                + (" (image_is_rectified asks for P)" if rectified else "")
            )
        side = max(size)
        if not all(_FOCAL[0] * side < f < _FOCAL[1] * side for f in (matrix[0, 0], matrix[1, 1])):
            raise ValueError(
                f"{name} has focal lengths {matrix[0, 0]:g}, {matrix[1, 1]:g}: no lens gives {size[1]}x{size[0]} so"
            )
        # Of the whole sensor, before any region is cut out: there no calibration ends in the corner.
        if not matrix[:2, 2].any():
            raise ValueError(f"{name} has its principal point at 0, 0, the image's corner: it was not filled in")
        coefficients = np.zeros(0) if rectified else np.array(d, np.float64).reshape(-1)
        if not np.isfinite(coefficients).all():
            raise ValueError("D is not finite")
        if not np.any(coefficients):
            return cls(size, matrix, np.zeros(0), "plumb_bob")
        if distortion_model not in DISTORTION_MODELS:
            known = ", ".join(DISTORTION_MODELS)
            raise ValueError(f"distortion model '{distortion_model}' is unknown (known: {known})")
        if len(coefficients) not in DISTORTION_MODELS[distortion_model]:
            raise ValueError(f"D has {len(coefficients)} coefficients, which {distortion_model} does not have")
        return cls(size, matrix, coefficients, distortion_model)

    @classmethod
    def from_field_of_view(cls, size: tuple[int, int], horizontal: float) -> CameraModel:
        """An assumed pinhole camera: square pixels, centre of the image, no distortion.

        Parameters
        ----------
        size : (int, int)
            Height and width in pixels.
        horizontal : float
            Field of view over the image's width, radians, in (0, pi).
        """
        if not 0 < horizontal < np.pi:
            raise ValueError(f"a field of view of {horizontal:g} rad is not between 0 and pi")
        height, width = size
        focal = width / (2 * np.tan(horizontal / 2))
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return cls(size, matrix, np.zeros(0), calibrated=False)

    def part(self, size: tuple[int, int], offset: tuple[int, int], binning: tuple[int, int]) -> CameraModel:
        """The camera of a part of the image, cut out and then binned. The lens stays the same.

        As image_geometry has it, pixel i of the part is pixel ``offset + i * binning`` of the whole: exact for pixels
        left out; for a mean over them the truth is half of ``1 - 1 / binning`` pixels less, which tools leave out.

        Parameters
        ----------
        size : (int, int)
            Height and width of the part, in pixels of its own.
        offset : (int, int)
            Column x and row y of its first pixel in the whole image.
        binning : (int, int)
            Pixels of the whole image for one of the part's, along x and y.
        """
        matrix = self.matrix.copy()
        matrix[:2, 2] -= offset
        matrix[:2] /= np.array(binning)[:, None]
        return replace(self, size=size, matrix=matrix)

    def project(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points in the camera frame to pixels.

        Parameters
        ----------
        points : (N, 3) array_like
            Metres. Points with z <= 0, and beyond what the lens model can bend into the image, have none: NaN.

        Returns
        -------
        (N, 2) float32
        """
        xyz = np.asarray(points)
        if not np.issubdtype(xyz.dtype, np.floating):
            xyz = xyz.astype(np.float64)
        depth = np.where(xyz[:, 2] > 0, xyz[:, 2], np.nan)
        rays = xyz[:, :2] / depth[:, None]
        if self.distortion.size:
            rays = self._distort(rays)
        k = self.matrix.astype(rays.dtype)
        pixels = np.empty((len(rays), 2), np.float32)
        pixels[:, 0] = rays[:, 0] * k[0, 0] + rays[:, 1] * k[0, 1] + k[0, 2]
        pixels[:, 1] = rays[:, 1] * k[1, 1] + k[1, 2]
        return pixels

    def unproject(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Pixels to rays in the camera frame, with the lens distortion undone.

        Parameters
        ----------
        pixels : (N, 2) array_like

        Returns
        -------
        (N, 2) float64
            x / z and y / z.
        """
        points = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if not self.distortion.size:
            x = (points[:, 0, 0] - self.matrix[0, 2]) / self.matrix[0, 0]
            y = (points[:, 0, 1] - self.matrix[1, 2]) / self.matrix[1, 1]
            return np.stack([x - self.matrix[0, 1] / self.matrix[0, 0] * y, y], axis=1)
        import cv2

        if self.distortion_model == "equidistant":
            rays = cv2.fisheye.undistortPoints(points, self.matrix, self.distortion)
        else:
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
            # OpenCV 4 takes the criteria (its default of five iterations is not enough) under another name than 5.
            undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
            rays = undistort(points, self.matrix, self.distortion, R=np.eye(3), P=np.eye(3), criteria=criteria)
        return np.asarray(rays, np.float64).reshape(-1, 2)

    @cached_property
    def _widest(self) -> float:
        """Radius x / z up to which the lens model is one to one: beyond, it folds points back into the image."""
        radius = np.linspace(0, 20, 4001)
        if self.distortion_model == "equidistant":
            theta = np.arctan(radius)
            k1, k2, k3, k4 = self.distortion
            image = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
        else:
            k1, k2, _, _, k3, k4, k5, k6 = np.resize(np.append(self.distortion, np.zeros(8)), 8)
            r2 = radius**2
            image = radius * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        falls = np.flatnonzero(np.diff(image) <= 0)
        return float(radius[falls[0]]) if len(falls) else np.inf

    def _distort(self, rays: NDArray[Any]) -> NDArray[np.float64]:
        import cv2

        points = np.ascontiguousarray(rays, np.float64)
        with np.errstate(invalid="ignore"):
            valid = np.hypot(points[:, 0], points[:, 1]) < self._widest  # false for NaN
        out = np.full_like(points, np.nan)
        if valid.any():
            zero, identity = np.zeros(3), np.eye(3)
            kept = points[valid]
            if self.distortion_model == "equidistant":
                bent = cv2.fisheye.distortPoints(kept[:, None], identity, self.distortion)
            else:
                homogeneous = np.concatenate([kept, np.ones((len(kept), 1))], axis=1)
                bent, _ = cv2.projectPoints(homogeneous, zero, zero, identity, self.distortion)
            out[valid] = bent.reshape(-1, 2)
        return out
