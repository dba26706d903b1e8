"""Hair, and what is worn like hair (caps, hoods, scarves): shells laid on the chart of a head."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .geometry import Floats, Part, grid_triangles, part, smooth_step, tube
from .head import COLUMNS, HANGING_ROWS, ROWS, Head
from .paint import Person

STRAND_ROWS = 20  # of the shell, from its upper to its lower end

# Height of the natural hairline over the sellion, metres, by degrees from the front: forehead, temple, sideburn, behind
# the ear, nape.
_HAIRLINE = np.array([
    [0, 0.062], [25, 0.062], [42, 0.068], [55, 0.050], [64, 0.018], [70, -0.002], [78, -0.020], [84, -0.016],
    [90, 0.008], [102, 0.004], [112, -0.03], [128, -0.072], [150, -0.092], [180, -0.095],
])  # fmt: skip


class Headwear(NamedTuple):
    """What is on a head.

    Attributes
    ----------
    parts : list of Part
        In the head's frame.
    hairline : (COLUMNS,) float32
        Row of the chart at which hair begins to grow.
    scalp : float
        How much of the skin above it is covered, 0 bald to 1.
    covers_ears, covers_neck : bool
        Whether they are out of sight.
    cloth : (3,) array, optional
        Colour of a scarf or hood, if there is one.
    """

    parts: list[Part]
    hairline: Floats
    scalp: float
    covers_ears: bool
    covers_neck: bool
    cloth: NDArray[Any] | None = None


def _wander(rng: np.random.Generator, strength: float, knots: int) -> NDArray[np.float64]:
    """Smooth noise around the head, (COLUMNS,)."""
    values = rng.normal(0, strength, knots)
    at = np.linspace(0, knots, COLUMNS, endpoint=False)
    low = np.floor(at).astype(int)
    t = at - low
    t = t * t * (3 - 2 * t)
    return np.asarray(values[low % knots] * (1 - t) + values[(low + 1) % knots] * t)


def cloth_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Linear RGB: dark, white, or any colour."""
    kind = rng.random()
    if kind < 0.35:
        return np.asarray(rng.uniform(0.005, 0.06) * np.exp(rng.normal(0, 0.25, 3)))
    if kind < 0.55:
        return np.asarray(rng.uniform(0.35, 0.85) * np.exp(rng.normal(0, 0.06, 3)))
    grey = rng.uniform(0.01, 0.6)
    return np.asarray(np.minimum(grey * np.exp(rng.normal(0, 0.6, 3)), 0.8))


