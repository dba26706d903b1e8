"""Expressions of the template, made from anatomy: what the jaw, the lids and the muscles of the face do to its skin.

The jaw turns about the condyles, the lids turn about the eyeballs, and the muscles pull at landmarks of the skin, which
follows them as a thin plate on an elastic bed (it minimises bending plus its squared displacement; Bookstein 1989 has
the plate, the bed makes a pull end after some centimetres). Muscles after P. Ekman and W. Friesen, Facial Action Coding
System, 1978 (the action units are named at each). The ranges are set by hand, of the order of adults' strongest
expressions (corners of the mouth 8 to 12 mm in a smile and 7 to 10 mm in a pucker, brows 8 to 10 mm, mouth opening 40
to 50 mm), from memory, not from a table.

Everything is a function of the template's landmarks and regions, in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models.making.anatomy import Array, Eyeball, slide_lids, smooth_step
from radan_ros.face_models.making.template import (
    EYEBALL,
    INNER_MOUTH,
    LANDMARK_MIRROR,
    LID_RIM,
    NOSTRIL,
    SKIN,
    Template,
)

NAMES = (
    "jaw_open",
    "smile",
    "pucker",
    "eye_close_left",
    "eye_close_right",
    "brow_up",
    "brow_down",
    "upper_lip_raise",
    "mouth_frown",
    "cheek_raise",
)
# Those that faces do in one sense only: their coefficients are rarely negative.
ONE_SIDED = ("jaw_open", "eye_close_left", "eye_close_right")

_STRONG = 2.5  # standard deviations at which a muscle has done what is written below
# Mouth wide open, at 2.75 standard deviations: the jaw turns, and the condyles slide forwards and down (metres).
_JAW_WIDE, _JAW_ANGLE, _JAW_SLIDE = 2.75, np.radians(30.0), (0.0, -0.004, 0.012)
_CLOSED = 2.0  # standard deviations at which an eye is closed
_MIDDLE = (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)

# What a muscle does to the landmarks of the middle and of the left, millimetres (x outwards, y up, z forwards).
Pull = Mapping[int | str, tuple[float, float, float]]
_SMILE: Pull = {  # zygomaticus major, AU 12
    54: (7.5, 8.0, -4.5), 64: (6.8, 7.4, -4.2), 53: (4.0, 4.0, -2.0), 63: (3.0, 2.4, -1.6), 52: (1.4, 1.4, -0.9),
    51: (0, 0.6, -0.8), 62: (0, 0.3, -0.6), 55: (4.2, 3.2, -2.4), 65: (3.0, 2.2, -1.6), 56: (1.7, 1.2, -1.0),
    57: (0, 0.8, -0.8), 66: (0, 0.4, -0.6), 35: (1.4, 0.9, -0.4), 33: (0, -0.3, -0.3), 8: (0, 0, 0), 46: (0, 0.7, 0.2),
    47: (0, 0.7, 0.2), 45: (0, 0.2, 0), "cheek": (1.5, 3.6, 2.6), "fold": (4.0, 3.6, 1.0), 10: (0.5, 0.5, 0),
}  # fmt: skip
_PUCKER: Pull = {  # orbicularis oris, AU 18
    54: (-7.5, 0.0, 4.5), 64: (-7.0, 0.0, 4.5), 53: (-4.4, 0.5, 5.8), 63: (-3.0, 0.3, 5.6), 52: (-1.8, 0.9, 6.2),
    51: (0, 0.7, 6.2), 62: (0, 0.4, 6.0), 55: (-4.8, -0.3, 5.4), 65: (-3.0, -0.2, 5.4), 56: (-2.6, -0.6, 5.6),
    57: (0, -0.6, 5.6), 66: (0, -0.2, 5.8), 33: (0, -0.3, 0.6), 35: (-0.5, -0.3, 0.2), 8: (0, 0.8, 0.4),
    "fold": (-3.0, -0.5, 0.8), "chin": (0, 0.6, 2.0),
}  # fmt: skip
_BROW_UP: Pull = {  # frontalis, AU 1 and 2
    22: (0.2, 7.4, -0.2), 23: (0, 8.6, -0.3), 24: (0, 9.0, -0.5), 25: (0, 8.2, -0.8), 26: (0, 6.4, -0.8),
    43: (0, 0.8, 0), 44: (0, 0.8, 0), 27: (0, 1.0, 0), 45: (0, 0.3, 0), "forehead": (0, 5.0, -1.2),
}  # fmt: skip
_BROW_DOWN: Pull = {  # corrugator and procerus, AU 4; the tail of the brow rises a little
    22: (-4.0, -6.0, 1.2), 23: (-3.4, -5.2, 1.0), 24: (-2.2, -2.6, 0.6), 25: (-0.8, 0.0, 0.2), 26: (0, 1.5, 0),
    27: (0, -2.4, 0.8), 43: (0, -0.8, 0), 28: (0, -0.5, 0), "forehead": (-0.5, -0.6, 0), "glabella": (0, -4.4, 1.4),
}  # fmt: skip
_UPPER_LIP_RAISE: Pull = {  # levator labii superioris, AU 10, with AU 9
    51: (0, 5.0, -0.4), 62: (0, 5.2, -0.6), 52: (0.4, 5.6, -0.3), 63: (0.5, 4.8, -0.6), 53: (0.6, 3.6, -0.6),
    54: (0.4, 0.9, -0.4), 64: (0.3, 0.7, -0.4), 33: (0, 1.2, 0.2), 35: (1.6, 2.6, 0.4), 34: (0.7, 1.6, 0.2),
    "fold": (1.5, 4.0, 0.8), "cheek": (0, 1.5, 0.8), 57: (0, 0, 0), 66: (0, 0, 0), 65: (0, 0, 0), 56: (0, 0, 0),
    55: (0, 0.2, 0),
}  # fmt: skip
_MOUTH_FROWN: Pull = {  # depressor anguli oris and mentalis, AU 15 and 17
    54: (1.2, -7.0, -1.6), 64: (1.0, -6.2, -1.5), 53: (0.8, -2.4, -0.8), 63: (0.4, -1.0, -0.3), 52: (0, 0.0, 0),
    51: (0, 0.6, 0.2), 62: (0, 0.9, 0.3), 55: (0.8, -3.6, -1.0), 65: (0.4, -0.8, -0.3), 56: (0.2, 0.2, 0.4),
    57: (0, 1.4, 1.2), 66: (0, 0.9, 0.5), 8: (0, 2.2, 0.6), "chin": (0, 2.6, 1.2), 10: (0, -0.4, 0),
    "fold": (0.3, -2.0, -0.4),
}  # fmt: skip
_CHEEK_RAISE: Pull = {  # orbicularis oculi, AU 6 and 7
    46: (-0.2, 2.4, 0.2), 47: (-0.2, 2.3, 0.2), 45: (-1.0, 0.4, -0.2), 42: (0, 0.2, 0), 43: (0, -0.9, 0),
    44: (0, -1.2, 0), "cheek": (0.3, 5.0, 2.6), "crow": (-2.0, 1.0, 0.3), 25: (0, -1.2, 0), 26: (0, -2.0, 0),
    54: (0.4, 0.8, 0), "fold": (0.8, 2.2, 0.4),
}  # fmt: skip
# Lengths over which the skin follows a pull, metres.
_FACE, _UPPER_FACE = 0.014, 0.016


def expression_modes(template: Template, eyes: tuple[Eyeball, Eyeball]) -> Array:
    """The modes named `NAMES`.

    Parameters
    ----------
    template : Template
    eyes : (Eyeball, Eyeball)
        The subject's left (+x) and right.

    Returns
    -------
    (V, 3, 10) float64
        Metres per unit of each coefficient. 0 is the neutral face; 1 is one standard deviation of what faces do: from
        2.5 on an expression is extreme, an eye is closed at 2. Orthogonal to each other over the vertices, each vertex
        counting the same.
    """
    plate = _Plate(template)
    sides = [_eye_close(template, eyes[0])]
    sides.append(_mirrored(sides[0], template.mirror))
    fields = [
        _jaw_open(template, plate),
        _pulled(template, plate, _SMILE, _FACE),
        _pulled(template, plate, _PUCKER, _FACE),
        *sides,
        _pulled(template, plate, _BROW_UP, _UPPER_FACE),
        _pulled(template, plate, _BROW_DOWN, _UPPER_FACE),
        _pulled(template, plate, _UPPER_LIP_RAISE, _FACE),
        _pulled(template, plate, _MOUTH_FROWN, _FACE),
        _pulled(template, plate, _CHEEK_RAISE, _FACE),
    ]
    for i, name in enumerate(NAMES):
        if not name.startswith("eye_close"):
            symmetric = (fields[i] + _mirrored(fields[i], template.mirror)) / 2
            fields[i] = slide_lids(symmetric[:, :, None], eyes, template.vertices)[:, :, 0]
    return nearest_orthogonal(np.stack(fields, axis=2))


def nearest_orthogonal(modes: Array) -> Array:
    """The orthogonal modes nearest to those given, (V, 3, n).

    Loewdin's symmetric orthogonalisation treats all alike, and so do we; but where his modes are of unit length, ours
    keep their lengths, and the sum of all squared changes in metres is least. So it is not the opening of the jaw that
    is bent by what it shares with a small movement of the lips, but the small movement by a little of the jaw's.
    """
    flat = modes.reshape(-1, modes.shape[2])
    length = np.sqrt((flat**2).sum(axis=0))
    for _ in range(60):
        scaled = flat * length
        values, vectors = np.linalg.eigh(scaled.T @ scaled)
        unit = scaled @ (vectors / np.sqrt(values)) @ vectors.T  # the polar factor
        length = (unit * flat).sum(axis=0)
    return np.asarray((unit * length).reshape(modes.shape))


def _mirrored(field: Array, mirror: NDArray[np.int32]) -> Array:
    return np.asarray(field[mirror] * (-1, 1, 1))


# --- the skin -------------------------------------------------------------------------------------------------------


class _Plate:
    """The template's skin as a thin plate on an elastic bed; the inside of mouth and nose hangs on it.

    Attributes
    ----------
    outer : (n,) int64
        Vertices of the skin, with the lips and the margins of the lids.
    """

    def __init__(self, template: Template) -> None:
        inside = np.isin(template.regions, (INNER_MOUTH, EYEBALL, NOSTRIL))
        self._count = len(template.vertices)
        self.outer = np.flatnonzero(~inside)
        self._area, self._bending = _bending(template, self.outer)
        self._all = np.flatnonzero(template.regions != EYEBALL)
        _, self._all_bending = _bending(template, self._all)
        self._known = np.isin(self._all, self.outer)

    def spread(self, where: NDArray[np.int64], values: Array, bed: float | None) -> Array:
        """Spread values at some vertices over all.

        Parameters
        ----------
        where : (n,) int64
        values : (n, d) float64
        bed : float, optional
            Length over which a value dies away, metres; without it there is no bed.

        Returns
        -------
        (V, d) float64
            0 on the eyeballs.
        """
        import scipy.sparse as sparse
        from scipy.sparse.linalg import splu

        rows = np.searchsorted(self.outer, where)
        stiffness = self._bending.copy()
        if bed is not None:
            stiffness = stiffness + sparse.diags(self._area / (1e3 * bed) ** 4)
        held = np.zeros(len(self.outer))
        held[rows] = 1e3
        right = np.zeros((len(self.outer), values.shape[1]))
        right[rows] = 1e3 * values
        out = np.zeros((self._count, values.shape[1]))
        out[self.outer] = splu((stiffness + sparse.diags(held)).tocsc()).solve(right)
        # Where the mouth and the nostrils are hung in, the skin is given.
        free = ~self._known
        given = out[self._all[self._known]]
        matrix = self._all_bending
        out[self._all[free]] = splu(matrix[free][:, free].tocsc()).solve(-(matrix[free][:, self._known] @ given))
        return out


def _bending(template: Template, kept: NDArray[np.int64]) -> tuple[Array, Any]:
    """Areas of vertices (mm^2) and the matrix of the plate's bending energy, of the mesh of some vertices."""
    import scipy.sparse as sparse

    number = np.full(len(template.vertices), -1)
    number[kept] = np.arange(len(kept))
    triangles = number[template.triangles]
    triangles = triangles[(triangles >= 0).all(axis=1)]
    points = template.vertices[kept] * 1e3
    laplacian = sparse.csr_matrix((len(kept), len(kept)))
    area = np.zeros(len(kept))
    for k in range(3):
        i, j, o = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        a, b = points[i] - points[o], points[j] - points[o]
        twice = np.linalg.norm(np.cross(a, b), axis=1)
        # Slivers would get weights without bound.
        weight = np.clip(0.5 * (a * b).sum(axis=1) / np.maximum(twice, 1e-9), 0.02, 5.0)
        shape = (len(kept), len(kept))
        laplacian = laplacian + sparse.coo_matrix((weight, (i, j)), shape) + sparse.coo_matrix((weight, (j, i)), shape)
        area += np.bincount(o, twice / 6, len(kept))
    laplacian = sparse.diags(np.asarray(laplacian.sum(axis=1)).ravel()) - laplacian
    area = np.maximum(area, 0.05)
    return area, (laplacian.T @ sparse.diags(1 / area) @ laplacian).tocsr()


