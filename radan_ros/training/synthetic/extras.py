"""What is about a head: mouth and teeth, torso and clothes, glasses, hands, microphones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Floats, Part, Triangles, ellipsoid, grid_triangles, part, smooth_step, tube
from .hair import cloth_colour
from .head import Head
from .paint import Person


def mouth(rng: np.random.Generator, head: Head, neutral: Floats, landmarks: Floats) -> list[Part]:
    """Teeth, tongue and the dark behind the lips, seen only where the lips leave a gap.

    Parameters
    ----------
    neutral, landmarks : (68, 3) float32
        Of the face without and with its expression, metres.
    """
    k = head.size
    if (landmarks[[61, 62, 63], 1] - landmarks[[67, 66, 65], 1]).max() < 0.0003 * k:
        return []
    lips = neutral[60:68]
    middle = lips[[2, 6]].mean(axis=0)
    jaw = (landmarks[[57, 8]] - neutral[[57, 8]]).mean(axis=0)
    half = np.ptp(lips[[0, 4], 0]) / 2
    x = np.linspace(-1, 1, 25)
    arch = np.stack([x * half * 1.02, np.zeros_like(x), -0.021 * k * np.abs(x) ** 2.2], 1)
    ivory = np.array([0.62, 0.56, 0.46]) * rng.uniform(0.55, 1.15) * np.exp([0, 0, rng.normal(-0.1, 0.15)])
    gum = np.array([0.28, 0.09, 0.09]) * np.exp(rng.normal(0, 0.3))
    gaps = np.abs(np.sin(x * half / (0.0078 * k) * np.pi / 1.0)) ** 0.35
    parts = []
    for sign, shift, high in ((1, np.zeros(3), 0.0095), (-1, jaw, 0.0085)):
        depth = -0.006 * k - (0.0 if sign > 0 else 0.003 * k)
        edge = -sign * rng.uniform(-0.0005, 0.004) * k
        rows = np.array([edge, edge + sign * 0.003 * k, edge + sign * high * k, edge + sign * (high + 0.003) * k])
        points = arch[None] + middle + shift + np.array([0, 0, depth])
        points = np.repeat(points, 4, axis=0)
        points[..., 1] += rows[:, None]
        points[..., 2] -= np.array([0.001, 0, 0.0005, 0.001])[:, None] * k
        tone = np.stack([ivory * 0.9, ivory, ivory * 0.9, gum])[:, None] * (0.45 + 0.55 * gaps)[None, :, None]
        side = (1 - 0.75 * np.abs(x) ** 2)[None, :, None]  # the back teeth lie in the dark
        parts.append(part(points, grid_triangles(4, 25), tone * side * (1 if sign > 0 else 0.75), 0.12))
    red = np.array([0.22, 0.055, 0.05]) * np.exp(rng.normal(0, 0.25))
    under = middle + jaw * 0.85 + [0, -0.006 * k, -0.028 * k]
    points, triangles = ellipsoid(under, [0.019 * k, 0.006 * k, 0.022 * k], 7, 12)
    parts.append(part(points, triangles, red, 0.1))
    # The hollow: a bowl behind everything.
    points, triangles = ellipsoid(
        middle + jaw * 0.5 + [0, 0, -0.036 * k], [0.027 * k, 0.022 * k + abs(jaw[1]) * 0.6, 0.012 * k], 7, 12
    )
    parts.append(part(points, triangles, red * 0.06, 0.0))
    return parts


# Height, half breadth, half depth and z of sections of the torso, metres, from the base of the neck down.
_TORSO = np.array([
    [0.030, 0.056, 0.057, 0.0], [0.0, 0.066, 0.064, 0.0], [-0.014, 0.088, 0.075, -0.002],
    [-0.028, 0.120, 0.082, -0.004], [-0.048, 0.160, 0.090, -0.004], [-0.080, 0.190, 0.100, 0.0],
    [-0.120, 0.205, 0.110, 0.004], [-0.2, 0.21, 0.12, 0.008], [-0.5, 0.2, 0.12, 0.01],
])  # fmt: skip
_TORSO_ROWS, _TORSO_SIDES = 36, 96


def torso(rng: np.random.Generator, head: Head, person: Person, width: float) -> Part:
    """Shoulders and chest with clothes, in the torso's frame."""
    k = head.size
    height = np.interp(np.linspace(0, 1, _TORSO_ROWS) ** 1.4, [0, 1], [0.03, -0.3])
    section = np.stack([np.interp(height, _TORSO[::-1, 0], _TORSO[::-1, i]) for i in range(1, 4)], 1)
    section[:, :2] *= 1 + (width - 1) * 0.7
    turn = np.linspace(0, 2 * np.pi, _TORSO_SIDES, endpoint=False)
    points = np.stack(
        [
            section[:, :1] * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.8,
            np.broadcast_to(height[:, None], (_TORSO_ROWS, _TORSO_SIDES)),
            section[:, 1:2] * np.sin(turn) + section[:, 2:],
        ],
        axis=-1,
    )
    points = points + rng.normal(0, 0.0008, points.shape)
    x, y, front = points[..., 0], points[..., 1], points[..., 2] > 0
    colour = np.broadcast_to(cloth_colour(rng), points.shape).copy()
    kind = rng.random()
    if kind < 0.3:  # pattern
        other, wave = cloth_colour(rng), rng.uniform(0.008, 0.05)
        along = [x, y, np.arctan2(points[..., 2], x) * 0.15][rng.integers(3)]
        mask = np.sin(along / wave * 2 * np.pi) > rng.uniform(-0.5, 0.8)
        if rng.random() < 0.3:
            mask ^= np.sin(y / wave * 2 * np.pi) > 0
        colour[mask] = other
    neckline = rng.uniform(-0.06, 0.028)
    across = np.abs(x)
    if rng.random() < 0.4:  # jacket over a shirt, at times with a tie
        shirt = np.full(3, rng.uniform(0.5, 0.8)) if rng.random() < 0.6 else cloth_colour(rng)
        opening = 0.06 * (1 + y / rng.uniform(0.10, 0.2))
        _blend(colour, shirt, smooth_step(across - opening, 0.008, -0.008) * front)
        if rng.random() < 0.6:
            half = np.minimum(0.014 - 0.08 * np.minimum(y + 0.02, 0), 0.035)
            tie = smooth_step(across - half, 0.007, -0.005) * (front & (y < 0.02))
            _blend(colour, cloth_colour(rng), tie)
        neckline = 0.03
    # An open collar shows skin, deeper in front.
    deep = 0.06 * rng.random() * smooth_step(points[..., 2], 0, 0.05) * smooth_step(across, 0.07, 0.0)
    _blend(colour, np.exp(person.log_skin), smooth_step(y - neckline + deep, -0.008, 0.008))
    colour *= np.exp(rng.normal(0, 0.06, x.shape))[..., None]
    return part(k * points, grid_triangles(_TORSO_ROWS, _TORSO_SIDES, closed=True), colour, 0.02)


