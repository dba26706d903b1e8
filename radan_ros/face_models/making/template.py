"""The neutral average adult face as a mesh with landmarks, mirror, flat map and regions; `make_template` makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, cKDTree

from radan_ros.face_models.making import meshing
from radan_ros.face_models.making.meshing import Indices
from radan_ros.face_models.making.sculpture import CENTRE, EYE, EYE_RADIUS, Array, field, spline

__all__ = [
    "BROW", "EYEBALL", "INNER_MOUTH", "LID_RIM", "LIPS", "NOSTRIL", "SKIN", "Template", "make_template",
]  # fmt: skip

SKIN, LIPS, BROW, EYEBALL, INNER_MOUTH, NOSTRIL, LID_RIM = range(7)

LANDMARK_MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
     41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
)  # fmt: skip
"""Landmark that is the mirror image of each landmark."""

Size = Callable[[Array], Array]

GRID = 1e-3  # mm; all coordinates are multiples of it
EXPAND = 0.8  # how far the map's rays lean to see the underside of the nose
SCALE = 85.0  # mm of the map per radian
MOUTH_ROOM = 9.0  # mm of the face that the inside of the mouth takes on the flat map
SLIT = 0.2  # mm in the map between the edges of the upper and the lower lip


@dataclass(frozen=True, eq=False)
class Template:
    """A mesh of the neutral face, exactly bilaterally symmetric.

    Attributes
    ----------
    vertices : (V, 3) float64
        Metres, x to the subject's left, y to the scalp, z out of the face; the origin is midway between the tragions.
    triangles : (T, 3) int32
        Counter-clockwise seen from outside.
    landmarks : (68,) int32
        Vertex of each landmark, iBUG order.
    mirror : (V,) int32
        The vertex at (-x, y, z) of each vertex.
    uv : (V, 2) float32
        A flat map in 0 .. 1 without overlaps; mirror images have u and 1 - u. The eyeballs lie in the lower corners,
        the inside of the mouth between the lips.
    regions : (V,) uint8
        SKIN, LIPS, BROW, EYEBALL, INNER_MOUTH, NOSTRIL or LID_RIM.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    landmarks: NDArray[np.int32]
    mirror: NDArray[np.int32]
    uv: NDArray[np.float32]
    regions: NDArray[np.uint8]


# --- curves of the left half: mm ------------------------------------------------------------------------------------

# Seen from the front (x, y); their depth is that of the sculpture there.
LID_INNER, LID_OUTER = (16.8, 15.0), (45.2, 16.6)
UPPER_LID = (LID_INNER, (19.2, 17.0), (25.2, 20.6), (31.5, 21.6), (38.0, 20.9), (42.7, 18.8), LID_OUTER)
LOWER_LID = (LID_INNER, (20.0, 13.2), (25.8, 11.4), (31.5, 10.7), (37.4, 11.2), (42.3, 13.5), LID_OUTER)
LIP_LINE = ((0, -48.5), (5, -48.1), (11, -47.9), (18, -48.2), (23, -48.0), (25.2, -47.8))
UPPER_VERMILION = ((0, -40.8), (2.8, -40.0), (5.6, -39.5), (9, -40.4), (16.5, -43.8), (21.5, -46.1), (26.4, -47.8))
LOWER_VERMILION = ((0, -57.8), (4, -57.8), (8.8, -57.0), (16, -54.2), (21.5, -50.8), (26.4, -47.8))
LID_LANDMARKS = (26.5, 36.5)  # of each lid, x
BROW_LINE = ((11.5, 36.0), (20.5, 39.5), (30.5, 41.5), (41, 41.0), (52, 36.0))  # landmarks 22 .. 26
BROW_HEIGHT = (4.0, 4.2, 4.0, 3.2, 1.5)  # half of it
# Seen from the middle of the head: points near the surface.
BORDER = (
    (0, 92, 82), (16, 91, 80), (32, 86, 75), (46, 77, 63), (55, 66, 53), (61, 54, 45), (66, 42, 33), (69.5, 28, 18),
    (70.5, 14, 8), (69.5, 0, 4), (67.5, -14, 3), (64.5, -28, 3), (60, -42, 4), (56, -54, 6), (50, -66, 12),
    (43, -73, 18), (36, -80, 30), (28, -85, 40), (18, -90, 49), (8, -93, 54), (0, -94, 55),
)  # fmt: skip
JAW_LINE = (
    (18.5, -89, 86), (32, -82, 72.5), (42.5, -72, 58), (51, -58.5, 45), (57, -42, 37), (61.5, -24, 33),
    (65.5, -4, 31), (68.5, 17, 30),
)  # landmarks 9 .. 16, evenly spaced as iBUG has them  # fmt: skip
NOSE_RIDGE = (20.0, 9.0, -2.2)  # heights of landmarks 27 .. 29, evenly above 30, the foremost point
SUBNASALE, GNATHION = -26.5, -92.0
NOSE_BASE = ((6.5, -25.5, 104), (14.2, -24.0, 98))  # landmarks 34, 35
WING = ((12, -10), (15.5, -14), (17, -19), (15, -23), (9, -12), (5, -16), (0, -14), (4, -22))
WING_CREASE = ((16.5, -14, 98), (17.5, -17, 97), (17.5, -20, 96.5), (16.5, -23, 97.5), (14, -25, 99.5))
NOSTRIL_RIM = ((6.7, 108.6), (2.5, 4.6), 26.0)  # centre (x, z), half axes, degrees from the z axis


