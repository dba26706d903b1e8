"""The head behind a face model's mask: skull, ears, neck, and a chart of it on which hair and hats are laid.

A face model ends at the ears, the hairline and the jaw. Here its border is drawn out to a skull, ring by ring, so that
there is no seam; the sizes are about those of an adult head (length 195, breadth 152, neck circumference 370 mm:
rounded figures of the order of Gordon et al., 2012 Anthropometric Survey of U.S. Army Personnel, from memory, not
checked against it), scaled by the breadth of the face.

Frame: the face model's axes (x to the subject's left, y to the scalp, z out of the face), metres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.compiled import compiled
from radan_ros.face_models import FaceModel
from radan_ros.face_models.making.template import INNER_MOUTH
from radan_ros.normals import fill_normals

from .geometry import Floats, Triangles, grid_triangles, outer_border, refine, smooth_step
from .light import ambient_occlusion

FACE_BREADTH = 0.146  # metres between the landmarks at the ears, of the head to which the figures below belong
SKULL_RINGS = 14
COLUMNS = 224  # of the chart, around the head; the first at the back
ROWS = 36  # of the chart on the head, from the crown down
HANGING_ROWS = 18  # of the chart below the head
HANGING_STEP = 0.018  # metres between those
CHART_TOP, CHART_BOTTOM = np.radians(88.0), np.radians(-50.0)  # elevations of its first and last row on the head
_NECK_ROWS, _NECK_SIDES = 12, 32
_EAR_ROWS, _EAR_COLUMNS = 8, 22


class Head:
    """What of a head does not change from picture to picture: topology, chart, light that reaches the mean head.

    Parameters
    ----------
    face_model : FaceModel

    Attributes
    ----------
    triangles : (t, 3) int32
        Of the body: face (refined around the eyes, brows and mouth), skull, ears, neck.
    corners : tuple of three (t,) int32
        The same by columns.
    mean : (n, 3) float32
        The mean body.
    normals : (n, 3) float32
    sky : (n,) float32
        Share of a white sky's light that reaches the mean body.
    face, skull, ears, neck : slice
        Of the points of the body.
    chart : (ROWS + HANGING_ROWS, COLUMNS, 3) float32
        The mean head's surface by elevation and azimuth, and below it where hair hangs.
    azimuth : (COLUMNS,) float32
        Radians, 0 in front, positive to the subject's left.
    """

    def __init__(self, face_model: FaceModel) -> None:
        self.model = face_model
        mean = face_model.mean * np.float32(face_model.unit)
        self.landmarks = mean[face_model.landmarks]
        self.size = float(np.ptp(self.landmarks[[0, 16], 0])) / FACE_BREADTH
        k, top = self.size, self.landmarks[27]
        self.centre = np.array([0, top[1] + 0.012 * k, top[2] - 0.098 * k], np.float32)
        self._neck_base = np.array([0, self.landmarks[8, 1] - 0.024 * k, self.centre[2] - 0.028 * k], np.float32)

        fine, self._ends = self._refined(mean)
        self._border = outer_border(face_model.triangles)
        self._set_skull_angles(mean)
        rings = grid_triangles(SKULL_RINGS, len(self._border), closed=True)
        m, b = len(mean) + len(self._ends), len(self._border)
        # The first ring is the border itself.
        ring_index = np.concatenate([self._border, m + np.arange((SKULL_RINGS - 1) * b, dtype=np.int32)])
        self.face = slice(0, m)
        self.skull = slice(m, m + (SKULL_RINGS - 1) * b)
        pieces = [fine, ring_index[rings]]
        skin = np.concatenate([mean, self._skull(mean)])
        self._chart_index, self._chart_weight = self._anchors(skin)
        start = self.skull.stop
        # Some models have ears of their own, which stand off farther than any skull is broad.
        self.has_ears = np.ptp(mean[:, 0]) > 1.14 * np.ptp(self.landmarks[[0, 16], 0])
        ear = grid_triangles(_EAR_ROWS, _EAR_COLUMNS, closed=True)
        ear_size = 0 if self.has_ears else _EAR_ROWS * _EAR_COLUMNS
        for side in range(2 if ear_size else 0):
            pieces.append(start + side * ear_size + ear)
        self.ears = slice(start, start + 2 * ear_size)
        start = self.ears.stop
        self.neck = slice(start, start + _NECK_ROWS * _NECK_SIDES)
        pieces.append(start + grid_triangles(_NECK_ROWS, _NECK_SIDES, closed=True)[:, ::-1])
        self.triangles: Triangles = np.ascontiguousarray(np.concatenate(pieces), np.int32)
        self.corners = tuple(np.ascontiguousarray(self.triangles[:, i]) for i in range(3))

        self.azimuth = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False).astype(np.float32)
        self.mean, self.chart = self.body(mean, np.eye(3), ear_angle=0.4, neck_width=1.0)
        self.normals = np.empty_like(self.mean)
        fill_normals(self.mean, self.triangles, self.normals)
        sky = ambient_occlusion(self.mean, self.normals, self.triangles, self.centre)
        if face_model.regions is not None:  # closed in the mean face, lighter when it is open
            sky = np.maximum(sky, 0.3 * self.spread(face_model.regions == INNER_MOUTH))
        # Of what other shapes and poses bring to light nothing is quite dark; the ears are turned about their roots.
        sky = np.maximum(sky, 0.05)
        sky[self.neck] = np.maximum(sky[self.neck], 0.2)
        sky[self.ears] = np.maximum(sky[self.ears], 0.4)
        self.sky = sky
        outward = self.chart - self.centre
        outward[ROWS:, :, 1] = 0
        self.outward = outward / np.linalg.norm(outward, axis=-1, keepdims=True)

    def body(
        self, face: Floats, torso_in_head: NDArray[Any], *, ear_angle: float, neck_width: float
    ) -> tuple[Floats, Floats]:
        """The body of a face, and its chart.

        Parameters
        ----------
        face : (V, 3) float32
            The face model's points, metres.
        torso_in_head : (3, 3) array
            Rotation of the torso against the head.
        ear_angle : float
            Radians between ear and skull.
        neck_width : float
            Times the average.

        Returns
        -------
        points : (n, 3) float32
        chart : (ROWS + HANGING_ROWS, COLUMNS, 3) float32
        """
        fine = (face[self._ends[:, 0]] + face[self._ends[:, 1]]) * np.float32(0.5)
        skull = self._skull(face)
        chart = self._chart(np.concatenate([face, skull]))
        ears = [] if self.has_ears else [self._ear(chart, side, ear_angle) for side in (-1, 1)]
        neck = self._neck(torso_in_head, neck_width)
        return np.concatenate([face, fine, skull, *ears, neck]), chart

    def spread(self, chosen: NDArray[np.bool_]) -> Floats:
        """Of a choice (V,) of the face model's points the share of each point of the body, (n,) 0 to 1."""
        share = np.zeros(len(self.mean), np.float32)
        v = len(chosen)
        share[:v] = chosen
        share[v : self.face.stop] = share[self._ends].mean(axis=1)
        return share

    def torso_points(self, points: Floats, torso_in_head: NDArray[Any]) -> Floats:
        """From the torso's frame (origin at the base of the neck) to the head's."""
        return (points @ np.asarray(torso_in_head, np.float32).T + self._neck_base).astype(np.float32)

    def rows_at(self, chart: Floats, height: Any) -> Floats:
        """Row (fractional) of the chart at which each column comes down to a height (COLUMNS,), y in metres."""
        y = chart[..., 1]
        above = np.clip((y > height).sum(axis=0), 1, len(y) - 1)
        column = np.arange(COLUMNS)
        upper, lower = y[above - 1, column], y[above, column]
        part = np.clip((upper - height) / np.maximum(upper - lower, 1e-6), 0, 1)
        return np.asarray(above - 1 + part, np.float32)

    # --- how it is made -------------------------------------------------------------------------------------------

    def _refined(self, mean: Floats) -> tuple[Triangles, NDArray[np.int32]]:
        """Halve the sides of triangles that are coarse for what is painted on them: eyes, brows, mouth, nostrils."""
        triangles, places = self.model.triangles, self.landmarks[17:]
        middle = mean[triangles].mean(axis=1)
        from scipy.spatial import cKDTree

        near, _ = cKDTree(places).query(middle)
        side = np.linalg.norm(mean[triangles[:, 0]] - mean[triangles[:, 1]], axis=1)
        chosen = (near < 0.009 * self.size) & (side > 0.0017 * self.size)
        return refine(triangles, chosen, len(mean))

    def _ellipsoid(self, azimuth: Any, polar: Any) -> NDArray[np.float32]:
        """Skull at the angle `polar` from the back and `azimuth` around the z axis (0 at +x, a quarter turn at +y)."""
        k = np.float32(self.size)
        sine, cosine = np.sin(polar), np.cos(polar)
        side, up = np.cos(azimuth), np.sin(azimuth)
        # Fuller than an ellipse above the temples.
        fuller = np.where(up > 0, np.maximum(np.abs(side) ** 2.5 + np.abs(up) ** 2.5, 1e-9) ** (-1 / 2.5), 1)
        radius_y = np.where(up > 0, 0.102, 0.078) * k
        unit = np.stack([0.077 * k * sine * side * fuller, radius_y * sine * up * fuller, -0.099 * k * cosine], axis=-1)
        return unit.astype(np.float32) + self.centre

    def _set_skull_angles(self, mean: Floats) -> None:
        k = self.size
        rim = (mean[self._border] - self.centre) / k
        rim[:, 0] /= 0.077
        rim[:, 1] /= np.where(rim[:, 1] > 0, 0.104, 0.078)
        rim[:, 2] /= 0.099
        around = np.arctan2(rim[:, 1], rim[:, 0])
        polar = np.arctan2(np.hypot(rim[:, 0], rim[:, 1]), -rim[:, 2])
        step = np.linspace(0, 1, SKULL_RINGS)[:, None]
        self._skull_targets = self._ellipsoid(around[None], polar[None] * (1 - step))
        self._rim_targets = self._skull_targets[0]
        self._rim_weights = (1 - smooth_step(step, 0, 0.8)).astype(np.float32)[1:, :, None]
        self._mean_rim_breadth = np.ptp(mean[self._border], axis=0)

    def _skull(self, face: Floats) -> Floats:
        """Rings from the border (excluded) to the back of the head, ((SKULL_RINGS - 1) * b, 3)."""
        rim = face[self._border]
        breadth = np.ptp(rim, axis=0) / self._mean_rim_breadth
        grow = np.array([breadth[0], breadth[:2].mean(), breadth[0]], np.float32)
        targets = (self._skull_targets[1:] - self.centre) * grow + self.centre
        offset = rim - ((self._rim_targets - self.centre) * grow + self.centre)
        return np.asarray(targets + offset * self._rim_weights, np.float32).reshape(-1, 3)

    def _anchors(self, skin: Floats) -> tuple[NDArray[np.int32], Floats]:
        """Points of the skin around each direction of the chart, (ROWS, COLUMNS, 3), and their weights."""
        from scipy.spatial import cKDTree

        elevation = np.linspace(CHART_TOP, CHART_BOTTOM, ROWS)[:, None]
        azimuth = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False)[None]
        wanted = np.stack(
            np.broadcast_arrays(
                np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)
            ),
            -1,
        )
        away = skin - self.centre
        radius = np.linalg.norm(away, axis=1)
        # What lies inside, as the hollow of the mouth does, is no surface for hair.
        tree = cKDTree(away / radius[:, None])
        distance, index = tree.query(wanted.reshape(-1, 3), k=3)
        weight = 1 / np.maximum(distance, 1e-4)
        weight /= weight.sum(axis=1, keepdims=True)
        shape = (ROWS, COLUMNS, 3)
        return index.reshape(shape).astype(np.int32), weight.reshape(shape).astype(np.float32)

    def _chart(self, skin: Floats) -> Floats:
        chart = np.empty((ROWS + HANGING_ROWS, COLUMNS, 3), np.float32)
        surface = chart[:ROWS]
        _between(skin, self._chart_index.reshape(-1, 3), self._chart_weight.reshape(-1, 3), surface.reshape(-1, 3))
        # At the sides and the back hair falls straight from where the head is widest.
        widest = int(np.argmin(np.abs(np.linspace(CHART_TOP, CHART_BOTTOM, ROWS) - np.radians(-3))))
        azimuth = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False)
        falls = smooth_step(np.abs(azimuth), np.radians(50), np.radians(72)).astype(np.float32)[:, None]
        for axis in (0, 2):
            below = surface[widest:, :, axis]
            below += (surface[widest, :, axis] - below) * falls[:, 0]
        chart[ROWS:] = surface[-1]
        chart[ROWS:, :, 1] -= HANGING_STEP * np.arange(1, HANGING_ROWS + 1, dtype=np.float32)[:, None]
        return chart

    def _ear(self, chart: Floats, side: int, angle: float) -> Floats:
        """A flap with a rim and a hollow, from a little above the eyes to the base of the nose."""
        k = self.size
        column = int(round((np.radians(97.0) * side + np.pi) / (2 * np.pi) * COLUMNS)) % COLUMNS
        height = np.full(COLUMNS, self.landmarks[27, 1] - 0.018 * k, np.float32)
        row = int(self.rows_at(chart, height)[column])
        root = chart[row, column]
        up = np.array([0, np.cos(0.2), -np.sin(0.2)])
        back = np.array([side * np.sin(angle), -np.sin(0.2) * np.cos(angle), -np.cos(0.2) * np.cos(angle)])
        out = np.cross(up, back) * -side
        turn = np.linspace(0, 2 * np.pi, _EAR_COLUMNS, endpoint=False)
        r = np.linspace(0, 1, _EAR_ROWS)[:, None]
        # Broader above than below: the lobe.
        breadth = 0.0155 * (1 + 0.18 * np.sin(turn))
        relief = np.interp(r, [0, 0.35, 0.6, 0.75, 0.92, 1.0], [-0.003, -0.0035, 0.002, -0.0005, 0.0045, 0.001])
        flap = (
            up * (0.032 * np.sin(turn) * r)[..., None]
            + back * (breadth * (np.cos(turn) * r + 0.55))[..., None]
            + out * np.broadcast_to(relief, (_EAR_ROWS, _EAR_COLUMNS))[..., None]
        )
        return np.asarray(root + k * flap, np.float32).reshape(-1, 3)

    def _neck(self, torso_in_head: NDArray[Any], width: float) -> Floats:
        k = self.size
        turn = np.linspace(0, 2 * np.pi, _NECK_SIDES, endpoint=False)
        ring = np.stack([np.cos(turn), np.zeros_like(turn), np.sin(turn)], 1)
        upper = ring * [0.049 * width * k, 0, 0.054 * width * k] + self.centre + [0, -0.040 * k, -0.014 * k]
        lower = self.torso_points(
            (ring * [0.056 * width * k, 0, 0.056 * width * k] + [0, -0.04 * k, 0]).astype(np.float32), torso_in_head
        )
        t = np.linspace(0, 1, _NECK_ROWS)[:, None, None]
        return np.asarray(upper + (lower - upper) * t, np.float32).reshape(-1, 3)


@compiled
def _between(points: Any, index: Any, weight: Any, result: Any) -> None:
    """Fill `result` (m, 3) with the means of three points each, by index (m, 3), with weights (m, 3)."""
    for i in range(index.shape[0]):
        a, b, c = index[i, 0], index[i, 1], index[i, 2]
        for axis in range(3):
            result[i, axis] = (
                points[a, axis] * weight[i, 0] + points[b, axis] * weight[i, 1] + points[c, axis] * weight[i, 2]
            )
