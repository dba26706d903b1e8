"""What answers are worth: the formulas of 3DDFA's and RADAN's benchmarks, head poses, and tables of them. NumPy alone.

Head poses of AFLW2000-3D (``Pose_Para``) are pitch x, yaw y, roll z of a head in a frame with x to the right, y up, z
towards the viewer::

    R = X(x) Y(y) Z(z), each the transpose of the usual rotation about its axis (3DDFA's Matlab code)

so that yaw > 0 turns the nose to the image's left, pitch > 0 up, roll > 0 the scalp to the right. The angles of this
library (`pose.euler_from_rotation`, docs/conventions.md) have the opposite signs and another order: pitch, yaw and roll
in this one, yaw, pitch and roll in ours. A turn about one axis alone has the same size in both; any other has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.benchmarks.faces import Array, LabelledFaces
from radan_ros.pose import euler_from_rotation, head_rotation
from radan_ros.training.evaluation import Spread, by_yaw_3ddfa, nme, spread, spread_of_bins

# Which of the 68 landmarks (iBUG order) make each of AFLW's 21: brows, eyes, ears' side of the jaw, nose, mouth, chin.
LANDMARKS_OF_21 = (
    (17,), (19,), (21,), (22,), (24,), (26,), (36,), tuple(range(36, 42)), (39,), (42,), tuple(range(42, 48)), (45,),
    (2,), (31,), (30,), (35,), (14,), (48,), tuple(range(60, 68)), (54,), (8,),
)  # fmt: skip
STEEPEST = 99.0  # degrees: faces with an angle beyond it are left out of head-pose figures (Ruiz et al., CVPRW 2018)
NONE, PER_AXIS = "none", "each axis stretched to the given points' range (RADAN)"

# Optical axes (x right, y down, z forward) from those of networks and Pose_Para (x right, y up, z to the viewer).
_OPTICAL = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Answers:
    """What a model, or a file, says of N faces.

    Attributes
    ----------
    landmarks : (N, 68, 2 or 3) float64
        Pixels as the annotations count them, third towards the viewer; NaN for faces that were not found.
    rotations : (N, 3, 3) float64 or None
        Of the face model in a frame with x right, y up, z towards the viewer.
    squares : (N, 4) float64 or None
        What was cropped, in pixels of the pictures that were read.
    parameters : (N, 62) float32 or None
    """

    landmarks: Array
    rotations: Array | None = None
    squares: Array | None = None
    parameters: NDArray[np.float32] | None = None

    @property
    def found(self) -> NDArray[np.bool_]:
        """Faces that there is an answer for, (N,)."""
        return np.asarray(np.isfinite(self.landmarks).all(axis=(1, 2)))


@dataclass(frozen=True)
class Table:
    """Errors in percent of the size of the face, by yaw.

    Attributes
    ----------
    data, model, annotation, split, crops, pixels, alignment : str
        What was scored, and how.
    points, dimensions : int
    bins : dict of Spread
        By ends of the yaw in degrees.
    of_bins : Spread
        Of the bins' means: its mean and std are what 3DDFA's benchmark calls mean and std.
    of_faces : Spread
    missing : int
        Faces that were not found, or have no visible point: in none of the figures.
    errors, yaw : (N,) float64
        Of each face, percent (NaN: missing) and degrees.
    """

    data: str
    model: str
    annotation: str
    split: str
    crops: str
    pixels: str
    alignment: str
    points: int
    dimensions: int
    bins: dict[tuple[float, float], Spread]
    of_bins: Spread
    of_faces: Spread
    missing: int
    errors: Array
    yaw: Array


@dataclass(frozen=True)
class PoseTable:
    """Mean absolute errors of a head pose in degrees.

    Attributes
    ----------
    data, model, crops, convention : str
    yaw, pitch, roll, mean : float
    faces, beyond, missing : int
        Measured; left out because an angle is beyond `STEEPEST`; not found.
    """

    data: str
    model: str
    crops: str
    convention: str
    yaw: float
    pitch: float
    roll: float
    mean: float
    faces: int
    beyond: int
    missing: int


def points_21(landmarks: ArrayLike) -> Array:
    """AFLW's 21 points from 68 landmarks: (..., 68, D) to (..., 21, D); eyes and mouth are means of theirs."""
    given = np.asarray(landmarks, np.float64)
    return np.stack([given[..., list(which), :].mean(axis=-2) for which in LANDMARKS_OF_21], axis=-2)