def make_template() -> Template:
    """Make the mesh; always the same one.

    Returns
    -------
    Template
    """
    return _whole(_left_half())


# --- the map: a fan of rays that lean where the nose is ---------------------------------------------------------------


def _window(u: Array, v: Array) -> Array:
    return EXPAND * np.exp(-((u / 22.0) ** 4) - ((v - 5.0) / 25.0) ** 4)


def _from_map(u: Array, v: Array, level: Array) -> Array:
    """Points (N, 3) on the rays of the map (u, v), mm, at horizontal distances `level` from the middle of the head."""
    elevation = (v - _window(u, v) * (level - 88.0)) / SCALE
    away = np.stack([level * np.sin(u / SCALE), level * np.tan(elevation), level * np.cos(u / SCALE)], axis=1)
    return CENTRE + away


def _to_map(points: Array) -> Array:
    """Where (N, 3) points lie on the map, (N, 2)."""
    away = points - CENTRE
    level = np.hypot(away[:, 0], away[:, 2])
    u = SCALE * np.arctan2(away[:, 0], away[:, 2])
    straight = SCALE * np.arctan2(away[:, 1], level)
    v = straight.copy()
    for _ in range(60):
        v += 0.5 * (straight + _window(u, v) * (level - 88.0) - v)
    return np.stack([u, v], axis=1)


def _on_rays(u: Array, v: Array) -> Array:
    """The sculpture's surface on the rays of the map, (N, 3)."""
    level = np.full(len(u), 112.0)
    for _ in range(45):
        level = np.maximum(level - 0.7 * field(_from_map(u, v, level)) * _slant(v), 5.0)
    return _from_map(u, v, level)


def _slant(v: Array) -> Array:
    return np.cos(np.clip(v / SCALE, -1.4, 1.4))


def _onto_surface(points: Array) -> Array:
    """The nearest points of the sculpture, about (Newton's steps along its gradient)."""
    points = points.copy()
    step = 0.02
    offsets = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) * step
    for _ in range(2):
        values = np.stack([field(points + offset) for offset in offsets], axis=1)
        gradient = values @ offsets / (4 * step * step)
        value = values.mean(1)
        points -= (value / np.maximum((gradient * gradient).sum(1), 0.05))[:, None] * gradient
    return points


def _drop(points: Array, direction: tuple[float, float, float]) -> Array:
    """Move (N, 3) points along a direction, from outside, until they meet the sculpture."""
    points = points.copy()
    along = np.asarray(direction, float)
    for _ in range(50):
        points += 0.7 * field(points)[:, None] * along
    return points


def _frontal(knots: NDArray[np.float64] | tuple[tuple[float, ...], ...], count: int = 200) -> Array:
    """A spline seen from the front, on the sculpture, (count, 3)."""
    flat = spline(_padded(knots), np.linspace(0, 1, count))[:, :2]
    return _from_front(flat)


