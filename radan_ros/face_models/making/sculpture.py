"""The average face as an implicit surface: sculpted from anatomical points, tubes and ellipsoids, in millimetres.

Axes as everywhere (x to the subject's left, y up, z forward). The origin lies midway between the tragions, the x-z
plane is about the Frankfurt plane. The field is negative inside, positive outside, and near the surface about the
distance to it. Everything is a function of ``abs(x)``: the face is bilaterally symmetric by construction.

Heights, breadths and depths of the landmarks are rounded figures for adults of both sexes, of the order published by
L. G. Farkas (Anthropometry of the Head and Face, 1994) and Z. Zhuang and B. Bradtmiller (Head-and-Face Anthropometric
Survey of U.S. Respirator Users, J. Occup. Environ. Hyg. 2, 2005): from memory, not copied from their tables nor checked
against them. What lies between those landmarks is set by hand.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, RBFInterpolator
from scipy.ndimage import map_coordinates, spline_filter

Array = NDArray[np.float64]

CENTRE = np.array([0.0, -20.0, 15.0])
"""The head without its nose is star-shaped about this point, mm."""

EYE = np.array([31.5, 16.0, 76.3])
"""Centre of the left eyeball, mm."""
EYE_RADIUS = 12.0
LID_RADIUS = 13.5

# Horizontal sections of the head without nose, lips and eyeballs: height y, then (x, z) from the middle to the ear.
SECTIONS: tuple[tuple[float, tuple[tuple[float, float], ...]], ...] = (
    (105, ((0, 67), (30, 58), (51, 35), (62, 5))),
    (90, ((0, 84), (20, 81.5), (40, 70), (56, 47), (67, 12))),
    (70, ((0, 97), (20, 95), (38, 85), (54, 64), (64, 40), (72, 3))),
    (54, ((0, 102.5), (20, 100), (37, 89), (50, 72.5), (59, 53), (67.5, 28), (73, 0))),
    (40, ((0, 103.5), (10, 103), (25, 98.5), (40, 87.5), (50, 75.5), (57, 62), (64, 42), (69.5, 20), (72, 0))),
    (30, ((0, 99.5), (12, 96), (25, 92), (40, 85.5), (50, 74.5), (57, 60), (64, 41), (69, 20), (71.5, 0))),
    (
        17,
        (
            (0, 94),
            (8, 91),
            (13, 87.5),
            (18.5, 84),
            (31, 82.5),
            (44, 78),
            (51, 70.5),
            (57, 58.5),
            (64.5, 39),
            (68.5, 20),
            (70.5, 0),
        ),
    ),
    (8.5, ((0, 97), (8, 94.5), (14, 89.5), (20, 87), (31, 86), (42, 81), (51, 70.5))),
    (
        2,
        (
            (0, 98),
            (8, 96),
            (14, 92),
            (22, 88),
            (34, 85.5),
            (45, 80),
            (53, 70.5),
            (60, 57),
            (66, 37),
            (68, 18),
            (69.5, 0),
        ),
    ),
    (-12, ((0, 101), (9, 99), (16, 94.5), (26, 89.5), (38, 84.5), (48, 76.5), (56, 64), (62, 46), (65.5, 27), (67, 5))),
    (-25, ((0, 103), (10, 100), (18, 95.5), (28, 90.5), (40, 82), (50, 69), (57, 53), (61.5, 33), (63.5, 8))),
    (-35, ((0, 105.2), (10, 103.2), (20, 97), (30, 90), (42, 78), (51, 62.5), (57, 45), (60, 25), (61, 3))),
    (-47, ((0, 102.5), (10, 100.5), (20, 94.5), (27, 91), (36, 82.5), (45, 69.5), (51.5, 54), (56, 34), (57.5, 8))),
    (-58, ((0, 100), (10, 98), (20, 91), (30, 84), (40, 71), (47.5, 54), (52, 35), (53.5, 10))),
    (-66, ((0, 97), (10, 95.5), (20, 90), (30, 80.5), (39, 67), (45.5, 50), (49, 32))),
    (-78, ((0, 98.5), (10, 96.5), (20, 89), (30, 76.5), (39, 58))),
)
# The border of the lower jaw from the angle to the chin, and the floor of the mouth inward of it.
JAW = ((51.5, -62, 12), (48, -71, 33), (41.5, -79.5, 54), (30.5, -87, 72.5), (17, -91, 85.5), (0, -92, 91))
UNDER_JAW = (
    (40, -72, 12), (36, -80, 33), (30, -87, 50), (22, -91.5, 63), (12, -94.5, 72), (0, -95.5, 77),
    (20, -88, 40), (0, -93, 58), (25, -80, 20), (0, -86, 35),
)  # fmt: skip

_TABLE_STEP = np.radians(1.5)
_TABLE_AZIMUTH = np.radians(123.0)
_TABLE_ELEVATION = np.radians(84.0)


def smooth_min(a: Array, b: Array, k: float) -> Array:
    """Union of two fields, rounded where they are nearer to each other than `k` mm (Quilez' cubic form)."""
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.minimum(a, b) - h * h * h * (k / 6.0)


def cut(path: tuple[tuple[float, ...], ...], pieces: int) -> Array:
    """A spline through points (x, y, z and whatever goes along) as a polyline of so many pieces."""
    return spline(np.asarray(path, float), np.linspace(0.0, 1.0, pieces + 1))


def tube(points: Array, axis: Array) -> Array:
    """Distance to a tube of varying radius.

    Parameters
    ----------
    points : (N, 3) float64
        mm.
    axis : (n, 4) float64
        A polyline and the radius at its points, mm.

    Returns
    -------
    (N,) float64
        mm, negative inside.
    """
    result = _outside_box(points, axis[:, :3], axis[:, 3].max())
    near = np.flatnonzero(result < 12.0)  # farther away the distance to the box does: nothing is blended there
    squared, radius = _nearest_on(points[near], axis)
    result[near] = np.sqrt(squared) - radius[:, 0]
    return result


def _outside_box(points: Array, knots: Array, margin: float) -> Array:
    """Distance of points to the box around a path and its thickness, 0 inside."""
    low, high = knots.min(0) - margin, knots.max(0) + margin
    away = np.maximum(np.maximum(low - points, points - high), 0.0)
    return np.sqrt((away * away).sum(1))


def _nearest_on(points: Array, knots: Array) -> tuple[Array, Array]:
    """Of the nearest point of a polyline (n, 3 + d): the squared distance, and the d other columns there."""
    squared = np.full(len(points), np.inf)
    others = np.zeros((len(points), knots.shape[1] - 3))
    for start, end in zip(knots[:-1], knots[1:], strict=True):
        along = end[:3] - start[:3]
        away = points - start[:3]
        t = np.clip(away @ along / (along @ along), 0.0, 1.0)[:, None]
        here = ((away - t * along) ** 2).sum(1)
        closer = here < squared
        squared = np.where(closer, here, squared)
        others = np.where(closer[:, None], start[3:] + t * (end[3:] - start[3:]), others)
    return squared, others


def spline(knots: NDArray[np.float64], at: Array) -> Array:
    """Points of the cubic spline through `knots` (n, d) at the fractions `at` of its chord length, (len(at), d)."""
    knots = np.asarray(knots, np.float64)
    steps = np.sqrt((np.diff(knots[:, :3], axis=0) ** 2).sum(1))
    chord = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    if len(knots) == 2:
        return knots[0] + at[:, None] * (knots[1] - knots[0])
    return CubicSpline(chord, knots, bc_type="natural")(at)


def ellipsoid(
    points: Array,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    yaw: float = 0.0,
    pitch: float = 0.0,
) -> Array:
    """About the distance to an ellipsoid turned by `yaw` about y, after `pitch` about x (degrees), mm."""
    away = points - np.asarray(centre)
    cy, sy = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    cp, sp = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    x = cy * away[:, 0] - sy * away[:, 2]
    z = sy * away[:, 0] + cy * away[:, 2]
    y, z = cp * away[:, 1] - sp * z, sp * away[:, 1] + cp * z
    scaled = np.stack([x, y, z], 1) / np.asarray(radii)
    k0 = np.sqrt((scaled * scaled).sum(1))
    k1 = np.sqrt(((scaled / np.asarray(radii)) ** 2).sum(1)) + 1e-9
    return k0 * (k0 - 1.0) / k1


def directions(points: Array) -> tuple[Array, Array, Array]:
    """Azimuth (0 forward, positive left), elevation (radians) and distance (mm) of points as `CENTRE` sees them."""
    away = points - CENTRE
    level = np.hypot(away[:, 0], away[:, 2])
    return np.arctan2(away[:, 0], away[:, 2]), np.arctan2(away[:, 1], level), np.hypot(level, away[:, 1])


@lru_cache(maxsize=1)
def _head_table() -> Array:
    """Spline coefficients of the distance of the bare head from `CENTRE`, by elevation and azimuth."""
    half = np.array([(x, y, z) for y, section in SECTIONS for x, z in section] + list(JAW) + list(UNDER_JAW), float)
    both = np.concatenate([half, half[half[:, 0] > 0] * (-1, 1, 1)])
    azimuth, elevation, distance = directions(both)
    ring = _unit(azimuth, elevation)
    surface = RBFInterpolator(ring, distance, kernel="cubic", degree=1, smoothing=2e-3)
    a = np.arange(-_TABLE_STEP * 2, _TABLE_AZIMUTH + _TABLE_STEP, _TABLE_STEP)
    e = np.arange(-_TABLE_ELEVATION, _TABLE_ELEVATION + _TABLE_STEP / 2, _TABLE_STEP)
    grid_e, grid_a = np.meshgrid(e, a, indexing="ij")
    # The sum of large opposite terms has last digits that depend on the CPU; a micrometre's grid hides them.
    table = np.round(surface(_unit(grid_a.ravel(), grid_e.ravel())), 3).reshape(grid_e.shape)
    return spline_filter(table, order=3, mode="mirror")


def _unit(azimuth: Array, elevation: Array) -> Array:
    return np.stack(
        [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], axis=1
    )


def head(points: Array) -> Array:
    """Field of the bare head (no nose, lips, eyes), mm; points have x >= 0."""
    azimuth, elevation, distance = directions(points)
    where = np.stack([(elevation + _TABLE_ELEVATION) / _TABLE_STEP, azimuth / _TABLE_STEP + 2.0])
    surface = map_coordinates(_head_table(), where, order=3, mode="nearest", prefilter=False)
    return (distance - surface) * 0.95


DORSUM = cut(((0, 34, 91.0, 8.5), (0, 24, 89.6, 6.2), (0, 15, 94.2, 5.6), (0, 4, 102.6, 5.8), (0, -6, 108.6, 6.2)), 16)
NOSE_FLANK = cut(((2, 20, 85, 6.0), (3, 8, 91.5, 7.0), (4, -4, 97.5, 8.0), (5, -12, 100.5, 9.0)), 8)
COLUMELLA = cut(((0, -23.2, 100, 3.2), (0, -18.6, 114, 3.4)), 1)
UPPER_LIP = cut(
    ((0, -44.2, 103.6, 4.6), (5, -43.2, 103.2, 5.0), (12, -44.4, 99.6, 4.3), (19, -46.3, 94.2, 3.0),
     (25.5, -47.8, 88.6, 1.1)), 16
)  # fmt: skip
LOWER_LIP = cut(
    ((0, -52.4, 100.6, 5.4), (6, -52.3, 99.9, 5.4), (13, -51.6, 96.6, 4.7), (19.5, -49.9, 92.4, 3.2),
     (25.5, -48.0, 88.4, 1.1)), 16
)  # fmt: skip


def nose(points: Array, skin: Array) -> Array:
    """Add the nose without its nostrils to a field, mm."""
    body = smooth_min(tube(points, DORSUM), tube(points, NOSE_FLANK), 9.0)
    tip = ellipsoid(points, (0, -13.0, 112.6), (8.4, 7.8, 9.4))
    domes = ellipsoid(points, (3.0, -13.6, 116.0), (4.8, 5.0, 5.6))
    wing = ellipsoid(points, (11.0, -17.6, 103.4), (5.6, 6.9, 9.8), yaw=-24, pitch=10)
    skin = smooth_min(skin, body, 10.0)
    skin = smooth_min(skin, smooth_min(tip, domes, 6.0), 9.0)
    skin = smooth_min(skin, tube(points, COLUMELLA), 4.0)
    return smooth_min(skin, wing, 5.0)


def carving(points: Array, path: Array) -> Array:
    """What to add to a field to carve a soft groove (or, negative, to raise a fold) along a path.

    Parameters
    ----------
    points : (N, 3) float64
    path : (n, 5) float64
        A polyline on the surface, and the groove's depth and half width at its points, mm.

    Returns
    -------
    (N,) float64
        mm.
    """
    reach = 3.5 * path[:, 4].max()
    result = np.zeros(len(points))
    near = np.flatnonzero(_outside_box(points, path[:, :3], 0.0) < reach)
    squared, shape = _nearest_on(points[near], path)
    depth, width = shape.T
    result[near] = depth * np.exp(-squared / (width * width))
    return result


CARVINGS = tuple(cut(path, 12) for path in (
    # fold of the upper lid, and the fullness above it
    ((18.5, 19.5, 87, 0.0, 1.2), (24, 23.9, 88.9, 1.4, 1.4), (32, 25.6, 89.0, 1.9, 1.4), (40, 23.8, 86.5, 1.6, 1.4),
     (47, 19, 79, 0.3, 1.4)),
    ((22, 27.5, 91.0, -0.2, 3.0), (31, 29.5, 91.0, -1.2, 3.0), (40, 27.5, 87.5, -1.6, 3.2), (48, 22.5, 79, -0.8, 3.0)),
    # brow ridge, hollow between eye and nose, cheekbone, and the cheek below it
    ((11, 35, 102, -0.8, 6.0), (25, 38.5, 99, -1.2, 6.0), (42, 39, 87, -1.0, 6.0)),
    ((14.5, 25, 90, 1.2, 5.0), (15, 19, 88, 1.6, 5.0)),
    ((36, -2, 86, -0.8, 11.0), (48, 0, 78, -1.8, 11.0), (60, 3, 57, -0.6, 10.0)),
    ((45, -28, 77, 0.8, 12.0), (55, -38, 54, 1.2, 13.0)),
    # furrow under the lower lid, from the inner corner
    ((17, 10.5, 86, 0.7, 2.2), (23, 4.5, 88, 0.9, 3.0), (31, 2.5, 87, 0.5, 3.5), (40, 4.0, 84, 0.1, 3.5)),
    # philtrum and its columns
    ((0, -29, 106, 0.3, 2.6), (0, -34, 107.5, 0.8, 2.8), (0, -39.5, 108, 0.5, 2.8)),
    ((3.6, -31, 106, -0.1, 1.8), (4.6, -35, 106.5, -0.5, 2.0), (5.6, -38.5, 107, -0.4, 2.0)),
    # crease around the wing of the nose, and from it past the corner of the mouth
    ((12.5, -9.0, 100.0, 0.0, 1.6), (16.5, -13.5, 97.5, 0.6, 2.0), (18.0, -19.0, 95.5, 0.5, 2.0),
     (16.0, -24.5, 97.5, 0.2, 2.0)),
    ((21, -19, 93, 0.2, 4.0), (27, -31, 90.5, 0.6, 5.0), (32.5, -44, 86, 0.5, 5.5), (33, -54, 82, 0.0, 5.0)),
    # corner of the mouth
    ((25.5, -47.8, 91.0, 0.4, 2.2), (29, -48.2, 88.0, 0.7, 2.6)),
    # below the lower lip
    ((0, -64.0, 98, 0.7, 4.5), (10, -63.5, 97, 0.5, 4.5), (18, -61, 93, 0.0, 4.0)),
))  # fmt: skip


def field(points: Array) -> Array:
    """The whole face's field at (N, 3) points, mm."""
    p = np.abs(points * (1.0, 0.0, 0.0)) + points * (0.0, 1.0, 1.0)
    skin = head(p)
    lid = np.sqrt(((p - EYE) ** 2).sum(1)) - LID_RADIUS
    skin = smooth_min(skin, lid, 7.0)
    skin = nose(p, skin)
    skin = smooth_min(skin, tube(p, UPPER_LIP), 6.0)
    skin = smooth_min(skin, tube(p, LOWER_LIP), 9.0)
    for path in CARVINGS:
        skin = skin + carving(p, path)
    return skin