def _pulled(template: Template, plate: _Plate, pull: Pull, bed: float) -> Array:
    """What a muscle does at one standard deviation."""
    where, values = [], []
    for place, displacement in pull.items():
        if isinstance(place, str):
            left = _place(template, place)
            pair = [left] if abs(template.vertices[left, 0]) < 1e-6 else [left, int(template.mirror[left])]
        else:
            numbers = [place] if place in _MIDDLE else [place, int(LANDMARK_MIRROR[place])]
            pair = [int(template.landmarks[number]) for number in numbers]
        where += pair
        values += [displacement, (-displacement[0], *displacement[1:])][: len(pair)]
    return plate.spread(np.array(where), np.array(values) * 1e-3 / _STRONG, bed)


def _place(template: Template, name: str) -> int:
    """A vertex of the left of the skin that has no landmark, by its neighbours that have."""
    at = template.vertices[template.landmarks]
    places = {
        "cheek": 0.62 * at[46] + 0.38 * at[54] + (0.004, 0, 0),  # the apex of the cheek
        "fold": 0.45 * at[35] + 0.55 * at[54] + (0.007, 0, 0),  # the nasolabial fold
        "crow": at[45] + (0.011, -0.002, -0.008),  # outside the outer corner of the eye
        "chin": 0.45 * at[57] + 0.55 * at[8],
        "forehead": at[24] + (0, 0.022, 0),
        "glabella": (at[21] + at[22]) / 2 - (0, 0.003, 0),
    }
    return int(((template.vertices - places[name]) ** 2).sum(axis=1).argmin())