def _padded(knots: NDArray[np.float64] | tuple[tuple[float, ...], ...]) -> NDArray[np.float64]:
    flat = np.asarray(knots, float)
    return np.concatenate([flat, np.zeros((len(flat), 1))], axis=1)


def _from_front(flat: Array) -> Array:
    return _drop(np.column_stack([flat, np.full(len(flat), 127.0)]), (0, 0, -1))


# --- the left half ---------------------------------------------------------------------------------------------------


@dataclass
class _Half:
    """The mesh of the left half while it grows."""

    points: Array  # (N, 3) mm
    triangles: Indices
    landmarks: dict[int, int]  # vertex of each landmark in the middle or on the left
    regions: NDArray[np.uint8]
    midline: NDArray[np.bool_]
    uv: Array


@dataclass(frozen=True)
class _Curves:
    """Fine polylines of the left half on the sculpture, (M, 3) mm."""

    upper_lid: Array
    lower_lid: Array
    lip_line: Array
    upper_red: Array
    lower_red: Array
    nostril: Array
    middle: Array  # from the hairline down
    border: Array  # from the hairline down to below the jaw
    brow: Array


@dataclass(frozen=True)
class _Outline:
    """The edge of the left half: a loop of vertices, counter-clockwise, and where its parts begin."""

    points: Array
    on_map: Array
    landmarks: dict[int, int]
    top: int  # the hairline in the middle; before it the border, from below the jaw upward
    upper_lip: int  # the middle of the upper lip's edge; before it the middle of the face, downward
    corner: int  # the corner of the mouth
    lower_lip: int  # the middle of the lower lip's edge; after it the middle of the chin, downward


def _curves() -> _Curves:
    border = _to_map(spline(np.asarray(BORDER, float), np.linspace(0, 1, 500)))
    v = np.arange(border[0, 1], border[-1, 1], -0.1)
    lip_line = _frontal(LIP_LINE)
    lip_line[0, 0] = 0.0
    return _Curves(
        upper_lid=_frontal(UPPER_LID),
        lower_lid=_frontal(LOWER_LID),
        lip_line=lip_line,
        upper_red=_frontal(UPPER_VERMILION),
        lower_red=_frontal(LOWER_VERMILION),
        nostril=_nostril_rim(400),
        middle=_on_rays(np.zeros_like(v), v) * (0, 1, 1),
        border=_on_rays(border[:, 0], border[:, 1]),
        brow=_from_front(np.array(BROW_LINE, float)),
    )


def _sizes(curves: _Curves) -> Size:
    """Edge length wanted at a place: fine at the features, growing with the distance to them."""
    fine = (
        (np.concatenate([curves.upper_lid, curves.lower_lid]), 1.0, 0.09),
        (curves.lip_line, 1.1, 0.11),
        (np.concatenate([curves.upper_red, curves.lower_red]), 1.2, 0.1),
        (curves.nostril, 0.85, 0.14),
        (np.array(WING_CREASE), 0.85, 0.1),
        (_from_front(np.array(WING)), 1.15, 0.09),
        (curves.brow, 2.0, 0.08),
    )
    trees = [(cKDTree(points), size, slope) for points, size, slope in fine]

    def size_at(points: Array) -> Array:
        wanted = np.full(len(points), 3.1)
        for tree, size, slope in trees:
            wanted = np.minimum(wanted, size + slope * tree.query(points)[0])
        return wanted

    return size_at


