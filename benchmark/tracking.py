"""Tracks on clips of two people made from clips of one: ids, gaps, detector runs, and what the detector's thread costs.

usage: tracking.py [FOLDER] [--model MODEL] [--retain SECONDS] [--deterministic] [--sheets FOLDER]

FOLDER holds the clips s18.mp4, obama.mp4, d10.mp4, d12.mp4 and d20.mp4. Images come at the clip's own pace, so that the
detector's answers are as late as with a camera. Where the faces truly are is known from the clips they were made from.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros import Pipeline, boxes, drawing, open_detector, open_model
from radan_ros.tracking import Tracker, TrackerSettings

Image = NDArray[np.uint8]
RATE = 30.0
SAME = 0.15  # mean distance of landmarks, in sides of the face's box, up to which a track is on a person's face
HIDDEN = 0.5  # share of a face that is covered up to which it is to be found
OUTSIDE = 0.2  # the same for the share outside the image


@dataclass
class Person:
    """A clip of one face.

    Attributes
    ----------
    images : list of (H, W, 3) uint8
    points : (images, 68, 2) float32
        Landmarks as the network answers them in this clip alone.
    """

    images: list[Image]
    points: NDArray[np.float32]


@dataclass
class Scene:
    """One image of a made clip, each person's landmarks (68, 2) in it, and whether they are to be found."""

    image: Image
    truth: list[NDArray[np.float32]]
    visible: list[bool]


def person(pipeline: Pipeline, path: Path, side: float, count: int) -> Person:
    """Read a clip, scaled so that the square of its first face is `side` pixels wide; it runs to and fro."""
    capture = cv2.VideoCapture(str(path))
    images: list[Image] = []
    points: list[NDArray[np.float32]] = []
    scale, square = 0.0, np.zeros(4, np.float32)
    while len(images) < count:
        read, image = capture.read()
        if not read:
            break
        if not images:
            [face, *_] = pipeline(image, two_step=True)
            scale = side / float(face.roi[2] - face.roi[0])
            square = face.roi * np.float32(scale)
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        [face] = pipeline.regress(image, [square])
        square = boxes.square_from_landmarks(face.landmarks)
        images.append(image)
        points.append(face.landmarks[:, :2])
    if not images:
        raise SystemExit(f"{path} cannot be read")
    order = [k if k < len(images) else 2 * len(images) - 1 - k for k in range(min(count, 2 * len(images)))]
    return Person([images[k] for k in order], np.stack([points[k] for k in order]))


def side_by_side(left: Person, right: Person) -> Iterator[Scene]:
    """Two people beside each other."""
    for a, b, p, q in zip(left.images, right.images, left.points, right.points, strict=False):
        height = max(len(a), len(b))
        padded = [cv2.copyMakeBorder(i, 0, height - len(i), 0, 0, cv2.BORDER_REPLICATE) for i in (a, b)]
        image = np.asarray(np.hstack(padded), np.uint8)
        yield Scene(image, [p, q + np.array([a.shape[1], 0], np.float32)], [True, True])