# --- the jaw --------------------------------------------------------------------------------------------------------


def _jaw_open(template: Template, plate: _Plate) -> Array:
    """The lower face turned about the condyles, at one standard deviation (AU 26 and 27)."""
    at = template.vertices[template.landmarks]
    # The condyle lies before and a little below the tragus; landmark 16 is the skin just before it.
    condyle = at[16] + (0, 0.002, 0.006)
    away = template.vertices - condyle
    from_front = np.arctan2(away[:, 1], away[:, 2])  # radians, up
    corner = np.arctan2(at[54, 1] - condyle[1], at[54, 2] - condyle[2])
    still = np.flatnonzero((from_front > corner + np.radians(15)) | (from_front < np.radians(-150)))
    still = still[np.isin(still, plate.outer)]
    numbers: dict[float, tuple[int, ...]] = {
        1.0: (*range(4, 13), *range(55, 60), *range(65, 68)),
        0.75: (3, 13),
        0.4: (2, 14),
        0.35: (48, 54, 60, 64),
        0.12: (1, 15),
        0.0: (0, 16, 31, 35, *range(49, 54), *range(61, 64)),
    }
    where = np.concatenate([still, *(template.landmarks[list(group)] for group in numbers.values())])
    values = np.concatenate([np.zeros(len(still)), *(np.full(len(group), share) for share, group in numbers.items())])
    where, first = np.unique(where, return_index=True)
    share = np.clip(plate.spread(where, values[first, None], None), 0, 1)
    c, s = np.cos(_JAW_ANGLE), np.sin(_JAW_ANGLE)
    turned = away.copy()
    turned[:, 1], turned[:, 2] = c * away[:, 1] - s * away[:, 2], s * away[:, 1] + c * away[:, 2]
    corners: Pull = {54: (-3.0, 0, 2.0), 64: (-3.0, 0, 2.0), 57: (0, 0, 0), 51: (0, 0, 0)}
    inwards = _pulled(template, plate, corners, _FACE) * _STRONG
    return np.asarray((share * (turned - away + _JAW_SLIDE) + inwards) / _JAW_WIDE)


