#!/usr/bin/env python3
"""Jitter and lag of the smoothed faces against the unsmoothed ones, on clips of real heads.

The faces of each clip are followed once, without smoothing, and smoothed by their stamps. Beside that, for comparison,
a One Euro filter on the landmarks (Casiez et al., CHI 2012), once as calm as ours at rest, once about as quick in
motion. All in face sizes: the root of the area of the landmarks' box, median over the clip.

jitter   Root mean square of the second difference of the 68 landmarks (from one image to the next, x and y), over all
         landmarks and images where the landmark rests: where its track, without what changes from one image to the
         next (`REST_SIGMA`), stays within `REST_SPAN` for `REST_TIME` before and after. Elsewhere a second difference
         is motion as much as jitter: these heads shake, speak and pull faces, and some clips repeat every fourth image.
         "All" is the same over all of them.
lag      The shift of the unsmoothed tracks, in images, at which they are nearest to the smoothed ones (sum of squares;
         cubic interpolation), over all landmarks and images that move: slowly at 0.05 to 0.3 sizes a second, fast
         above. Both are first freed of their jitter by the same symmetric low-pass.
kept     Of how far the mouth and the eyes open and close, from each end of a movement to the next, the share that the
         smoothed ones do (within `LATE` images). Blinks of a few images are what a filter loses first.
off      Root mean square distance of the two tracks without their jitter: lag, and what the steady shape changes.

usage: python benchmark/smoothing.py [MODEL] [--strength S] [--clips FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d
from scipy.signal import find_peaks

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from radan_ros import Model, Pipeline, open_detector, open_model  # noqa: E402
from radan_ros.boxes import square_from_landmarks  # noqa: E402
from radan_ros.face import Face  # noqa: E402
from radan_ros.pose import decompose_camera, euler_from_rotation, head_rotation  # noqa: E402
from radan_ros.smoothing import FaceSmoother, Smoothing  # noqa: E402

Array = NDArray[np.float64]

# The clip, and how many images of it are one shot.
CLIPS = {
    "d10.mp4": None,
    "d12.mp4": None,
    "d20.mp4": None,
    "s18.mp4": None,
    "obama.mp4": 55,
    "head-pose-face-detection-male.gif": None,
}
DRAWN = {"obama.mp4": slice(0, 55), "d20.mp4": slice(0, 110)}
REST_SIGMA, REST_SPAN, REST_TIME = 1.0, 0.02, 0.1  # images, face sizes, seconds
SLOW, FAST = 0.05, 0.3  # face sizes a second
SPEED_SIGMA = 2.0  # images
LATE = 3
LIPS = ((61, 67), (62, 66), (63, 65))  # upper, lower
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
MOUTH_MOVES, EYE_MOVES = 0.03, 0.012  # face sizes: smaller openings and closings do not count
ONE_EURO = {"One Euro, as calm": (1.0, 3.0), "One Euro, as quick": (1.0, 12.0)}  # Hz at rest, Hz for a size a second


@dataclass(frozen=True)
class Measures:
    """What a filter does to a clip (see the top of the file); NaN where the clip has nothing to measure it on."""

    jitter: float  # percent of the face size, unsmoothed
    left: float  # the same, smoothed
    falls: float  # percent
    falls_all: float
    lag_slow: float  # images
    lag_fast: float
    mouth: float  # percent kept
    eyes: float
    off: float  # percent of the face size


def read_clip(path: Path, limit: int | None = None) -> tuple[list[NDArray[np.uint8]], float]:
    """Images (H, W, 3) uint8 BGR of a clip, and their rate in Hz."""
    capture = cv2.VideoCapture(str(path))
    rate, images = capture.get(cv2.CAP_PROP_FPS), []
    while limit is None or len(images) < limit:
        read, image = capture.read()
        if not read:
            break
        images.append(np.asarray(image, np.uint8))
    if not images:
        raise ValueError(f"{path}: no clip that can be read")
    return images, rate


def follow(pipeline: Pipeline, images: Sequence[NDArray[np.uint8]]) -> list[Face]:
    """The surest face of the first image, followed by its own landmarks."""
    face = pipeline(images[0], two_step=True)[0]
    faces = []
    for image in images:
        face = pipeline.regress(image, [square_from_landmarks(face.landmarks)])[0]
        faces.append(face)
    return faces


def landmarks(faces: Sequence[Face]) -> Array:
    """Tracks of the landmarks in the image, (n, 68, 2)."""
    return np.stack([face.landmarks[:, :2] for face in faces]).astype(np.float64)


def face_size(tracks: Array) -> float:
    """Root of the area of the landmarks' box, median over the images (n, 68, 2)."""
    return float(np.median(np.sqrt(np.prod(np.ptp(tracks, axis=1), axis=1))))


