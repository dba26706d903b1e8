"""Light on the scene: a few soft sources, a sun that throws shadows, what surfaces keep from each other.

Everything is in the camera's frame: x right, y down, z away from the viewer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radan_ros.compiled import compiled
from radan_ros.rendering import Renderer

from .geometry import Floats, Triangles

SHADOW_SIDE = 132  # pixels of a shadow picture
_SHADOW_REACH = 0.20  # metres from its middle to its edge


class Lights(NamedTuple):
    """Directions towards the sources, and linear RGB irradiance of a surface that faces them.

    Attributes
    ----------
    soft_directions, soft_colours : (k, 3) float32
        Sources as wide as half the sky: (1 + cos)^2 / 4.
    sun_directions, sun_colours : (2, 3) float32
        Small ones; the first throws shadows.
    casts : bool
        Whether the shadows of the first are hard enough to matter.
    """

    soft_directions: Floats
    soft_colours: Floats
    sun_directions: Floats
    sun_colours: Floats
    casts: bool


def _tint(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Colour of a source: warm to cold mostly, green to magenta a little."""
    warm, green = rng.normal(0, strength), rng.normal(0, 0.3 * strength)
    return np.exp(np.array([warm, green, -warm]))


def _direction(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Unit vector; azimuth 0 from the camera, to the right; elevation up. Radians."""
    return np.array([np.cos(elevation) * np.sin(azimuth), -np.sin(elevation), -np.cos(elevation) * np.cos(azimuth)])


def random_lights(rng: np.random.Generator) -> Lights:
    """Light as photographs have it: studio, window, sun, lamps overhead, coloured at times."""
    common = _tint(rng, 0.07)
    directions = [[0.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]
    colours = [
        _tint(rng, 0.08) * rng.uniform(0.3, 1.0),
        _tint(rng, 0.12) * rng.uniform(0.05, 0.5),
        _tint(rng, 0.06) * rng.uniform(0.0, 0.8),
    ]
    for _ in range(2):
        directions.append(_direction(rng.uniform(-2.2, 2.2), rng.uniform(-0.5, 1.2)).tolist())
        colours.append(_tint(rng, 0.25 if rng.random() < 0.12 else 0.06) * rng.exponential(0.4))
    suns = [
        _direction(rng.normal(0, 0.9), rng.uniform(-0.15, 1.25)),
        _direction(rng.choice([-1, 1]) * rng.uniform(1.2, 2.7), rng.uniform(-0.2, 1.0)),
    ]
    # From an overcast sky, without any sun, to one that leaves the rest of the face in the dark.
    key = 0.0 if rng.random() < 0.2 else rng.exponential(1.3)
    rim = rng.exponential(0.6) if rng.random() < 0.3 else 0.0
    sun_colours = [_tint(rng, 0.08) * key, _tint(rng, 0.15) * rim]
    return Lights(
        np.array(directions, np.float32),
        np.array(np.array(colours) * common, np.float32),
        np.array(suns, np.float32),
        np.array(np.array(sun_colours) * common, np.float32),
        bool(key > 0.3 and rng.random() < 0.65),
    )


def lit(
    points: Floats, triangles: Triangles, direction: Floats, centre: Floats, *, renderer: Renderer | None = None
) -> Floats:
    """How much of a far source each point (n, 3) sees past the others: (n,) 0 to 1.

    The depth picture of the scene from the source says which points are behind others.

    Parameters
    ----------
    points : (n, 3) float32
    triangles : (t, 3)
    direction : (3,) float32
        Towards the source, unit length.
    centre : (3,) float32
        What is more than 20 cm beside the ray through this point is in the light.
    renderer : Renderer, optional
        Of these triangles, to be used again.
    """
    if renderer is None:
        renderer = Renderer(triangles, np.zeros((len(points), 3), np.uint8))
    away = -np.asarray(direction, np.float64)
    across = np.cross(away, np.eye(3)[np.abs(away).argmin()])
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(away, across), away]).astype(np.float32)
    scale = np.float32(SHADOW_SIDE / (2 * _SHADOW_REACH))
    seen = (points - centre) @ axes.T
    seen[:, :2] = seen[:, :2] * scale + np.float32(SHADOW_SIDE / 2)
    depth = renderer.render([seen], (SHADOW_SIDE, SHADOW_SIDE), colour=False).depth
    light = np.empty(len(points), np.float32)
    _compare(seen, depth, np.float32(0.005), light)
    return light


@compiled
def _compare(seen: Any, depth: Any, bias: Any, light: Any) -> None:
    """Share of the four pixels around each point at which nothing is nearer to the source by more than the bias."""
    side = depth.shape[0]
    for i in range(seen.shape[0]):
        x, y = int(np.floor(seen[i, 0])), int(np.floor(seen[i, 1]))
        if x < 0 or y < 0 or x >= side - 1 or y >= side - 1:
            light[i] = 1
            continue
        fx, fy = seen[i, 0] - np.float32(x), seen[i, 1] - np.float32(y)
        limit = seen[i, 2] - bias
        s00 = np.float32(not depth[y, x] < limit)
        s01 = np.float32(not depth[y, x + 1] < limit)
        s10 = np.float32(not depth[y + 1, x] < limit)
        s11 = np.float32(not depth[y + 1, x + 1] < limit)
        light[i] = (s00 * (1 - fx) + s01 * fx) * (1 - fy) + (s10 * (1 - fx) + s11 * fx) * fy


def ambient_occlusion(points: Floats, normals: Floats, triangles: Triangles, centre: Floats) -> Floats:
    """Share of a white sky's light that reaches each point (n, 3) of a fixed mesh past the rest of it: (n,) 0 to 1."""
    renderer = Renderer(triangles, np.zeros((len(points), 3), np.uint8))
    count = 48
    # Fibonacci's spiral: directions spread evenly over the sphere.
    k = np.arange(count) + 0.5
    height, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    across = np.sqrt(1 - height**2)
    directions = np.stack([across * np.cos(angle), height, across * np.sin(angle)], 1).astype(np.float32)
    total = np.full(len(points), 1e-6, np.float32)
    seen = np.zeros(len(points), np.float32)
    for direction in directions:
        cosine = np.maximum(normals @ direction, 0)
        total += cosine
        seen += cosine * lit(points, triangles, direction, centre, renderer=renderer)
    return np.asarray(seen / total, np.float32)


@compiled
def shade(
    normals: Any,
    albedo: Any,
    gloss: Any,
    sky: Any,
    sun: Any,
    soft_directions: Any,
    soft_colours: Any,
    sun_directions: Any,
    sun_colours: Any,
    power: Any,
    hidden: Any,
    colours: Any,
) -> None:
    """Fill `colours` (n, 3) with the linear RGB light that points send to the viewer.

    Parameters
    ----------
    normals, albedo : (n, 3) float32
        Surfaces are taken to face the viewer: normals that do not are turned over.
    gloss : (n,) float32
        Strength of highlights.
    sky, sun : (n,) float32
        Shares of the soft light and of the first sun that reach the points.
    soft_directions, soft_colours, sun_directions, sun_colours : see `Lights`
    power : float32
        Sharpness of highlights (Blinn's exponent).
    hidden : (n,) bool
        Left out: black.
    """
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    # Light enters skin beside the point where it leaves: the terminator is soft, and reddish.
    wrap = (np.float32(0.22), np.float32(0.12), np.float32(0.08))
    light = np.zeros(3, np.float32)
    shine = np.zeros(3, np.float32)
    for i in range(normals.shape[0]):
        if hidden[i]:
            colours[i, :] = zero
            continue
        x, y, z = normals[i, 0], normals[i, 1], normals[i, 2]
        if z > 0:
            x, y, z = -x, -y, -z
        light[:] = zero
        shine[:] = zero
        for k in range(soft_directions.shape[0]):
            d = half + half * (x * soft_directions[k, 0] + y * soft_directions[k, 1] + z * soft_directions[k, 2])
            d *= d * sky[i]
            for c in range(3):
                light[c] += d * soft_colours[k, c]
        # Fresnel: at grazing angles surfaces mirror the surroundings.
        grazing = (one + z) * (one + z)
        grazing *= grazing * (one + z) * sky[i] * np.float32(0.4)
        for c in range(3):
            shine[c] = grazing * light[c]
        for k in range(2):
            reach = sun[i] if k == 0 else np.float32(0.4) + np.float32(0.6) * sky[i]
            dx, dy, dz = sun_directions[k, 0], sun_directions[k, 1], sun_directions[k, 2]
            d = x * dx + y * dy + z * dz
            if reach <= zero or d < -wrap[0]:
                continue
            hx, hy, hz = dx, dy, dz - one
            norm = np.sqrt(hx * hx + hy * hy + hz * hz)
            h = max((x * hx + y * hy + z * hz) / max(norm, np.float32(1e-3)), zero)
            mirror = h**power * power * np.float32(0.02) if d > zero else zero
            for c in range(3):
                w = wrap[c]
                light[c] += reach * sun_colours[k, c] * max((d + w) / (one + w), zero)
                shine[c] += reach * sun_colours[k, c] * mirror
        for c in range(3):
            colours[i, c] = albedo[i, c] * light[c] + gloss[i] * shine[c]