def random_headwear(rng: np.random.Generator, person: Person, head: Head, chart: Floats) -> Headwear:
    """Hair of a random style, or none, or something worn over it."""
    k = head.size
    degrees = np.abs(np.degrees(head.azimuth))
    sellion = head.landmarks[27, 1]
    hairline = np.interp(degrees, _HAIRLINE[:, 0], _HAIRLINE[:, 1])
    hairline += rng.normal(0, 0.006) * smooth_step(degrees, 60, 30)
    hairline += rng.uniform(0, 0.012) * np.exp(-(((degrees - 42) / 12) ** 2))  # temples
    sideburn = rng.uniform(-0.035, 0.02)
    hairline += sideburn * np.exp(-(((degrees - 77) / 6) ** 2))
    male = person.beard > 0
    if male and rng.random() < 0.2 + 0.3 * person.age:  # receding
        hairline += rng.uniform(0.005, 0.03) * smooth_step(degrees, 62, 45)
    ends = hairline + _wander(rng, 0.0015, 40)
    natural = head.rows_at(chart, (sellion + k * ends).astype(np.float32))

    kind = rng.random()
    if kind < 0.09:
        return _worn(rng, person, head, chart, natural, sellion, degrees)
    draw = rng.random()
    if draw < (0.10 if male else 0.02):  # bald
        return Headwear([], natural, float(rng.choice([0.0, rng.uniform(0, 0.5)])), False, False)
    if male and draw < 0.10 + 0.12 * person.age + 0.05:  # bald on top
        return _crown_of_hair(rng, person, head, chart, natural, degrees, sellion)
    long = rng.random() < (0.12 if male else 0.68)
    shown = hairline.copy()
    top = np.exp(rng.normal(np.log(0.014), 0.65)) if not long else rng.uniform(0.006, 0.030)
    if male and rng.random() < 0.25:  # cropped
        top = rng.uniform(0.0015, 0.005)
    side = top * rng.uniform(0.25, 1.1)
    curly = rng.random() < (0.6 if person.melanin > 0.6 else 0.15)
    if curly and rng.random() < 0.4:
        top = side = rng.uniform(0.02, 0.07)
    # A fringe, straight or swept to a side, or hair combed back.
    fringe = rng.random() < (0.45 if not male else 0.25) and top > 0.004
    if fringe:
        low = rng.uniform(0.015, 0.055) if rng.random() < 0.85 else rng.uniform(-0.005, 0.02)
        reach = rng.uniform(25, 60)
        centre = rng.normal(0, 25) if rng.random() < 0.6 else 0.0
        signed = np.degrees(head.azimuth)
        swept = smooth_step(np.abs(signed - centre), reach + 12, reach - 14)
        shown += (low + (signed / 60) * rng.normal(0, 0.02) - shown) * swept * (shown > low)
        shown += rng.exponential(0.006) * _wander(rng, 1.0, 60) * swept
    if long:
        opening = rng.uniform(50, 80)
        length = rng.uniform(0.02, 0.12) if rng.random() < 0.35 else rng.uniform(0.12, 0.35)
        hanging = smooth_step(degrees, opening - 6, opening + 6)
        tail = -length + _wander(rng, 0.012, 50)
        if rng.random() < 0.2:  # only behind one shoulder, or held back behind it
            tail = np.where(head.azimuth * rng.choice([-1, 1]) > 0.5, tail, shown)
        shown += (np.minimum(tail, shown) - shown) * hanging
        side = max(side, rng.uniform(0.006, 0.022))
    elif rng.random() < 0.3:  # over the ears
        shown -= rng.uniform(0.0, 0.05) * np.exp(-(((degrees - 95) / 18) ** 2))
    strands = rng.exponential(0.0025) + 0.001
    shown += rng.normal(0, strands, COLUMNS)
    end = head.rows_at(chart, (sellion + k * shown).astype(np.float32))
    shell = _shell(
        rng, person.hair, head, chart, np.zeros(COLUMNS, np.float32), end, top * k, side * k,
        curl=rng.uniform(0.3, 1.0) if curly else rng.uniform(0, 0.25), hem=0.004 * k if fringe or long else 0.0005 * k,
    )  # fmt: skip
    at_ears = np.abs(degrees - 97) < 8
    over_ears = bool((shown[at_ears] < -0.035).any() and rng.random() < 0.85)
    tied = [] if male or long or rng.random() < 0.5 else [_ponytail(rng, person, chart)]
    return Headwear([shell, *tied], natural, rng.uniform(0.6, 1.0), over_ears, False)