def resting(tracks: Array, rate: float) -> NDArray[np.bool_]:
    """Which landmarks (n, 68) rest; `tracks` in face sizes."""
    calm = gaussian_filter1d(tracks, REST_SIGMA, axis=0)
    window = 2 * max(2, round(REST_TIME * rate)) + 1
    span = np.linalg.norm(maximum_filter1d(calm, window, axis=0) - minimum_filter1d(calm, window, axis=0), axis=-1)
    return np.asarray(span < REST_SPAN)


def jitter(tracks: Array, where: NDArray[np.bool_] | None = None) -> float:
    """Root mean square second difference of tracks (n, 68, 2), of the landmarks and images (n, 68) `where`."""
    squares = np.sum(np.diff(tracks, 2, axis=0) ** 2, axis=-1)
    return float(np.sqrt(np.mean(squares if where is None else squares[where[1:-1]])))


def lag(tracks: Array, smoothed: Array, rate: float, slowest: float, fastest: float = np.inf) -> float:
    """By how many images the smoothed tracks come later, where landmarks move at these speeds; all in face sizes."""
    images = np.arange(len(tracks))
    before, after = (gaussian_filter1d(t, REST_SIGMA, axis=0) for t in (tracks, smoothed))
    speed = np.linalg.norm(np.gradient(gaussian_filter1d(tracks, SPEED_SIGMA, axis=0), axis=0), axis=-1) * rate
    moving = (speed > slowest) & (speed <= fastest)
    moving[:5] = False  # the filter has only begun
    if moving.mean() < 0.005:
        return float("nan")
    path, shifts = CubicSpline(images, before, axis=0), np.arange(-20, 121) / 20
    missed = [np.sum((after - path(np.clip(images - s, 0, None)))[moving] ** 2) for s in shifts]
    return float(shifts[int(np.argmin(missed))])


def opening(tracks: Array, pairs: Sequence[tuple[int, int]]) -> Array:
    """Mean distance of pairs of landmarks, (n,)."""
    upper, lower = np.transpose(pairs)
    return np.asarray(np.linalg.norm(tracks[:, upper] - tracks[:, lower], axis=-1).mean(axis=1))


def kept(before: Array, after: Array, least: float) -> float:
    """Share of the movements of at least `least` in `before` that `after` still makes, in percent."""
    tops, bottoms = (find_peaks(sign * before, prominence=least)[0] for sign in (1, -1))
    ends = sorted([(i, np.max) for i in tops] + [(i, np.min) for i in bottoms], key=lambda end: end[0])
    full = seen = 0.0
    for (i, first), (j, second) in zip(ends, ends[1:], strict=False):
        if first is not second:
            full += abs(before[j] - before[i])
            seen += abs(second(after[j : j + LATE + 1]) - first(after[i : i + LATE + 1]))
    return 100 * seen / full if full else float("nan")


def measure(tracks: Array, smoothed: Array, rate: float) -> Measures:
    """Compare tracks (n, 68, 2) in pixels, unsmoothed and smoothed."""
    size = face_size(tracks)
    before, after = tracks / size, smoothed / size
    rest = resting(before, rate)
    still, left = jitter(before, rest), jitter(after, rest)
    apart = gaussian_filter1d(after - before, SPEED_SIGMA, axis=0)
    return Measures(
        100 * still,
        100 * left,
        100 * (1 - left / still),
        100 * (1 - jitter(after) / jitter(before)),
        lag(before, after, rate, SLOW, FAST),
        lag(before, after, rate, FAST),
        kept(opening(before, LIPS), opening(after, LIPS), MOUTH_MOVES),
        kept(opening(before, LIDS), opening(after, LIDS), EYE_MOVES),
        100 * float(np.sqrt(np.mean(np.sum(apart**2, axis=-1)))),
    )


def smooth(faces: Sequence[Face], rate: float, model: Model, smoothing: Smoothing) -> list[Face]:
    """The faces of a clip, smoothed one after the other."""
    smoother = FaceSmoother(model.face_model, smoothing)
    return [smoother(face, i / rate) for i, face in enumerate(faces)]