# --- the lids -------------------------------------------------------------------------------------------------------


def _eye_close(template: Template, eye: Eyeball) -> Array:
    """The left eye's lids turned about the eyeball until they meet, at one standard deviation (AU 43, 45).

    The upper lid does most of the way. Along a straight line a lid would cut into the eyeball half way, so it ends as
    far outside as that needs.
    """
    at = template.vertices[template.landmarks]
    inner, outer = at[42], at[45]
    across = (outer - inner) / np.linalg.norm(outer - inner)
    forward = (inner + outer) / 2 - eye.centre
    forward -= (forward @ across) * across
    forward /= np.linalg.norm(forward)
    up = np.cross(forward, across)
    up *= np.sign(up[1])
    away = template.vertices - eye.centre
    side = away @ across
    angle = np.arctan2(away @ up, away @ forward)

    # The margins: the edge between the lids and their thickness, as angles over the way across.
    edge = _edge(template, LID_RIM, SKIN)
    edge = edge[np.linalg.norm(away[edge], axis=1) < 2 * eye.radius]
    corner_side = np.array([(inner - eye.centre) @ across, (outer - eye.centre) @ across])
    corner_angle = angle[template.landmarks[[42, 45]]]
    on_upper = angle[edge] > np.interp(side[edge], corner_side, corner_angle)

    def margin(vertices: NDArray[np.int64]) -> Array:
        x = np.concatenate([corner_side[:1], side[vertices], corner_side[1:]])
        y = np.concatenate([corner_angle[:1], angle[vertices], corner_angle[1:]])
        order = np.argsort(x, kind="stable")
        return np.asarray(np.interp(side, x[order], y[order]))

    upper, lower = margin(edge[on_upper]), margin(edge[~on_upper])
    meeting = lower + 0.12 * (upper - lower)
    reach = np.radians(40.0)
    above = angle > (upper + lower) / 2
    fall = 1 - smooth_step(np.where(above, angle - upper, lower - angle), 0.0, reach)
    near = 1 - smooth_step(np.linalg.norm(away, axis=1) - eye.radius, 0.004, 0.012)
    turn = np.where(above, meeting - upper, meeting - lower) * fall * near
    turn[template.regions == EYEBALL] = 0
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    y, z = (away @ up)[:, None], (away @ forward)[:, None]
    turned = side[:, None] * across + (c * y + s * z) * up + (c * z - s * y) * forward
    # The skin above comes down onto the eyeball as it is drawn over it.
    distance = np.linalg.norm(away, axis=1)
    lid = np.linalg.norm(away[edge], axis=1).mean()
    drawn = np.clip(np.abs(turn) / np.maximum(upper - lower, np.radians(1.0)), 0, 1)
    drawn *= smooth_step(np.where(above, angle - upper, lower - angle), 0.0, np.radians(12.0))
    wanted = distance - 0.85 * drawn * np.maximum(distance - lid, 0)
    wanted *= 1 + 1.4 * (1 - np.cos(turn / 2))
    return np.asarray((turned * (wanted / distance)[:, None] - away) / _CLOSED)


def _edge(template: Template, region: int, other: int) -> NDArray[np.int64]:
    """Vertices of a region that share a triangle with another region."""
    regions = template.regions[template.triangles]
    mixed = template.triangles[(regions == region).any(axis=1) & (regions == other).any(axis=1)]
    return np.unique(mixed[template.regions[mixed] == region]).astype(np.int64)