def _left_half() -> _Half:
    curves = _curves()
    size = _sizes(curves)
    outline = _outline(curves, size)
    lids, lid_landmarks = _lid_loop(curves, size)
    nostril = meshing.cut_curve(np.concatenate([curves.nostril, curves.nostril[:1]]), size, 4)[:-1]
    single, single_landmarks = _single_points(curves, size)

    fixed = np.concatenate([outline.points, lids, nostril, single])
    fixed_map = np.concatenate([outline.on_map, _to_map(fixed[len(outline.points) :])])
    first_lid = len(outline.points)
    first_nostril = first_lid + len(lids)
    first_single = first_nostril + len(nostril)
    holes = [fixed_map[first_lid:first_nostril], fixed_map[first_nostril:first_single]]
    landmarks = dict(outline.landmarks)
    landmarks |= {number: first_lid + at for number, at in lid_landmarks.items()}
    landmarks |= {number: first_single + at for number, at in single_landmarks.items()}

    taken = np.concatenate([fixed, curves.lip_line, curves.upper_lid, curves.lower_lid, curves.nostril])
    seeds, seeds_map = _seeds(outline.on_map, holes, taken, size)
    points = np.concatenate([fixed, seeds])
    triangles = _triangulated(np.concatenate([fixed_map, seeds_map]), outline.on_map, holes)
    is_fixed = np.arange(len(points)) < len(fixed)
    points, triangles = meshing.relax(points, triangles, is_fixed, size, _onto_surface, 20, GRID)

    regions = _painted(points, curves)
    regions[first_lid:first_nostril] = LID_RIM
    regions[outline.upper_lip : outline.lower_lip + 1] = LIPS
    midline = np.zeros(len(points), bool)
    midline[outline.top : outline.upper_lip + 1] = True
    midline[outline.lower_lip : len(outline.points)] = True
    midline[0] = True
    half = _Half(points, triangles, landmarks, regions, midline, np.zeros((0, 2)))
    _add_lids(half, np.arange(first_lid, first_nostril))
    _add_nostril(half, np.arange(first_nostril, first_single))
    bag = _add_mouth(half, outline)
    half.uv = _flat(half, outline, bag)
    _add_eyeball(half)
    return half


def _outline(curves: _Curves, size: Size) -> _Outline:
    middle, lip_line = curves.middle, curves.lip_line
    split = int(np.argmin(((middle - lip_line[0]) ** 2).sum(1)))
    tip = int(np.argmax(middle[:, 2]))
    subnasale = tip + 40 + int(np.argmin(np.abs(middle[tip + 40 : split, 1] - SUBNASALE)))
    ridge = [middle[np.argmin(np.abs(middle[:tip, 1] - height))] for height in NOSE_RIDGE]
    breaks = [*ridge, middle[tip], middle[subnasale], curves.upper_red[0] * (0, 1, 1)]
    upper, at_upper = _cut_at(np.concatenate([middle[:split], lip_line[:1]]), breaks, size)
    chin = middle[split + 1 :]
    lowest = chin[np.argmin(np.where(chin[:, 2] > 85, np.abs(chin[:, 1] - GNATHION), np.inf))]
    lower, at_lower = _cut_at(np.concatenate([lip_line[:1], chin]), [curves.lower_red[0] * (0, 1, 1), lowest], size)
    lip, at_lip = _cut_at(lip_line, [lip_line[np.argmin(np.abs(lip_line[:, 0] - 8.2))]], size)
    border = meshing.cut_curve(curves.border, size)
    border[[0, -1]] = upper[0], lower[-1]

    top = len(border) - 1
    upper_lip = top + len(upper) - 1
    corner = upper_lip + len(lip) - 1
    lower_lip = corner + len(lip) - 1
    points = np.concatenate([border[::-1], upper[1:-1], lip, lip[-2::-1], lower[1:-1]])
    on_map = _to_map(points)
    on_map[top : upper_lip + 1, 0] = on_map[lower_lip:, 0] = on_map[0, 0] = 0.0
    on_map[upper_lip:corner, 1] += SLIT
    on_map[corner + 1 : lower_lip + 1, 1] -= SLIT
    landmarks = {number: top + at for number, at in zip((27, 28, 29, 30, 33, 51), at_upper, strict=True)}
    landmarks |= {57: lower_lip + at_lower[0], 8: lower_lip + at_lower[1], 64: corner}
    landmarks |= {62: upper_lip, 66: lower_lip, 63: upper_lip + at_lip[0], 65: lower_lip - at_lip[0]}
    return _Outline(points, on_map, landmarks, top, upper_lip, corner, lower_lip)


def _cut_at(curve: Array, breaks: list[Array], size: Size) -> tuple[Array, list[int]]:
    """`meshing.cut_curve` that keeps some points of the curve: the points cut, and the number of each break in them."""
    at = [int(np.argmin(((curve - point) ** 2).sum(1))) for point in breaks]
    ends = sorted({0, len(curve) - 1, *at})
    parts = [meshing.cut_curve(curve[i : j + 1], size) for i, j in zip(ends[:-1], ends[1:], strict=True)]
    firsts = np.concatenate([[0], np.cumsum([len(part) - 1 for part in parts])])
    points = np.concatenate([part[:-1] for part in parts] + [parts[-1][-1:]])
    return points, [int(firsts[ends.index(i)]) for i in at]


