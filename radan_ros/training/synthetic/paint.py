"""Skin, brows, eyes, lips, stubble: the colours of a body, painted by where the landmarks of the mean face are.

Pigments absorb: in the logarithm of the albedo they add up. So what belongs to the skin (melanin, blood, blotches,
freckles, shadows in creases) is one product of fixed fields over the points and random amounts; hair, eyes and
lipstick, which cover, are laid over it. Skin tones follow the two pigments as in T. Igarashi, K. Nishino, S. K. Nayar,
"The Appearance of Human Skin: A Survey" (2007); the figures are set by eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.compiled import compiled
from radan_ros.face_models.making.template import EYEBALL, INNER_MOUTH, NOSTRIL

from .geometry import Floats, signed_distance, smooth_step
from .head import CHART_BOTTOM, CHART_TOP, COLUMNS, ROWS, Head

EYES = (slice(36, 42), slice(42, 48))
EYEBALL_RADIUS = 0.012  # metres
_LIGHT_SKIN = np.log([0.78, 0.52, 0.42])
_MELANIN = np.array([-2.3, -2.75, -3.05])  # from the lightest skin to the darkest
_BLOOD = np.array([-0.06, -0.42, -0.32])
_LOW, _MIDDLE, _FINE = 10, 8, 4  # noise fields of each kind


@dataclass(frozen=True)
class Person:
    """What a person's colours go by.

    Attributes
    ----------
    melanin : float
        0 the lightest skin to 1 the darkest.
    age : float
        0 young to 1 old.
    beard : float
        0 no hair grows on the cheeks to 1 dense.
    make_up : float
    hair : (3,) float64
        Linear RGB albedo.
    log_skin : (3,) float64
        Logarithm of the linear RGB albedo.
    """

    melanin: float
    age: float
    beard: float
    make_up: float
    hair: NDArray[np.float64]
    log_skin: NDArray[np.float64]


HAIR_COLOURS = np.array([
    [0.008, 0.007, 0.006], [0.018, 0.012, 0.008], [0.035, 0.02, 0.012], [0.07, 0.038, 0.02], [0.12, 0.065, 0.03],
    [0.24, 0.145, 0.065], [0.42, 0.29, 0.15], [0.17, 0.055, 0.02], [0.16, 0.15, 0.14], [0.28, 0.27, 0.25],
    [0.45, 0.44, 0.42],
])  # fmt: skip
IRIS_COLOURS = np.array([
    [0.014, 0.007, 0.004], [0.03, 0.014, 0.007], [0.06, 0.03, 0.012], [0.07, 0.055, 0.022], [0.06, 0.08, 0.045],
    [0.06, 0.10, 0.15], [0.09, 0.13, 0.16], [0.035, 0.06, 0.10],
])  # fmt: skip


def random_person(rng: np.random.Generator) -> Person:
    """A person of any skin tone and age."""
    melanin = float(np.clip(rng.beta(1.0, 1.8), 0, 1))
    age = rng.random() ** 1.2
    male = rng.random() < 0.5
    beard = rng.uniform(0.0, 1.0) if male else 0.0
    make_up = rng.uniform(0.0, 1.0) if not male and rng.random() < 0.7 else 0.0
    grey = age > 0.65 and rng.random() < 0.55
    if grey:
        hair = HAIR_COLOURS[rng.integers(8, 11)]
    elif melanin > 0.4 and rng.random() < 0.94:
        hair = HAIR_COLOURS[rng.integers(0, 3)]
    else:
        hair = HAIR_COLOURS[rng.integers(0, 8)]
    hair = hair * np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.06, 3))
    if rng.random() < 0.03:  # dyed
        hair = rng.uniform(0.02, 0.6, 3)
    log_skin = _LIGHT_SKIN + melanin * _MELANIN + rng.normal(0.1, 0.3) * _BLOOD + rng.normal(0, 0.03, 3)
    return Person(melanin, age, beard, make_up, hair, log_skin)


class Paint:
    """The fields over a head's points that colours are mixed from.

    Parameters
    ----------
    head : Head
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        mean = head.mean
        n = len(mean)
        k = head.size
        lm = head.landmarks
        self._face = np.zeros(n, bool)
        self._face[head.face] = True
        rng = np.random.default_rng(1)
        low = _waves(rng, mean, _LOW, 0.03 * k, 0.09 * k)
        middle = _waves(rng, mean, _MIDDLE, 0.005 * k, 0.016 * k)
        fine = rng.standard_normal((n, _FINE)).astype(np.float32)
        self._low, self._middle, self._fine = low, middle, fine

        front = self._face & (mean[:, 2] > lm[36, 2] - 0.045 * k)
        xy = mean[:, :2] / k
        at = lm[:, :2] / k

        def blob(x: float, y: float, rx: float, ry: float) -> Floats:
            return np.where(front, np.exp(-(((xy[:, 0] - x) / rx) ** 2) - ((xy[:, 1] - y) / ry) ** 2), 0).astype(
                np.float32
            )

        def near(points: NDArray[Any], reach: float) -> NDArray[np.bool_]:
            low_xy, high_xy = points.min(axis=0) - reach, points.max(axis=0) + reach
            return front & ((xy > low_xy) & (xy < high_xy)).all(axis=1)

        def distance(points: NDArray[Any], reach: float) -> Floats:
            """Signed distance to a closed smooth curve, `reach` where farther."""
            result = np.full(n, reach, np.float32)
            where = near(points, reach)
            result[where] = signed_distance(xy[where], _smooth_loop(points))
            return np.minimum(result, reach)

        lips_out, lips_in = distance(at[48:60], 0.03), distance(at[60:68], 0.03)
        self.lips = smooth_step(lips_out, 0.0008, -0.0006) * smooth_step(lips_in, -0.0006, 0.0002)
        lip_line = np.exp(-((lips_in / 0.0009) ** 2)) * smooth_step(lips_out, 0, -0.002)
        self.eyes = []
        lash_upper, lash_lower, crease, shadow, bag, corner = (np.zeros(n, np.float32) for _ in range(6))
        for eye in EYES:
            corners = at[eye]
            d = distance(corners, 0.03)
            inner, outer = corners[0], corners[3]
            line = inner[1] + (xy[:, 0] - inner[0]) / (outer[0] - inner[0]) * (outer[1] - inner[1])
            above = smooth_step(xy[:, 1] - line, -0.001, 0.001)
            self.eyes.append(smooth_step(d, 0.0005, -0.0002))
            lash_upper += np.exp(-((d / 0.0011) ** 2)) * above
            lash_lower += np.exp(-((d / 0.0009) ** 2)) * (1 - above)
            crease += np.exp(-(((d - 0.0042) / 0.0011) ** 2)) * above
            shadow += smooth_step(d, 0.011, 0.001) * above * (d > -0.0005)
            bag += np.exp(-(((d - 0.006) / 0.0035) ** 2)) * (1 - above)
            for end in (inner, outer):
                corner += blob(end[0], end[1], 0.003, 0.003)

        inner_mouth = np.zeros(n, np.float32)
        pits = np.zeros(n, np.float32)
        if head.model.regions is not None:
            ball = head.spread(head.model.regions == EYEBALL)
            self.eyes = [ball * (mean[:, 0] < lm[27, 0]), ball * (mean[:, 0] >= lm[27, 0])]
            inner_mouth = head.spread(head.model.regions == INNER_MOUTH)
            pits = head.spread(head.model.regions == NOSTRIL)
            self.lips *= 1 - inner_mouth
        self._inner_mouth = inner_mouth
        x_alar, y_alar = abs(at[35, 0] - at[31, 0]) / 2, at[33, 1]
        nostrils = np.maximum(sum(blob(at[i, 0], at[i, 1] + 0.0005, 0.0034, 0.0022) for i in (32, 34)), pits)
        middle_x = at[27, 0]
        across = np.abs(xy[:, 0] - middle_x)
        mouth_y, mouth_x = at[[48, 54], 1].mean(), np.ptp(at[[48, 54], 0]) / 2
        # From the wing of the nose to beside the corner of the mouth.
        fold_t = np.clip((y_alar + 0.008 - xy[:, 1]) / (y_alar + 0.008 - mouth_y + 0.01), -0.3, 1.3)
        fold_x = x_alar + 0.004 + np.maximum(fold_t, 0) ** 0.8 * (mouth_x + 0.007 - x_alar - 0.004)
        fold = np.where(front, np.exp(-(((across - fold_x) / 0.0022) ** 2)), 0) * smooth_step(fold_t, -0.1, 0.15)
        fold *= smooth_step(fold_t, 1.25, 0.8)
        brow_y = at[17:27, 1].max()
        forehead = smooth_step(xy[:, 1], brow_y + 0.006, brow_y + 0.014) * smooth_step(across, 0.055, 0.03) * front
        bend = 0.006 * np.cos(across / 0.02)
        lines = np.sin(2 * np.pi * (xy[:, 1] + bend) / 0.0085) * forehead
        frown = sum(blob(middle_x + s * 0.006, brow_y - 0.004, 0.0013, 0.008) for s in (-1, 1))
        eye_y = at[36:48, 1].mean()
        outer_x = np.abs(at[[36, 45], 0] - middle_x).mean()
        crow_angle = np.arctan2(xy[:, 1] - eye_y, across - outer_x + 0.002)
        crow_r = np.hypot(xy[:, 1] - eye_y, across - outer_x + 0.002)
        crow = np.sin(crow_angle * 9) * np.exp(-(((crow_r - 0.013) / 0.007) ** 2)) * front
        crow *= smooth_step(np.abs(crow_angle), 1, 0.6)
        cheeks = sum(blob(middle_x + s * 0.042, y_alar + 0.008, 0.019, 0.015) for s in (-1, 1))
        nose_tip = blob(at[30, 0], at[30, 1], 0.011, 0.009)
        chin = blob(at[8, 0], at[8, 1] + 0.015, 0.016, 0.01)
        ears = np.zeros(n, np.float32)
        ears[head.ears] = 1
        hollow = sum(blob(at[i, 0], eye_y, 0.016, 0.012) for i in (39, 42))
        freckles = np.maximum(middle[:, 0] - 0.9, 0) + np.maximum(middle[:, 1] - 1.1, 0)
        freckles *= np.exp(-(((xy[:, 1] - y_alar - 0.012) / 0.03) ** 2))
        self._fields = np.stack(
            [
                np.ones(n), *low.T, *middle.T, *fine.T, cheeks, nose_tip, chin, ears, hollow, freckles, nostrils,
                fold, lash_upper, lash_lower, crease, bag, self.lips, lip_line, corner, inner_mouth,
            ],
            axis=0,
        ).astype(np.float32)  # fmt: skip
        self._bumps = np.stack(
            [-fold, lines, -frown, crow, -crease, bag, *(middle[:, i] for i in range(4)), *fine.T[:2] * 0.5], axis=0
        ).astype(np.float32)
        self._shadow_set = np.flatnonzero(shadow > 0)
        self._shadow = shadow[self._shadow_set].astype(np.float32)
        self._lip_set = np.flatnonzero(self.lips > 0)
        self._set_brows(at, xy, front)

        # Where hair grows on the lower face.
        cheek_line = mouth_y + 0.006 + np.clip((across - mouth_x) / 0.04, 0, 1) * 0.016
        jaw = smooth_step(cheek_line - xy[:, 1], -0.004, 0.008) * smooth_step(across, mouth_x - 0.006, mouth_x + 0.006)
        below = smooth_step(xy[:, 1], at[57, 1] - 0.002, at[57, 1] - 0.008)
        moustache = smooth_step(xy[:, 1], y_alar - 0.001, y_alar - 0.005) * smooth_step(
            xy[:, 1], at[48:55, 1].min() - 0.008, mouth_y
        )
        moustache *= smooth_step(across, mouth_x + 0.007, mouth_x)
        goatee = below * smooth_step(across, mouth_x + 0.004, mouth_x - 0.006)
        around = smooth_step(across, mouth_x + 0.014, mouth_x + 0.006)
        around *= smooth_step(across, mouth_x - 0.002, mouth_x + 0.004)
        around *= smooth_step(xy[:, 1], y_alar - 0.006, y_alar - 0.014)
        side = smooth_step(across, 0.058, 0.066) * smooth_step(xy[:, 1], eye_y + 0.01, eye_y - 0.005)
        under = smooth_step(xy[:, 1], at[8, 1] - 0.045, at[8, 1] - 0.015)
        on_skin = self._face & (mean[:, 2] > head.centre[2] + 0.008 * k)
        free = (1 - self.lips) * on_skin * under
        beards = np.stack(
            [np.maximum(jaw, below * (across > mouth_x - 0.008)) * free, moustache * free, goatee * free,
             around * free, side * on_skin * under],
            axis=0,
        ).astype(np.float32)  # fmt: skip
        self._beard_set = np.flatnonzero(beards.max(axis=0) > 0)
        self._beards = np.ascontiguousarray(beards[:, self._beard_set])
        # Row and column of the head's chart for each point: what lies above the hairline.
        away = mean - head.centre
        azimuth = np.arctan2(away[:, 0], away[:, 2])
        elevation = np.arctan2(away[:, 1], np.hypot(away[:, 0], away[:, 2]))
        row = (CHART_TOP - elevation) / (CHART_TOP - CHART_BOTTOM) * (ROWS - 1)
        column = np.round((azimuth + np.pi) / (2 * np.pi) * COLUMNS).astype(np.int32) % COLUMNS
        self._scalp_set = where = np.flatnonzero(row[: head.ears.start] < 0.85 * ROWS)
        ragged = 0.4 * fine[where, 3] + 0.5 * middle[where, 5]
        self._scalp_row, self._scalp_column = (row[where] - ragged).astype(np.float32), column[where]
        self._scalp_noise = 0.2 * fine[where, 2]

    def _set_brows(self, at: NDArray[Any], xy: Floats, front: NDArray[np.bool_]) -> None:
        """Position along (0 inner to 1 outer end) and across (metres, positive up) of the nearest brow."""
        n = len(xy)
        brow_along = np.full(n, -9, np.float32)
        brow_across = np.full(n, 9, np.float32)
        for line in (at[21:16:-1], at[22:27]):
            where = np.flatnonzero(front & ((xy > line.min(0) - 0.02) & (xy < line.max(0) + 0.02)).all(axis=1))
            curve = _smooth_line(line)
            ends = np.concatenate([[curve[0] * 2 - curve[4]], curve, [curve[-1] * 2 - curve[-5]]])
            length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(ends, axis=0), axis=1))])
            t = (length - length[1]) / (length[-2] - length[1])
            to = xy[where][:, None] - ends[None]
            nearest = np.linalg.norm(to, axis=2).argmin(axis=1)
            tangent = np.gradient(ends, axis=0)[nearest]
            tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
            offset = to[np.arange(len(where)), nearest]
            lateral = tangent[:, 0] * offset[:, 1] - tangent[:, 1] * offset[:, 0]
            along = t[nearest] + (tangent * offset).sum(1) / (length[-2] - length[1])
            upward = np.sign(tangent[:, 0])  # the subject's right brow runs to the left
            brow_along[where], brow_across[where] = along, lateral * upward
        near = (brow_along > -0.25) & (brow_along < 1.3) & (np.abs(brow_across) < 0.014)
        self._brow_set = np.flatnonzero(near)
        self._brow_along, self._brow_across = brow_along[near], brow_across[near]
        rng = np.random.default_rng(2)
        # Hairs stand up at the inner end, lie down at the outer one.
        slant = self._brow_along * 0.045 - self._brow_across * (0.3 + 0.5 * np.clip(self._brow_along, 0, 1))
        self._strokes = np.stack(
            [np.sin(slant * 2 * np.pi / rng.uniform(0.002, 0.0045) + rng.uniform(0, 6)) for _ in range(4)]
        ).astype(np.float32)

    def skin(
        self, rng: np.random.Generator, person: Person, hidden: NDArray[np.bool_]
    ) -> tuple[Floats, Floats, Floats]:
        """Bare skin with brows, lips and stubble: linear RGB albedo (n, 3), gloss (n,), relief (n,) in metres.

        Points that are `hidden` (n,) stay black.
        """
        dark = np.array([-1.0, -1.15, -1.25])
        old = person.age
        melanin_amount, blood_amount = 0.08 * rng.exponential(), 0.05 * rng.exponential()
        rows = [person.log_skin]
        for _ in range(_LOW):
            rows.append(rng.normal(0, 0.3 * melanin_amount) * dark + rng.normal(0, 0.6 * blood_amount) * _BLOOD)
        for _ in range(_MIDDLE):
            rows.append(rng.normal(0, 0.004 + 0.009 * old) * dark + rng.normal(0, 0.014) * _BLOOD)
        for _ in range(_FINE):
            rows.append(rng.normal(0, 0.010) * dark)
        flush = rng.exponential(0.35)
        rows += [
            (flush * 0.6 + person.make_up * rng.uniform(0, 1.2)) * _BLOOD,  # cheeks
            flush * rng.uniform(0.2, 1.2) * _BLOOD,  # nose
            flush * 0.5 * _BLOOD,  # chin
            rng.uniform(0.3, 1.0) * _BLOOD,  # ears
            rng.exponential(0.22) * dark + rng.normal(0, 0.2) * _BLOOD,  # around the inner corners of the eyes
            (rng.exponential(0.3) if rng.random() < 0.12 else 0.0) * dark * (1 - person.melanin),  # freckles
            rng.uniform(0.9, 2.2) * dark * [0.85, 1.05, 1.1],  # nostrils
            (0.05 + 0.25 * old * rng.random()) * dark,  # fold beside the mouth
            (rng.uniform(1.0, 2.4) + 1.2 * person.make_up) * dark,  # upper lashes
            (rng.uniform(0.1, 0.6) + 0.8 * person.make_up * rng.random()) * dark,  # lower lashes
            rng.uniform(0.0, 0.6) * dark,  # crease of the lid
            (0.15 * rng.random() + 0.2 * old * rng.random()) * dark,  # bags
            rng.uniform(0.3, 1.3) * _BLOOD + rng.normal(0.1, 0.2) * dark,  # lips
            rng.uniform(0.3, 1.6) * dark,  # line between the lips
            rng.uniform(0.0, 0.5) * dark + 0.4 * _BLOOD,  # corners of the eyes
            rng.uniform(0.4, 1.6) * dark + 1.5 * _BLOOD,  # inside of the mouth
        ]
        albedo = np.zeros((len(hidden), 3), np.float32)
        _mix(self._fields, np.array(rows, np.float32), hidden, albedo)
        amounts = np.concatenate(
            [
                [0.0006 * old * rng.random() * 2, 0.0004 * max(old - 0.3, 0) * rng.random() * 2],
                [0.0006 * old * rng.random(), 0.0003 * max(old - 0.3, 0) * rng.random() * 2],
                [0.0008 * rng.random(), 0.0010 * old * rng.random()],
                rng.normal(0, 0.00003 + 0.00006 * old, 4),
                rng.normal(0, 0.00005, 2),
            ]
        )
        relief = sum(a * f for a, f in zip(amounts.astype(np.float32), self._bumps, strict=True))
        gloss = 0.035 * rng.exponential(1.0) * (1 + 0.2 * self._middle[:, 3]) + 0.015
        gloss += self.lips * np.float32(rng.exponential(0.12) + 0.25 * person.make_up * rng.random())

        if person.make_up > 0.3:
            if rng.random() < 0.75:  # lipstick
                hue = np.array([0.45, 0.06, 0.07]) * np.exp(rng.normal(0, 0.5, 3)) * np.exp(rng.normal(-0.1, 0.4))
                strength = np.float32(person.make_up * rng.uniform(0.4, 0.95))
                _cover(albedo, self._lip_set, self.lips[self._lip_set] * strength, np.minimum(hue, 0.8))
            if rng.random() < 0.5:
                hue = np.exp(person.log_skin) * rng.uniform(0.2, 1.0, 3)
                strength = np.float32(person.make_up * rng.uniform(0.2, 0.8))
                _cover(albedo, self._shadow_set, self._shadow * strength, hue)
        self._brow(rng, person, albedo)
        self._beard(rng, person, albedo, relief, gloss)
        return albedo, np.maximum(gloss, 0).astype(np.float32), relief.astype(np.float32)

    def _brow(self, rng: np.random.Generator, person: Person, albedo: Floats) -> None:
        t, d = self._brow_along, self._brow_across
        start, stop = rng.normal(-0.02, 0.05), rng.normal(1.02, 0.06)
        thick = rng.uniform(0.0020, 0.0052)
        taper = rng.uniform(0.15, 0.8)
        half = thick * (1 - taper * smooth_step(t, 0.35, 1.1)) * (0.75 + 0.25 * smooth_step(t, start, start + 0.25))
        middle = rng.normal(-0.0004, 0.0011) + rng.normal(0, 0.0012) * (t - 0.5)
        edge = 0.0012 + 0.0012 * rng.random()
        noise = 0.25 * self._fine[self._brow_set, 0]
        noise += sum(np.float32(a) * stroke for a, stroke in zip(rng.normal(0, 0.35, 4), self._strokes, strict=True))
        weight = smooth_step(np.abs(d - middle) + 0.0006 * noise, half + edge, half - edge)
        weight *= smooth_step(t, start - 0.06, start + 0.08) * smooth_step(t, stop + 0.08, stop - 0.08)
        strength = rng.uniform(0.05, 0.4) if rng.random() < 0.2 else rng.uniform(0.4, 0.97)
        weight *= np.clip(strength * (1 + 0.22 * noise), 0, 1)
        colour = np.minimum(person.hair, 0.3) * rng.uniform(0.5, 1.1)
        _cover(albedo, self._brow_set, weight, colour)

    def _beard(self, rng: np.random.Generator, person: Person, albedo: Floats, relief: Floats, gloss: Floats) -> None:
        if person.beard < 0.2:
            return
        kind = rng.random()
        if kind < 0.45:  # shaved
            areas, cover = np.ones(5), rng.uniform(0.05, 0.45)
        elif kind < 0.7:
            areas, cover = np.array([1, 1, 1, 1, rng.integers(2)]), rng.uniform(0.5, 0.97)
        elif kind < 0.82:
            areas, cover = np.array([0, 1, 1, 1, 0]), rng.uniform(0.5, 0.97)
        elif kind < 0.92:
            areas, cover = np.array([0, 1, 0, 0, 0]), rng.uniform(0.5, 0.97)
        else:
            areas, cover = rng.uniform(0, 1, 5), rng.uniform(0.3, 0.97)
        where = self._beard_set
        weight = (self._beards * areas.astype(np.float32)[:, None]).max(axis=0)
        noise = self._fine[where, 1] * 0.5 + self._middle[where, 4] * 0.5
        weight = np.clip(weight * (1 + 0.25 * noise) * (1.05 + 0.15 * self._low[where, 2]), 0, 1) * np.float32(cover)
        colour = np.minimum(person.hair * np.exp(rng.normal(0, 0.2)), 0.6)
        if cover < 0.5:  # hair below the skin looks bluish
            colour = colour * 0.5 + np.exp(person.log_skin) * [0.22, 0.27, 0.30]
        _cover(albedo, where, weight, colour, np.float32(0.35 if cover > 0.5 else 0.1) * noise)
        gloss[where] *= 1 - 0.7 * weight
        if cover > 0.5:
            relief[where] += weight * (np.float32(rng.uniform(0.0, 0.0012)) * (noise + self._fine[where, 2] * 0.5))

    def eyes_on(
        self,
        rng: np.random.Generator,
        person: Person,
        points: Floats,
        landmarks: Floats,
        towards_light: NDArray[Any],
        albedo: Floats,
        gloss: Floats,
    ) -> None:
        """Paint the eyes.

        Parameters
        ----------
        points : (n, 3) float32
            Of the body, in the head's frame.
        landmarks : (68, 3) float32
            Of the face without expression.
        towards_light : (3,) array
            Unit vector to the brightest source, head's frame: where the catch light is.
        albedo, gloss
            Changed.
        """
        colours = IRIS_COLOURS[:3] if person.melanin > 0.45 and rng.random() < 0.93 else IRIS_COLOURS
        iris = colours[rng.integers(len(colours))] * np.exp(rng.normal(0, 0.25))
        sclera = np.array([0.66, 0.61, 0.57]) * rng.uniform(0.45, 1.0) * np.exp([0, *rng.normal(-0.04, 0.05, 2)])
        yaw, pitch = rng.normal(0, 0.22), rng.normal(0, 0.14)
        if rng.random() < 0.15:
            yaw, pitch = rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.3)
        k = self.head.size
        iris_radius, pupil = 0.0059 * k * rng.uniform(0.95, 1.08), rng.uniform(0.0014, 0.0030) * k
        catch = rng.uniform(0.0006, 0.0013) * k if rng.random() < 0.75 else 0.0
        for eye, inside in zip(EYES, self.eyes, strict=True):
            where = np.flatnonzero(inside > 0)
            centre = landmarks[eye].mean(axis=0) - [0, 0, 0.0085 * k]
            gaze = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
            radius = EYEBALL_RADIUS * k
            near = points[where]
            d = np.linalg.norm(near - (centre + radius * gaze), axis=1)
            blend = 0.0004 * k
            colour = np.repeat((sclera * rng.uniform(0.92, 1.0))[None], len(where), axis=0)
            ring = smooth_step(d, iris_radius + blend, iris_radius - blend)[:, None]
            limbus = 1 - 0.55 * smooth_step(d, 0.7 * iris_radius, iris_radius)[:, None]
            colour += (iris * limbus - colour) * ring
            colour += (0.004 - colour) * smooth_step(d, pupil + blend, pupil - blend)[:, None]
            half = gaze + towards_light
            spot = np.linalg.norm(near - (centre + radius * half / max(np.linalg.norm(half), 0.3)), axis=1)
            if catch:
                colour += 2.0 * smooth_step(spot, catch + blend, catch - blend)[:, None]
            cover = albedo[where]
            amount = inside[where, None]
            albedo[where] = cover + (colour - cover) * amount
            gloss[where] *= 1 - 0.5 * inside[where]

    def scalp(self, rng: np.random.Generator, end: Floats, albedo: Floats, colour: Any, cover: float) -> None:
        """Colour the skin above the hairline.

        Parameters
        ----------
        end : (COLUMNS,) float32
            Row of the chart at which hair begins to grow in each column.
        albedo : (n, 3) float32
            Changed.
        colour : (3,) array_like
        cover : float
            0 bald to 1 no skin seen.
        """
        soft = rng.uniform(0.5, 1.6)
        weight = smooth_step(end[self._scalp_column] - self._scalp_row, -soft, soft) * np.float32(cover)
        _cover(albedo, self._scalp_set, weight, colour, self._scalp_noise)