def _blend(colours: NDArray[Any], colour: NDArray[Any], weight: NDArray[Any]) -> None:
    """Lay a colour over colours (..., 3) with weights (...)."""
    colours += (colour - colours) * weight[..., None]


def collar(rng: np.random.Generator, head: Head, colour: NDArray[Any]) -> Part:
    """A shirt's collar, a turtleneck or a scarf around the neck, in the torso's frame."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    thick = rng.uniform(0.001, 0.022)
    high = rng.uniform(0.015, 0.06)
    rows = np.linspace(0, 1, 7)[:, None]
    radius = 0.070 + thick * np.sin(np.pi * rows) + 0.006 * (1 - rows)
    points = np.stack(
        [radius * np.cos(turn), -0.02 + high * rows + 0.012 * np.cos(turn) ** 2 - 0.012, radius * np.sin(turn)], -1
    )
    points = points + rng.normal(0, 0.1 * thick, points.shape)
    shade = np.exp(rng.normal(0, 0.1, (7, 40, 1)))
    return part(head.size * points, grid_triangles(7, 40, closed=True), colour * shade, 0.02)


def glasses(rng: np.random.Generator, head: Head, neutral: Floats, chart: Floats) -> tuple[list[Part], Part, float]:
    """Frames, and the lenses with their opacity, in the head's frame."""
    k = head.size
    dark = rng.random() < 0.25
    frame = cloth_colour(rng) if rng.random() < 0.4 else np.array([0.01, 0.01, 0.01]) * rng.uniform(0.4, 4)
    if rng.random() < 0.2:
        frame = np.array([0.4, 0.3, 0.12]) * rng.uniform(0.4, 1.4)  # metal
    thick = np.exp(rng.uniform(np.log(0.0005), np.log(0.0028))) * k
    wide, high = rng.uniform(0.023, 0.031) * k, rng.uniform(0.014, 0.026) * k
    if dark:
        high, wide = high * 1.15, wide * 1.08
    power = rng.uniform(2.0, 4.5)
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    shape = np.stack([np.cos(turn), np.sin(turn)], 1)
    shape = np.sign(shape) * np.abs(shape) ** (2 / power)
    shape[:, 1] *= 1 + 0.15 * rng.normal() * shape[:, 0]
    bridge = neutral[27]
    slide = -rng.uniform(-0.004, 0.012) * k
    parts: list[Part] = []
    lens_points: list[NDArray[Any]] = []
    lens_triangles: list[Triangles] = []
    curve = rng.uniform(1.0, 7.0)
    z0 = bridge[2] + rng.uniform(0.002, 0.007) * k
    inner = []
    for eye, side in ((slice(36, 42), -1), (slice(42, 48), 1)):
        centre = neutral[eye].mean(axis=0)
        x = centre[0] + side * 0.001 + shape[:, 0] * wide * (1 if side > 0 else -1)
        y = centre[1] + slide - 0.002 * k + shape[:, 1] * high
        z = z0 - curve * (x - bridge[0]) ** 2 - 0.08 * (centre[1] - y)
        rim = np.stack([x, y, z], 1)
        if rng.random() < 0.9 or dark:
            parts.append(part(*tube(rim, thick, 6, closed=True), frame, 0.25))
        inner.append(rim[np.abs(rim[:, 0] - bridge[0]).argmin()] + [0, 0.3 * high, 0])
        outer = rim[np.abs(rim[:, 0] - bridge[0]).argmax()] + [0, 0.4 * high, 0]
        ear_column = int(np.argmin(np.abs(head.azimuth - side * np.radians(93))))
        ear = chart[int(head.rows_at(chart, np.float32(centre[1] + 0.004))[ear_column]), ear_column]
        temple = np.stack([outer, (outer + ear) / 2 + [side * 0.006, 0, 0], ear + [side * 0.004, 0, -0.01]])
        parts.append(part(*tube(temple, thick, 6), frame, 0.25))
        lens_points.append(np.concatenate([rim, rim.mean(axis=0)[None] + [0, 0, 0.0008]]))
        ring = np.arange(28)
        base = len(lens_triangles) * 29
        lens_triangles.append(np.stack([ring, (ring + 1) % 28, np.full(28, 28)], 1, dtype=np.int32) + base)
    arch = np.stack([inner[0], np.mean(inner, axis=0) + [0, 0.002, 0.001], inner[1]])
    parts.append(part(*tube(arch, thick, 6), frame, 0.25))
    tint = np.array([0.01, 0.01, 0.01]) * np.exp(rng.normal(0, 0.8, 3)) if dark else np.array([0.5, 0.55, 0.6])
    opacity = rng.uniform(0.6, 1.0) if dark else rng.choice([0.0, rng.uniform(0.0, 0.25)])
    return parts, part(np.concatenate(lens_points), np.concatenate(lens_triangles), tint, 0.0), float(opacity)