def _lid_loop(curves: _Curves, size: Size) -> tuple[Array, dict[int, int]]:
    """The opening of the lids, counter-clockwise from the inner corner, and the landmarks on it."""
    cuts = []
    for curve in (curves.lower_lid, curves.upper_lid):
        stops = [curve[np.argmin(np.abs(curve[:, 0] - x))] for x in LID_LANDMARKS]
        cuts.append(_cut_at(curve, stops, size))
    (below, at_below), (above, at_above) = cuts
    loop = np.concatenate([below, above[-2:0:-1]])
    count = len(loop)
    places = (0, count - at_above[0], count - at_above[1], len(below) - 1, at_below[1], at_below[0])
    return loop, dict(zip(range(42, 48), places, strict=True))


def _single_points(curves: _Curves, size: Size) -> tuple[Array, dict[int, int]]:
    """Vertices to be kept inside the half: landmarks and the border of the red of the lips."""
    parts = [curves.brow, _from_middle(JAW_LINE), _from_middle(NOSE_BASE), curves.upper_red[-1:]]
    landmarks = dict(zip((*range(22, 27), *range(9, 17), 34, 35, 54), range(16), strict=True))
    count = 16
    edge = np.concatenate([curves.lip_line, curves.upper_red[-1:]])
    for curve, marked in (
        (curves.upper_red, {52: UPPER_VERMILION[2], 53: UPPER_VERMILION[4]}),
        (curves.lower_red, {56: LOWER_VERMILION[2], 55: LOWER_VERMILION[3]}),
    ):
        stops = [curve[np.argmin(np.abs(curve[:, 0] - place[0]))] for place in marked.values()]
        red, at = _cut_at(curve, stops, size)
        red = red[1:-1]
        apart = cKDTree(edge).query(red)[0] > 0.8 * size(red)  # near the corner it runs into the edge of the lip
        parts.append(red[apart])
        landmarks |= {number: count + int(apart[: i - 1].sum()) for number, i in zip(marked, at, strict=True)}
        count += int(apart.sum())
    return np.concatenate(parts), landmarks