def _shell(
    rng: np.random.Generator,
    colour: NDArray[Any],
    head: Head,
    chart: Floats,
    start: Floats,
    end: Floats,
    top: float,
    side: float,
    *,
    curl: float,
    hem: float,
    woven: bool = False,
    gloss: float | None = None,
) -> Part:
    """A surface off the head's, between two rows of the chart in each column.

    Parameters
    ----------
    start, end : (COLUMNS,) float32
        Rows.
    top, side : float
        Distance from the skin on top and beside the ears, metres.
    curl : float
        0 straight strands to 1 curls.
    hem : float
        Distance from the skin at the lower end, metres.
    woven : bool
        Cloth, not strands.
    """
    s = np.linspace(0, 1, STRAND_ROWS, dtype=np.float32)[:, None]
    row = np.clip(start + s * np.maximum(end - start, 0), 0, ROWS + HANGING_ROWS - 1.001)
    low = row.astype(np.int32)
    t = (row - low)[..., None]
    column = np.arange(COLUMNS)[None]
    base = chart[low, column] * (1 - t) + chart[low + 1, column] * t
    outward = head.outward[low, column]
    strand = _strands(rng, curl)
    height = smooth_step(row, 4, 0.55 * ROWS)
    thick = top + (side - top) * height
    taper = smooth_step(s, 1.0, 0.78)
    thick = hem + (thick - hem) * taper
    wave = rng.normal(0, 1, (5, 14))
    lumps = _resized(wave, (STRAND_ROWS, COLUMNS))
    scale = np.minimum(thick, 0.02)
    thick = thick + scale * (0.2 * lumps * taper + (0.04 if woven else 0.05 + 0.22 * curl) * strand)
    points = base + outward * np.maximum(thick, -0.001)[..., None].astype(np.float32)
    if woven:
        pattern = 0.04 * strand
    else:
        streaks = _resized(rng.normal(0, 1, (2, 40)), (STRAND_ROWS, COLUMNS))
        pattern = rng.uniform(0.2, 0.55) * strand + rng.uniform(0.05, 0.3) * streaks
        pattern = pattern + rng.normal(0.1, 0.25) * (s - 0.3)
    albedo = np.minimum(np.asarray(colour) * np.exp(pattern)[..., None], 0.9)
    shine = (0.02 + 0.12 * rng.random() * np.exp(0.6 * strand)) if gloss is None else np.full_like(strand, gloss)
    return Part(
        np.ascontiguousarray(points.reshape(-1, 3), np.float32),
        _SHELL,
        albedo.reshape(-1, 3).astype(np.float32),
        shine.reshape(-1).astype(np.float32),
    )


_SHELL = grid_triangles(STRAND_ROWS, COLUMNS, closed=True)