def one_euro(tracks: Array, rate: float, rest: float, speed: float) -> Array:
    """A One Euro filter on each landmark; the derivative's cutoff is 1 Hz, as its authors have it."""
    size = face_size(tracks)
    state, derivative, out = tracks[0], np.zeros_like(tracks[0]), [tracks[0]]
    for last, new in zip(tracks, tracks[1:], strict=False):
        derivative = derivative + -np.expm1(-2 * np.pi / rate) * ((new - last) * rate / size - derivative)
        cutoff = rest + speed * np.linalg.norm(derivative, axis=-1, keepdims=True)
        state = state - np.expm1(-2 * np.pi * cutoff / rate) * (new - state)
        out.append(state)
    return np.stack(out)


def draw(path: Path, clips: dict[str, tuple[list[Face], list[Face], float, Measures]]) -> None:
    """Nose, yaw and mouth of clips before and after, over the images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(3, len(clips), sharex="col", squeeze=False)
    rows: list[tuple[str, Callable[[list[Face], float], Array]]] = [
        ("tip of the nose, x, face sizes", lambda f, size: landmarks(f)[:, 30, 0] / size),
        ("yaw, degrees", lambda f, size: np.array([np.degrees(_yaw(face)) for face in f])),
        ("mouth opening, face sizes", lambda f, size: opening(landmarks(f), LIPS) / size),
    ]
    for column, (name, (before, after, rate, m)) in zip(axes.T, clips.items(), strict=True):
        size, part = face_size(landmarks(before)), DRAWN[name]
        images = np.arange(len(before))[part]
        for axis, (label, of) in zip(column, rows, strict=True):
            values = [of(faces, size) for faces in (before, after)]
            offset = values[0][part].mean() if "nose" in label else 0.0
            axis.plot(images, values[0][part] - offset, color="tab:grey", linewidth=1, marker=".", markersize=3)
            axis.plot(images, values[1][part] - offset, color="tab:red", linewidth=1.4)
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        column[0].legend(["as the network sees it", "smoothed"])
        column[0].set_title(
            f"{name.split('.')[0]}: jitter at rest {m.jitter:.2f} % of the face to {m.left:.2f} % (-{m.falls:.0f} %),\n"
            f"lag {m.lag_slow:.1f} images in slow and {m.lag_fast:.1f} in fast motion"
        )
        column[-1].set_xlabel(f"image ({rate:.0f} a second)")
    figure.savefig(path, dpi=100)


def _yaw(face: Face) -> float:
    return euler_from_rotation(head_rotation(decompose_camera(face.camera).rotation))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="model folder; without it the built-in model")
    parser.add_argument("--strength", type=float, default=1.0, help="of the smoothing (1)")
    parser.add_argument("--clips", type=Path, default=HERE.parents[1] / "shared" / "video", help="folder of the clips")
    parser.add_argument("--out", type=Path, help="write the plot here, for example to docs/images/smoothing.png")
    options = parser.parse_args()
    if not options.clips.is_dir():
        print(f"skipped: no clips in {options.clips}")
        return
    model = open_model(options.model, device="cpu", threads=1)
    pipeline, smoothing = Pipeline(model, open_detector("dlib_hog")), Smoothing(options.strength)
    drawn, table, spent, count = {}, {}, 0.0, 0
    for name, limit in CLIPS.items():
        images, rate = read_clip(options.clips / name, limit)
        faces = follow(pipeline, images)
        tracks = landmarks(faces)
        start = time.perf_counter()
        smoothed = smooth(faces, rate, model, smoothing)
        spent, count = spent + time.perf_counter() - start, count + len(faces)
        ours = measure(tracks, landmarks(smoothed), rate)
        table[name] = {"ours": ours} | {
            label: measure(tracks, one_euro(tracks, rate, *setting), rate) for label, setting in ONE_EURO.items()
        }
        if name in DRAWN:
            drawn[name] = (faces, smoothed, rate, ours)
    for label in ("ours", *ONE_EURO):
        print(f"\n{label:20}" + "".join(f"{f.name:>10}" for f in fields(Measures)))
        for name, results in table.items():
            print(f"{name[:18]:20}" + "".join(f"{value:10.2f}" for value in astuple(results[label])))
    print(f"\n{1e6 * spent / count:.0f} us a face")
    if options.out is not None:
        draw(options.out, drawn)


if __name__ == "__main__":
    main()