def _cover(albedo: Floats, where: NDArray[Any], weight: Floats, colour: Any, variation: Floats | None = None) -> None:
    """Lay a colour over the points `where` (m,) of albedo (n, 3) with weights (m,), its logarithm varied by (m,)."""
    paint = np.asarray(colour, np.float32)
    _lay(albedo, where, weight.astype(np.float32), paint, np.zeros(0, np.float32) if variation is None else variation)


@compiled
def _lay(albedo: Any, where: Any, weight: Any, colour: Any, variation: Any) -> None:
    for k in range(where.shape[0]):
        gain = np.exp(variation[k]) if variation.shape[0] > 0 else np.float32(1)
        for c in range(3):
            albedo[where[k], c] += (colour[c] * gain - albedo[where[k], c]) * weight[k]


@compiled
def _mix(fields: Any, amounts: Any, hidden: Any, albedo: Any) -> None:
    """Fill `albedo` (n, 3) with exp(amounts.T (3, k) @ fields (k, n)), 1 at most, where not hidden (n,)."""
    count = fields.shape[1]
    total = np.zeros((3, count), np.float32)
    for k in range(fields.shape[0]):
        r, g, b = amounts[k, 0], amounts[k, 1], amounts[k, 2]
        for i in range(count):
            total[0, i] += r * fields[k, i]
            total[1, i] += g * fields[k, i]
            total[2, i] += b * fields[k, i]
    for i in range(count):
        if not hidden[i]:
            for c in range(3):
                albedo[i, c] = np.exp(min(total[c, i], np.float32(0)))