def aligned_nme_3d(predicted: ArrayLike, given: ArrayLike) -> Array:
    """RADAN's 3D error: each axis stretched to the given points' range, over the cube root of their box's volume.

    Parameters
    ----------
    predicted, given : (..., 68, 3) array_like
        In any pixels, third axes of one direction.

    Returns
    -------
    (...) float64
        A part of the face's size.
    """
    p, g = (np.asarray(points, np.float64) for points in (predicted, given))
    low, span = g.min(axis=-2, keepdims=True), np.ptp(g, axis=-2, keepdims=True)
    stretched = (p - p.min(axis=-2, keepdims=True)) / np.ptp(p, axis=-2, keepdims=True) * span + low
    sizes = np.cbrt(np.prod(span, axis=(-2, -1)))
    return np.asarray(np.linalg.norm(stretched - g, axis=-1).mean(axis=-1) / sizes)


def score(faces: LabelledFaces, answers: Answers, model: str, crops: str, pixels: str) -> list[Table]:
    """All tables of a data set: each annotation by each split, and in 3D where both sides have a depth."""
    tables = []
    for annotation in faces.annotations:
        count = annotation.points.shape[1]
        said = points_21(answers.landmarks) if count == 21 else answers.landmarks
        measured = [(2, NONE, nme(said, annotation.points, annotation.sizes))]
        # Points without depth, or without an extent, are no 3D ones.
        if annotation.points.shape[2] == said.shape[2] == 3 and np.ptp(annotation.points, axis=1).all():
            measured.append((3, PER_AXIS, aligned_nme_3d(said, annotation.points)))
        for dimensions, alignment, errors in measured:
            percent = 100 * np.where(answers.found, errors, np.nan)
            known = np.isfinite(percent)
            for split, yaw in faces.yaws.items():
                bins = by_yaw_3ddfa(percent[known], yaw[known])
                tables.append(
                    Table(
                        faces.name,
                        model,
                        annotation.name,
                        split,
                        crops,
                        pixels,
                        alignment,
                        count,
                        dimensions,
                        bins,
                        spread_of_bins(bins),
                        spread(percent[known]),
                        int((~known).sum()),
                        percent,
                        yaw,
                    )  # fmt: skip
                )
    return tables


def rotations_of_poses(poses: ArrayLike) -> Array:
    """``Pose_Para`` angles pitch, yaw, roll (N, 3) in radians to rotations (N, 3, 3); see this module's head."""
    angles = np.asarray(poses, np.float64).reshape(-1, 3)
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    one, zero = np.ones(len(angles)), np.zeros(len(angles))
    x = [[one, zero, zero], [zero, cx, sx], [zero, -sx, cx]]
    y = [[cy, zero, -sy], [zero, one, zero], [sy, zero, cy]]
    z = [[cz, sz, zero], [-sz, cz, zero], [zero, zero, one]]
    matrices = [np.moveaxis(np.array(m), 2, 0) for m in (x, y, z)]
    return np.asarray(matrices[0] @ matrices[1] @ matrices[2])


def poses_of_rotations(rotations: ArrayLike) -> Array:
    """Inverse of `rotations_of_poses`: (N, 3, 3) to pitch, yaw, roll (N, 3), yaw within +-90 degrees."""
    r = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    pitch = np.arctan2(r[:, 1, 2], r[:, 2, 2])
    yaw = np.arctan2(-r[:, 0, 2], np.hypot(r[:, 0, 0], r[:, 0, 1]))
    return np.stack([pitch, yaw, np.arctan2(r[:, 0, 1], r[:, 0, 0])], axis=1)


def our_angles(rotations: ArrayLike) -> Array:
    """Yaw, pitch, roll of `pose.euler_from_rotation` (N, 3) in radians, of rotations (N, 3, 3) as in `Answers`."""
    given = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    return np.array([euler_from_rotation(head_rotation(_OPTICAL @ r)) for r in given]).reshape(-1, 3)