def passing(behind: Person, before: Person, speed: float) -> Iterator[Scene]:
    """One person walks through the image, in front of another one, at a speed in pixels an image; and back."""
    height, width = behind.images[0].shape[:2]
    middle = behind.points[0].mean(axis=0)
    span = min(middle[0], width - middle[0]) + 40
    for k, (image, under, over, points) in enumerate(
        zip(behind.images, behind.points, before.images, before.points, strict=False)
    ):
        way = (speed * k) % (4 * span)
        x = middle[0] + (way - span if way < 2 * span else 3 * span - way)
        shift = np.array([x, middle[1]], np.float32) - before.points[0].mean(axis=0)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
        moved = points + shift
        mask = np.zeros((height, width), np.float32)
        low, high = moved.min(axis=0), moved.max(axis=0)
        w, h = high - low  # the head reaches as far above the brows as the chin is under the mouth, and more
        centre, axes = ((low + high) / 2 - [0, 0.15 * h]).tolist(), (0.62 * w, 0.78 * h)
        cv2.ellipse(mask, (centre, (2 * axes[0], 2 * axes[1]), 0.0), 1.0, -1)
        soft = cv2.GaussianBlur(mask, (0, 0), 0.03 * float(w))[..., None]
        front = cv2.warpAffine(over, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        mixed = np.asarray(np.rint(front * soft + image * (1 - soft)), np.uint8)
        inside = np.clip(moved.astype(int), 0, [width - 1, height - 1])
        outside = float((np.abs(moved - inside) > 1).any(axis=1).mean())
        covered = np.clip(under.astype(int), 0, [width - 1, height - 1])
        hidden = float(mask[covered[:, 1], covered[:, 0]].mean())
        yield Scene(mixed, [under, moved], [hidden <= HIDDEN, outside <= OUTSIDE])


def behind_a_post(walker: Person, speed: float) -> Iterator[Scene]:
    """One person walks through the image behind a post that is as wide as the face, at a speed in pixels an image."""
    height, width = walker.images[0].shape[:2]
    side = float(np.ptp(walker.points[0], axis=0).max())
    post = slice(round(width / 2 - side / 2), round(width / 2 + side / 2))
    for k, (image, points) in enumerate(zip(walker.images, walker.points, strict=False)):
        shift = 0.2 * width + speed * k - float(walker.points[0][:, 0].mean())
        if shift + float(walker.points[0][:, 0].mean()) > 0.85 * width:
            break
        matrix = np.array([[1, 0, shift], [0, 1, 0]], np.float64)
        moved = np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
        moved[:, post] = (90, 100, 105)
        there = points + np.array([shift, 0], np.float32)
        hidden = float(((there[:, 0] >= post.start) & (there[:, 0] < post.stop)).mean())
        yield Scene(moved, [there], [hidden <= HIDDEN])


def blanked(scenes: Iterator[Scene], every: int, length: int) -> Iterator[Scene]:
    """The same with the camera covered for some images now and then."""
    for k, scene in enumerate(scenes):
        if k >= every and k % every < length:
            yield Scene(np.full_like(scene.image, 60), [], [False] * len(scene.visible))
        else:
            yield scene


@dataclass
class Result:
    """What a tracker made of a clip.

    Attributes
    ----------
    switches : int
        Times that a person was reported under another id than before.
    missed, visible : int
        Images times people that should have been reported: without a track, and in all.
    wrong : int
        Images times tracks that are on no face, a covered one included.
    waits : list of float
        Seconds without a track after a person had come into view.
    beside, alone : list of float
        Seconds a call took while a detection ran, and without one.
    """

    ids: set[int] = field(default_factory=set)
    switches: int = 0
    missed: int = 0
    visible: int = 0
    wrong: int = 0
    waits: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    detections: int = 0
    detector_seconds: float = float("nan")


def run(tracker: Tracker, scenes: list[Scene], *, paced: bool = True, shown: list[Image] | None = None) -> Result:
    """Play a clip to a tracker and compare; the images with the tracks drawn in are added to `shown`."""
    result = Result()
    known: dict[int, int] = {}
    waiting: dict[int, float] = {}
    before = [False] * len(scenes[0].visible)
    start, first = time.perf_counter(), tracker.detections
    for k, scene in enumerate(scenes):
        stamp = k / RATE
        if paced:
            time.sleep(max(0.0, start + stamp - time.perf_counter()))
        busy, began = tracker.detecting, time.perf_counter()
        tracks = tracker(scene.image, 100 + stamp)
        took = time.perf_counter() - began
        (result.beside if busy or tracker.detecting else result.alone).append(took)
        result.ids |= {track.id for track in tracks}
        owners = assign([track.raw.landmarks[:, :2] for track in tracks], scene.truth)
        result.wrong += owners.count(None)
        for who, visible in enumerate(scene.visible):
            if not visible:
                before[who] = False
                waiting.pop(who, None)
                continue
            result.visible += 1
            if not before[who]:
                waiting[who] = stamp
            before[who] = True
            if who not in owners:
                result.missed += 1
                continue
            if who in waiting:
                result.waits.append(stamp - waiting.pop(who))
            seen = tracks[owners.index(who)].id
            if known.setdefault(who, seen) != seen:
                result.switches += 1
                known[who] = seen
        if shown is not None:
            picture = scene.image.copy()
            for track in tracks:
                picture = drawing.draw_landmarks(picture, track.face.landmarks[:, :2])
                picture = drawing.draw_label(picture, str(track.id), (int(track.face.box[0]), int(track.face.box[1])))
            shown.append(picture)
    result.detections = tracker.detections - first
    result.detector_seconds = tracker.detector_seconds
    return result


def assign(answers: list[NDArray[np.float32]], truth: list[NDArray[np.float32]]) -> list[int | None]:
    """Whose face each answer is on, the nearest pairs first and nobody's twice."""
    owners: list[int | None] = [None] * len(answers)
    pairs = []
    for i, points in enumerate(answers):
        for who, there in enumerate(truth):
            side = float(np.sqrt(np.ptp(there, axis=0).prod()))
            pairs.append((float(np.linalg.norm(points - there, axis=1).mean()) / side, i, who))
    for distance, i, who in sorted(pairs):
        if distance < SAME and owners[i] is None and who not in owners:
            owners[i] = who
    return owners


def clips(pipeline: Pipeline, folder: Path, count: int) -> Iterator[tuple[str, Iterator[Scene]]]:
    """All made clips by name."""

    def read(name: str, side: float) -> Person:
        return person(pipeline, folder / f"{name}.mp4", side, count)

    d10, d12 = read("d10", 200), read("d12", 200)
    yield "side by side", side_by_side(d10, d12)
    yield "side by side, dark for 0.2 s", blanked(side_by_side(d10, d12), 40, 6)
    yield "side by side, dark for 0.4 s", blanked(side_by_side(d10, d12), 40, 12)
    small = read("s18", 120)
    for speed in (6.0, 10.0, 15.0):
        yield f"s18 walks behind a post, {speed:.0f} px an image", behind_a_post(small, speed)
    for behind, before in (("s18", "d20"), ("obama", "d10"), ("s18", "d12")):
        back, front = read(behind, 160), read(before, 170)
        for speed in (4.0, 8.0, 14.0):
            yield f"{before} passes {behind}, {speed:.0f} px an image", passing(back, front, speed)


def sheet(images: list[Image]) -> Image:
    """Up to 40 of the images, small, eight in a row."""
    small = [cv2.resize(i, (320, round(320 * i.shape[0] / i.shape[1]))) for i in images[:: -(-len(images) // 40)]]
    small += [np.zeros_like(small[0])] * (-len(small) % 8)
    return np.asarray(np.vstack([np.hstack(small[i : i + 8]) for i in range(0, len(small), 8)]), np.uint8)


def milliseconds(samples: list[float]) -> str:
    """Median and largest."""
    return f"{1e3 * np.median(samples):.1f}, {1e3 * max(samples):.1f}" if samples else "-"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared" / "video"
    parser.add_argument("folder", type=Path, nargs="?", default=shared, help="folder of the clips (../shared/video)")
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument("--retain", type=float, default=TrackerSettings.retain)
    parser.add_argument("--images", type=int, default=150, help="length of a clip")
    parser.add_argument("--only", default="", help="part of the names of the clips to run")
    parser.add_argument("--deterministic", action="store_true", help="the detector in line, images without pauses")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of images with the tracks drawn in")
    options = parser.parse_args()
    if not options.folder.is_dir():
        print(f"skipped: no clips in {options.folder}")
        return 0
    pipeline = Pipeline(open_model(options.model, device="cpu"), open_detector("dlib_hog", min_face=60))
    settings = TrackerSettings(retain=options.retain, deterministic=options.deterministic)
    heads = (
        "clip", "ids", "switches", "missed of visible", "wrong", "until seen, s: p50, worst", "detections",
        "detector ms", "call ms: p50, worst", "beside a detection",
    )  # fmt: skip
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for name, scenes in clips(pipeline, options.folder, options.images):
        if options.only not in name:
            continue
        shown: list[Image] = []
        tracker = Tracker(pipeline, settings)
        try:
            r = run(tracker, list(scenes), paced=not options.deterministic, shown=shown if options.sheets else None)
        finally:
            tracker.close()
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(options.sheets / f"{name.replace(',', '').replace(' ', '_')}.png"), sheet(shown))

        waits = f"{np.median(r.waits):.2f}, {max(r.waits):.2f}" if r.waits else "-"
        columns = (
            name, len(r.ids), r.switches, f"{r.missed} of {r.visible}", r.wrong, waits, r.detections,
            f"{1e3 * r.detector_seconds:.0f}", milliseconds(r.alone), milliseconds(r.beside),
        )  # fmt: skip
        print("| " + " | ".join(str(column) for column in columns) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
