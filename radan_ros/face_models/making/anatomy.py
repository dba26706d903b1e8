"""What moves together in a face: each eyeball with the lids that slide on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models.making.template import EYEBALL, INNER_MOUTH, NOSTRIL, Template

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Eyeball:
    """An eye of the template.

    Attributes
    ----------
    vertices : (n,) int64
        Of the eyeball.
    centre : (3,) float64
        Of the sphere through them, metres.
    radius : float
        Metres.
    hold : (V,) float64
        How far a vertex of the skin is bound to slide on the eyeball: 1 on it, 0 from some millimetres away from it,
        and 0 at all that is no skin.
    """

    vertices: NDArray[np.int64]
    centre: Array
    radius: float
    hold: Array


def find_eyeballs(template: Template) -> tuple[Eyeball, Eyeball]:
    """The subject's left (+x) and right eyeball with their lids."""
    left = np.flatnonzero((template.regions == EYEBALL) & (template.vertices[:, 0] > 0))
    skin = ~np.isin(template.regions, (EYEBALL, INNER_MOUTH, NOSTRIL))
    points = template.vertices[left]
    system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    radius = float(np.sqrt(solution[3] + centre @ centre))
    gap = np.linalg.norm(template.vertices - centre, axis=1) - radius
    hold = np.where(skin, 1 - smooth_step(gap, 0.002, 0.011), 0.0)
    mirror = template.mirror
    other = Eyeball(mirror[left].astype(np.int64), centre * (-1, 1, 1), radius, hold[mirror])
    return Eyeball(left, centre, radius, hold), other


def keep_lids_on(fields: Array, eyes: tuple[Eyeball, ...], vertices: Array) -> Array:
    """Move each eyeball as one with its lids, and let the lids slide on it only.

    An eyeball moves by the similarity (shift, turn and size) that is nearest to what its lids do; `slide_lids` takes
    care of the rest.

    Parameters
    ----------
    fields : (V, 3, k) float64
        Displacements.
    eyes : tuple of Eyeball
    vertices : (V, 3) float64

    Returns
    -------
    (V, 3, k) float64
        Linear in `fields`.
    """
    out = fields.copy()
    for eye in eyes:
        lids = np.flatnonzero(eye.hold)
        both = np.concatenate([lids, eye.vertices])
        moves = similarity_moves(vertices[both] - eye.centre)
        strength = np.sqrt(np.repeat(eye.hold[lids], 3))[:, None]
        of_lids = moves[: len(lids)].reshape(-1, 7)
        wanted = fields[lids].reshape(3 * len(lids), -1)
        amount = np.linalg.lstsq(strength * of_lids, strength * wanted, rcond=None)[0]
        rigid = np.einsum("vam,mk->vak", moves, amount)
        out[both] -= rigid
        out = slide_lids(out, (eye,), vertices)
        out[lids] += rigid[: len(lids)]
        out[eye.vertices] = rigid[len(lids) :]
    return out


def slide_lids(fields: Array, eyes: tuple[Eyeball, ...], vertices: Array) -> Array:
    """Take out what moves the lids towards or away from eyeballs that stay; like `keep_lids_on`."""
    out = fields.copy()
    for eye in eyes:
        lids = np.flatnonzero(eye.hold)
        outwards = vertices[lids] - eye.centre
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        radial = np.einsum("va,vak->vk", outwards, fields[lids])
        out[lids] -= eye.hold[lids, None, None] * outwards[:, :, None] * radial[:, None, :]
    return out


def similarity_moves(points: Array) -> Array:
    """Displacements (n, 3, 7) of points (n, 3) by small turns about x, y, z, growth, and shifts along x, y, z."""
    x, y, z = points.T
    o, i = np.zeros_like(x), np.ones_like(x)
    moves = np.array([
        [o, -z, y], [z, o, -x], [-y, x, o], [x, y, z], [i, o, o], [o, i, o], [o, o, i]
    ])  # fmt: skip
    return np.asarray(moves.transpose(2, 1, 0))


def smooth_step(value: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth (with no curvature at the ends) between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t**3 * (10 - 15 * t + 6 * t**2))