def occluder(rng: np.random.Generator, head: Head, person: Person, landmarks: Floats) -> list[Part]:
    """A hand, a microphone or a cup before the face, in the camera's frame (x right, y down, z away).

    Parameters
    ----------
    landmarks : (68, 3) float32
        Camera frame, metres.
    """
    kind = rng.random()
    parts = []
    if kind < 0.6:
        skin = np.exp(person.log_skin) * np.exp(rng.normal(0, 0.1, 3))
        at = landmarks[rng.integers(0, 17)]
        at = at + (landmarks[30] - at) * rng.uniform(-0.2, 0.25)
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else rng.normal(-np.pi / 2, 0.7)
        along = np.array([np.cos(angle), np.sin(angle), 0])
        across = np.array([-along[1], along[0], 0])
        near = landmarks[:, 2].min() - 0.015
        bend = rng.uniform(-0.02, 0.03)
        for i in range(int(rng.integers(2, 6))):
            length = (0.075 - 0.006 * abs(i - 1.3)) * rng.uniform(0.85, 1.1)
            t = np.linspace(0, 1, 9)[:, None]
            path = at + across * (0.0185 * (i - 1.5)) + along * (t * length) + [0, 0, near - at[2]]
            path = path + t**2 * (across * rng.normal(0, 0.006) + [0, 0, bend])
            radius = 0.0095 * np.sqrt(np.maximum(1 - np.linspace(-0.2, 1, 9) ** 8, 0.02))
            shade = np.exp(-0.25 * np.exp(-(((t - [[0.35]]) / 0.05) ** 2)))
            points, triangles = tube(path, radius, 10)
            parts.append(part(points, triangles, np.repeat(skin * shade, 10, axis=0), 0.05))
        palm, triangles = ellipsoid([0, 0, 0], [0.046, 0.05, 0.016], 9, 16)
        axes = np.stack([across, along, [0, 0, 1]])
        parts.append(part(palm @ axes + at - along * 0.035 + [0, 0, near - at[2] + 0.004], triangles, skin, 0.05))
        path = at - along * np.array([[0.06], [0.25]]) + [0, 0, near - at[2] + 0.01]
        cloth = cloth_colour(rng) if rng.random() < 0.5 else skin
        parts.append(part(*tube(path, 0.03, 12), cloth, 0.03))
        return parts
    start = landmarks[[57, 8]].mean(axis=0) + rng.normal(0, 0.018, 3) * [1, 1, 0]
    start += [0, 0.012, -0.03 - rng.random() * 0.03]
    angle = rng.normal(np.pi / 2, 0.5)
    along = np.array([np.cos(angle), np.sin(angle), rng.normal(0, 0.3)])
    grey = rng.uniform(0.01, 0.3)
    if kind < 0.85:
        points, triangles = ellipsoid([0, 0, 0], [0.022, 0.025, 0.022])
        parts.append(part(points * rng.uniform(0.8, 1.3) + start, triangles, grey * np.exp(rng.normal(0, 0.2, 3)), 0.1))
        handle = np.stack([start, start + 0.22 * along])
        parts.append(part(*tube(handle, [0.012, 0.009], 12), cloth_colour(rng) * 0.5, 0.2))
    else:
        path = np.stack([start + along * d for d in (-0.03, 0.05)])
        parts.append(part(*tube(path, rng.uniform(0.025, 0.04), 16), cloth_colour(rng), 0.1))
    return parts