def _waves(rng: np.random.Generator, points: Floats, count: int, shortest: float, longest: float) -> Floats:
    """Noise of wavelengths in a range (metres) at points (n, 3): (n, count) of unit deviation."""
    result = np.zeros((len(points), count), np.float32)
    for column in range(count):
        directions = rng.normal(size=(16, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        waves = directions * (2 * np.pi / rng.uniform(shortest, longest, (16, 1)))
        phase = points @ waves.T.astype(np.float32) + rng.uniform(0, 2 * np.pi, 16).astype(np.float32)
        result[:, column] = np.cos(phase).sum(axis=1) / np.sqrt(8)
    return result


def _smooth_line(points: NDArray[Any], each: int = 6) -> NDArray[np.float64]:
    """A smooth curve through points (m, 2), `each` times as many."""
    from scipy.interpolate import CubicSpline

    at = np.arange(len(points))
    return np.asarray(CubicSpline(at, points)(np.linspace(0, at[-1], each * len(points))))


def _smooth_loop(points: NDArray[Any], each: int = 4) -> NDArray[np.float64]:
    """A closed polygon through points (m, 2) with rounded sides; corners that are sharp stay (first and middle)."""
    half = len(points) // 2
    there = _smooth_line(points[: half + 1], each)
    back = _smooth_line(np.concatenate([points[half:], points[:1]]), each)
    return np.concatenate([there[:-1], back[:-1]])