def _resized(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    import cv2

    wrapped = np.concatenate([values, values[:, :1]], axis=1).astype(np.float32)
    return np.asarray(cv2.resize(wrapped, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _strands(rng: np.random.Generator, curl: float) -> NDArray[np.float32]:
    """Noise along strands (STRAND_ROWS, COLUMNS): streaks where straight, curls otherwise; unit deviation."""
    straight = _resized(rng.normal(0, 1, (4, COLUMNS)), (STRAND_ROWS, COLUMNS))
    curls = _resized(rng.normal(0, 1, (STRAND_ROWS // 2, COLUMNS // 3)), (STRAND_ROWS, COLUMNS))
    return np.asarray(straight * (1 - curl) + curls * curl, np.float32)


def _crown_of_hair(
    rng: np.random.Generator,
    person: Person,
    head: Head,
    chart: Floats,
    natural: Floats,
    degrees: NDArray[Any],
    sellion: float,
) -> Headwear:
    """Hair at the sides and the back only."""
    upper = np.where(degrees > 62, rng.uniform(0.03, 0.085), 0.2)
    start = head.rows_at(chart, (sellion + head.size * (upper + _wander(rng, 0.004, 30))).astype(np.float32))
    start = np.where(degrees > 62, start, natural).astype(np.float32)
    thick = rng.uniform(0.002, 0.012) * head.size
    shell = _shell(rng, person.hair, head, chart, start, natural, 0.4 * thick, thick, curl=0.4, hem=0.0005)
    bare = np.tile(degrees <= 62, STRAND_ROWS)
    shell = shell._replace(triangles=_SHELL[~bare[_SHELL].any(axis=1)])
    return Headwear([shell], natural, float(rng.choice([0.0, 0.15])), False, False)


def _worn(
    rng: np.random.Generator,
    person: Person,
    head: Head,
    chart: Floats,
    natural: Floats,
    sellion: float,
    degrees: NDArray[Any],
) -> Headwear:
    """A cap, a hat with a brim, a woollen hat, a hood or a scarf, with short hair below."""
    k = head.size
    colour = cloth_colour(rng)
    zero = np.zeros(COLUMNS, np.float32)
    kind = rng.integers(4)
    parts = []
    if kind == 3:  # a hood, or a scarf around head and neck
        opening = rng.uniform(48, 70)
        front = rng.uniform(0.035, 0.07)
        hem = np.where(degrees < opening, front - (degrees / opening) ** 3 * 0.03, -0.3)
        end = head.rows_at(chart, (sellion + k * (hem + _wander(rng, 0.002, 20))).astype(np.float32))
        far = rng.uniform(0.006, 0.03) * k
        hood = _shell(rng, colour, head, chart, zero, end, far, far, curl=0.7, hem=far * 0.8, woven=True, gloss=0.01)
        parts.append(hood)
        return Headwear(parts, natural, 0.9, True, bool(far < 0.02), colour)
    short = rng.uniform(0.002, 0.012) * k
    if rng.random() < 0.8:
        parts.append(_shell(rng, person.hair, head, chart, zero, natural, short, short, curl=0.2, hem=0.0005))
    brow = rng.uniform(0.026, 0.055)
    tilt = rng.uniform(-0.03, 0.03)
    hem = brow + (tilt - 0.01) * (degrees / 180) + 0.006 * rng.normal() * np.sin(head.azimuth)
    if kind == 0:  # woollen
        hem -= rng.uniform(0, 0.06) * smooth_step(degrees, 60, 100)
    end = head.rows_at(chart, (sellion + k * hem).astype(np.float32))
    far = (short + rng.uniform(0.004, 0.02)) * k
    high = far + rng.uniform(0, 0.03) * k * (kind != 0)
    parts.append(_shell(rng, colour, head, chart, zero, end, high, far, curl=0.6, hem=far, woven=True, gloss=0.015))
    if kind > 0:
        brim = colour if rng.random() < 0.7 else cloth_colour(rng)
        parts.append(_brim(rng, head, chart, end, far, brim, cap=kind == 1))
    return Headwear(parts, natural, 0.9, False, False)


def _brim(
    rng: np.random.Generator, head: Head, chart: Floats, end: Floats, far: float, colour: NDArray[Any], *, cap: bool
) -> Part:
    """The brim of a hat, all around, or the visor of a cap."""
    column = np.arange(COLUMNS)
    low = end.astype(np.int32)
    t = (end - low)[:, None]
    base = chart[low, column] * (1 - t) + chart[low + 1, column] * t + head.outward[low, column] * np.float32(far)
    level = head.outward[low, column].copy()
    level[:, 1] = 0
    level /= np.linalg.norm(level, axis=1, keepdims=True)
    angle = head.azimuth
    if cap:
        reach = rng.uniform(0.05, 0.085) * np.sqrt(np.maximum(np.cos(angle * np.pi / np.radians(130)), 0))
        reach = np.where(np.abs(angle) < np.radians(65), reach, 0)
        droop = -rng.uniform(0.0, 0.35) - 0.25 * np.sin(angle) ** 2
        if rng.random() < 0.12:  # worn backwards
            reach, droop = np.roll(reach, COLUMNS // 2), np.roll(droop, COLUMNS // 2)
    else:
        reach = np.full(COLUMNS, rng.uniform(0.03, 0.09))
        droop = np.full(COLUMNS, rng.normal(-0.05, 0.2))
    direction = level + droop[:, None] * np.array([0, 1, 0])
    steps = np.linspace(-0.003, 1, 5)[:, None, None]
    points = base + steps * (reach[:, None] * head.size) * direction
    return part(points, grid_triangles(5, COLUMNS, closed=True), colour * 0.9, 0.02)


def _ponytail(rng: np.random.Generator, person: Person, chart: Floats) -> Part:
    """A tail of hair behind the head."""
    start = chart[int(rng.integers(10, 22)), 0]
    steps = np.linspace(0, 1, 8)[:, None]
    path = start + steps * [rng.normal(0, 0.03), -rng.uniform(0.05, 0.2), -0.02] + np.sin(steps * 3) * [0, 0.02, -0.04]
    points, triangles = tube(path, 0.018 * np.sin(np.linspace(0.7, 3.0, 8)) + 0.004, 10)
    return part(points, triangles, person.hair, 0.05)