def score_poses(faces: LabelledFaces, answers: Answers, model: str, crops: str) -> list[PoseTable]:
    """Mean absolute errors of the head pose in both conventions; none where either side has no poses."""
    if faces.poses is None or answers.rotations is None:
        return []
    within = (np.abs(np.degrees(faces.poses)) <= STEEPEST).all(axis=1)
    found = np.isfinite(answers.rotations).all(axis=(1, 2))
    used = within & found
    true = faces.poses[used]
    said = poses_of_rotations(answers.rotations[used])
    both = (
        ("Pose_Para of AFLW2000-3D", said[:, [1, 0, 2]], true[:, [1, 0, 2]]),
        ("ours (docs/conventions.md)", our_angles(answers.rotations[used]), our_angles(rotations_of_poses(true))),
    )
    tables = []
    for convention, a, b in both:
        apart = np.abs((np.degrees(a - b) + 180) % 360 - 180)
        yaw, pitch, roll = (float(v) for v in apart.mean(axis=0)) if used.any() else (float("nan"),) * 3
        tables.append(
            PoseTable(
                faces.name,
                model,
                crops,
                convention,
                yaw,
                pitch,
                roll,
                (yaw + pitch + roll) / 3,
                int(used.sum()),
                int((~within).sum()),
                int((within & ~found).sum()),
            )  # fmt: skip
        )
    return tables


def text_of(tables: Sequence[Table], poses: Sequence[PoseTable]) -> str:
    """The tables as 3DDFA prints them: yaw, faces, mean and std in percent; last the mean of the bins and their std."""
    lines = []
    for table in tables:
        lines += [
            f"{table.data}, model {table.model}: annotation {table.annotation}, {table.points} points in "
            f"{table.dimensions}D, split by {table.split},",
            f"  crops: {table.crops}; pixels: {table.pixels}; alignment: {table.alignment}"
            + (f"; {table.missing} faces missing" if table.missing else ""),
            f"{'yaw':>10}{'faces':>8}{'mean, %':>10}{'std':>8}",
        ]
        for (low, high), values in table.bins.items():
            figures = f"{values.mean:10.3f}{values.std:8.3f}" if values.count else f"{'-':>10}{'-':>8}"
            lines.append(f"{f'[{low:g}, {high:g}]':>10}{values.count:8}{figures}")
        both, all_ = table.of_bins, table.of_faces
        lines += [
            f"{'[0, 90]':>10}{all_.count:8}{both.mean:10.3f}{both.std:8.3f}   over the bins' means",
            f"{'all faces':>10}{all_.count:8}{all_.mean:10.3f}{all_.std:8.3f}   median {all_.median:.3f}",
            "",
        ]
    for pose in poses:
        lines += [
            f"{pose.data}, model {pose.model}: head pose, angles: {pose.convention}; crops: {pose.crops}",
            f"  mean absolute error, degrees: yaw {pose.yaw:.2f}, pitch {pose.pitch:.2f}, roll {pose.roll:.2f}, "
            f"mean {pose.mean:.2f}; {pose.faces} faces, {pose.beyond} beyond +-{STEEPEST:g} degrees left out"
            + (f", {pose.missing} missing" if pose.missing else ""),
            "",
        ]
    return "\n".join(lines).rstrip()


def known_or_none(value: Any) -> Any:
    """JSON has no NaN: None for a float that is not finite, anything else as it is."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def as_json(table: Table | PoseTable) -> dict[str, Any]:
    """A table as JSON takes it: None for what is not known; without the single faces."""
    plain = {k: v for k, v in vars(table).items() if k not in ("bins", "errors", "yaw") or isinstance(v, float)}
    rows = {k: _spread(v) if isinstance(v, Spread) else known_or_none(v) for k, v in plain.items()}
    if isinstance(table, Table):
        rows["bins"] = [{"yaw": list(ends), **_spread(values)} for ends, values in table.bins.items()]
    return rows


def _spread(values: Spread) -> dict[str, Any]:
    return {name: known_or_none(value) for name, value in vars(values).items()}