def _triangulated(on_map: Array, outline: Array, holes: list[Array]) -> Indices:
    """Delaunay triangles of places on the map that lie inside the outline and not in holes, counter-clockwise."""
    on_map = np.round(on_map, 6)
    triangles = Delaunay(on_map).simplices.astype(np.int64)
    a, b, c = (on_map[triangles[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    triangles = np.where(area[:, None] < 0, triangles[:, ::-1], triangles)
    centre = (a + b + c) / 3
    kept = (np.abs(area) > 1e-9) & meshing.inside_polygon(centre, outline)
    for hole in holes:
        kept &= ~meshing.inside_polygon(centre, hole)
    return triangles[kept]


def _from_middle(points: tuple[tuple[float, ...], ...]) -> Array:
    on_map = _to_map(np.asarray(points, float))
    return _on_rays(on_map[:, 0], on_map[:, 1])


def _nostril_rim(count: int) -> Array:
    """The edge of the nostril, seen from below counter-clockwise in the map, (count, 3)."""
    (x, z), (across, along), angle = NOSTRIL_RIM
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    a, b = across * np.cos(t), along * np.sin(t)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    start = np.stack([x + c * a - s * b, np.full(count, -30.0), z + s * a + c * b], axis=1)
    return _drop(start, (0, 1, 0))


def _seeds(outline: Array, holes: list[Array], taken: Array, size: Size) -> tuple[Array, Array]:
    """Inner vertices as dense as wanted: points and places on the map."""
    step = 0.5
    u = np.arange(step, outline[:, 0].max(), step)
    v = np.arange(outline[:, 1].min(), outline[:, 1].max(), step)
    coarse = 3  # the surface is traced on every third line and filled in between
    grid_v, grid_u = np.meshgrid(v[::coarse], np.concatenate([[0.0], u])[::coarse], indexing="ij")
    traced = _on_rays(grid_u.ravel(), grid_v.ravel()).reshape(*grid_u.shape, 3)
    du = np.gradient(traced, step * coarse, axis=1)
    dv = np.gradient(traced, step * coarse, axis=0)
    stretch = np.sqrt((np.cross(du, dv) ** 2).sum(-1))
    wanted = stretch / size(traced.reshape(-1, 3)).reshape(stretch.shape) ** 2
    all_v, all_u = np.meshgrid(v, u, indexing="ij")
    at = np.stack([(all_v - v[0]) / (step * coarse), all_u / (step * coarse)])
    density = map_coordinates(wanted, at, order=1, mode="nearest")
    i, j = np.indices(all_v.shape)
    # Thresholds of an even sequence (Roberts' R2) instead of random ones: no clumps.
    threshold = (0.7548776662466927 * i + 0.5698402909980532 * j) % 1.0
    chosen = density * step * step * (2 / np.sqrt(3)) > threshold
    flat = np.stack([all_u[chosen], all_v[chosen]], axis=1)
    kept = meshing.inside_polygon(flat, outline)
    for hole in holes:
        kept &= ~meshing.inside_polygon(flat, hole)
    flat = flat[kept]
    points = _on_rays(flat[:, 0], flat[:, 1])
    far = cKDTree(taken).query(points)[0] > 0.65 * size(points)
    return points[far], flat[far]


def _painted(points: Array, curves: _Curves) -> NDArray[np.uint8]:
    """Skin, lips and brows, as seen from the front."""
    regions = np.full(len(points), SKIN, np.uint8)
    red = np.concatenate([curves.upper_red, curves.lower_red[::-1]])[:, :2]
    red = red + 0.05 * np.sign(red - (0.0, -47.8))  # with the vertices on its border
    red[:, 0] = np.where(red[:, 0] < 0.2, -1.0, red[:, 0])
    line, height = np.array(BROW_LINE, float), np.array([(0.0, half) for half in BROW_HEIGHT])
    brow = np.concatenate([line - height, (line + height)[::-1]])
    front = points[:, 2] > 60
    for polygon, region in ((red, LIPS), (brow, BROW)):
        regions[front & meshing.inside_polygon(points[:, :2], polygon)] = region
    return regions


# --- parts that hang on the edges of the skin -------------------------------------------------------------------------


def _append(half: _Half, points: Array, region: int) -> Indices:
    first = len(half.points)
    half.points = np.concatenate([half.points, np.round(points / GRID) * GRID])
    half.regions = np.concatenate([half.regions, np.full(len(points), region, np.uint8)])
    half.midline = np.concatenate([half.midline, np.zeros(len(points), bool)])
    return np.arange(first, first + len(points))


def _around(indices: Indices) -> Indices:
    return np.concatenate([indices, indices[:1]])


def _add_lids(half: _Half, edge: Indices) -> None:
    """The thickness of the lids, and a seam that dips into the eyeball all around."""
    margin = half.points[edge]
    away = margin - EYE
    distance = np.sqrt((away * away).sum(1))
    direction = away / distance[:, None]
    inward = np.array([31.0, 16.0, 90.0]) - margin
    inward -= (inward * direction).sum(1)[:, None] * direction
    inward /= np.sqrt((inward * inward).sum(1))[:, None]
    back = direction + 0.035 * inward
    back /= np.sqrt((back * back).sum(1))[:, None]
    rows = [edge]
    for radius in (np.maximum(EYE_RADIUS + 0.25, distance - 1.4), np.full(len(edge), EYE_RADIUS - 0.25)):
        rows.append(_append(half, EYE + radius[:, None] * back, LID_RIM))
    strips = [meshing.ladder(_around(a), _around(b)) for a, b in zip(rows[:-1], rows[1:], strict=True)]
    half.triangles = np.concatenate([half.triangles, *strips])


def _add_nostril(half: _Half, edge: Indices) -> None:
    """A pit behind the edge of the nostril."""
    rim = half.points[edge]
    centre = rim.mean(0)
    rows = [edge]
    inward = np.array([-0.05, 0.9, -0.35])
    for depth, width, every in ((0.9, 0.94, 1), (2.0, 0.83, 1), (3.6, 0.65, 2), (5.0, 0.36, 4)):
        rows.append(_append(half, centre + width * (rim[::every] - centre) + depth * inward, NOSTRIL))
    bottom = _append(half, (centre + 5.4 * inward)[None], NOSTRIL)
    strips = [meshing.ladder(_around(a), _around(b)) for a, b in zip(rows[:2], rows[1:3], strict=True)]
    strips += [meshing.halving(a, b) for a, b in zip(rows[2:-1], rows[3:], strict=True)]
    last = rows[-1]
    fan = np.stack([last, np.roll(last, -1), np.full(len(last), bottom[0])], axis=1)
    half.triangles = np.concatenate([half.triangles, *strips, fan])


def _add_mouth(half: _Half, outline: _Outline) -> Indices:
    """Inner sides of the lips and a closed bag behind them; returns its vertices in the middle, from above down."""
    edge = np.arange(outline.upper_lip, outline.lower_lip + 1)[::-1]  # lower lip, corner, upper lip
    corner = outline.corner - outline.upper_lip
    points = half.points[edge]
    away = (np.arange(len(edge)) - corner) / corner  # -1 in the middle of the lower lip, 1 in that of the upper one
    opening = np.clip(2.2 * away, -1.0, 1.0)
    rows = [edge]
    for depth, spread in ((1.0, 0.15), (2.3, 0.6), (4.0, 1.5), (6.3, 2.8), (9.0, 4.0), (12.0, 4.6)):
        shift = np.stack([-0.01 * depth * points[:, 0], spread * opening, np.full(len(edge), -depth)], axis=1)
        rows.append(_append(half, points + shift, INNER_MOUTH))
    strips = [meshing.ladder(a, b) for a, b in zip(rows[:-1], rows[1:], strict=True)]

    # The back: a net of its own inside the last row.
    last = half.points[rows[-1]]
    x, y = (
        a.ravel() for a in np.meshgrid(np.arange(0.0, last[corner, 0], 2.0), np.linspace(last[0, 1], last[-1, 1], 6))
    )
    lower, upper = last[: corner + 1], last[corner:][::-1]
    depth = (np.interp(x, lower[:, 0], lower[:, 2]) + np.interp(x, upper[:, 0], upper[:, 2])) / 2
    net = np.stack([x, y, depth - 1.5], axis=1)
    inner = meshing.inside_polygon(net[:, :2] + (1e-6, 0), last[:, :2])
    inner &= np.sqrt(((net[:, None, :2] - last[None, :, :2]) ** 2).sum(2)).min(1) > 0.8
    added = _append(half, net[inner], INNER_MOUTH)
    numbers = np.concatenate([rows[-1], added])
    strips.append(numbers[_triangulated(half.points[numbers][:, :2], last[:, :2], [])])
    half.triangles = np.concatenate([half.triangles, *strips])

    behind = added[half.points[added, 0] == 0.0]
    behind = behind[np.argsort(-half.points[behind, 1])]
    chain = np.array([*(row[-1] for row in rows[1:]), *behind, *(row[0] for row in rows[:0:-1])])
    half.midline[chain] = True
    return chain


def _add_eyeball(half: _Half) -> None:
    polar, triangles = meshing.disc(13)
    angle = np.radians(94.0) * polar[:, 0]
    around = polar[:, 1]
    ball = np.stack([np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)], axis=1)
    indices = _append(half, EYE + EYE_RADIUS * ball, EYEBALL)
    half.triangles = np.concatenate([half.triangles, indices[triangles]])
    flat = np.stack([polar[:, 0] * np.cos(around), polar[:, 0] * np.sin(around)], axis=1) * 0.06
    half.uv = np.concatenate([half.uv, np.array([0.93, 0.07]) + flat])


def _flat(half: _Half, outline: _Outline, bag: Indices) -> Array:
    """The flat map of the half: the middle on a straight line, the outer border on a convex curve, holes filled.

    The mouth is a lens between the lips, with its inside in it; first the map is made with the lips closed, which shows
    where along that lens their edges belong.
    """
    points = half.points
    border = np.arange(outline.top + 1)  # from below the jaw to the hairline
    above = np.arange(outline.top, outline.upper_lip + 1)
    below = np.concatenate([np.arange(outline.lower_lip, len(outline.points)), [0]])
    upper = np.arange(outline.upper_lip, outline.corner + 1)
    lower = np.arange(outline.lower_lip, outline.corner - 1, -1)

    # Close the opening of the lids with one more vertex: a mesh without holes maps without overlaps.
    _, open_edges = meshing.edges_of(half.triangles)
    rim = open_edges[~np.isin(open_edges, np.concatenate([border, above, bag, below])).any(1)]
    triangles = np.concatenate([half.triangles, np.column_stack([rim[:, ::-1], np.full(len(rim), len(points))])])
    points = np.concatenate([points, points[rim[:, 0]].mean(0, keepdims=True)])

    on_map = outline.on_map[border]
    low, high = on_map[[0, -1], 1]
    turn = np.arctan2((on_map[:, 1] - (low + high) / 2) / ((high - low) / 2), on_map[:, 0] / on_map[:, 0].max())
    turn[[0, -1]] = -np.pi / 2, np.pi / 2
    c, s = np.cos(turn), np.sin(turn)
    radius = 0.48 * (np.abs(c) ** 2.6 + np.abs(s) ** 2.6) ** (-1 / 2.6)  # a superellipse, free in the corners
    places = np.zeros((len(points), 2))
    places[border] = np.stack([0.5 + radius * c, 0.5 + radius * s], axis=1)
    middle = np.concatenate([above, bag, below])
    steps = np.sqrt((np.diff(points[middle], axis=0) ** 2).sum(1))
    inside = half.regions[middle] == INNER_MOUTH
    within = inside[:-1] | inside[1:]
    steps[within] *= MOUTH_ROOM / steps[within].sum()
    height = 0.98 - 0.96 * np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    places[middle] = np.column_stack([np.full(len(middle), 0.5), height])

    closed = np.arange(len(points))
    closed[lower] = upper
    mouth = np.flatnonzero(half.regions == INNER_MOUTH)
    skin = closed[triangles[~np.isin(triangles, mouth).any(1)]]
    on_line = places.copy()
    on_line[outline.upper_lip] = places[[outline.upper_lip, outline.lower_lip]].mean(0)
    fixed = np.unique(np.concatenate([border, above, below, lower[:-1], mouth]))
    line = meshing.flatten(points, skin, fixed, on_line[fixed])[upper]

    share = (line[:, 0] - 0.5) / (line[-1, 0] - 0.5)
    half_opening = (places[outline.upper_lip] - places[outline.lower_lip])[1] / 2 * (1 - share**2)
    straight = line[0, 1] + share * (line[-1, 1] - line[0, 1])
    places[lower] = np.column_stack([line[:, 0], straight - half_opening])
    places[upper] = np.column_stack([line[:, 0], straight + half_opening])
    fixed = np.unique(np.concatenate([border, middle, upper, lower]))
    return meshing.flatten(points, triangles, fixed, places[fixed])[:-1]


# --- both halves -----------------------------------------------------------------------------------------------------


def _whole(half: _Half) -> Template:
    count = len(half.points)
    sides = np.flatnonzero(~half.midline)
    twin = np.arange(count)
    twin[sides] = count + np.arange(len(sides))
    points = np.round(half.points / GRID).astype(np.int64)
    points[half.midline, 0] = 0
    points = np.concatenate([points, points[sides] * (-1, 1, 1)])
    triangles = np.concatenate([half.triangles, twin[half.triangles][:, ::-1]])
    mirror = np.concatenate([twin, sides])
    landmarks = np.full(68, -1)
    for number, vertex in half.landmarks.items():
        landmarks[number] = vertex
        landmarks[LANDMARK_MIRROR[number]] = twin[vertex]
    # Multiples of 2**-20: exact in float32, and so is one minus them.
    uv = np.round(half.uv * 2**20) / 2**20
    uv[half.midline, 0] = 0.5
    uv = np.concatenate([uv, np.array([1.0, 0.0]) + uv[sides] * (-1, 1)])
    return Template(
        points / (1000.0 / GRID),
        triangles.astype(np.int32),
        landmarks.astype(np.int32),
        mirror.astype(np.int32),
        uv.astype(np.float32),
        np.concatenate([half.regions, half.regions[sides]]),
    )
