"""Where the built-in model fails: one photograph made harder step by step, into docs/images/failures.jpg.

usage: failures.py [MODEL] [--out FILE]

The crop is where a follower would have it, so what is seen is the network alone. Above each answer: the mean distance
of its 68 landmarks from those on the untouched photograph, moved along, in percent of the face's size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from radan_ros import Pipeline, drawing, open_detector, open_model
from radan_ros.boxes import square_from_landmarks
from radan_ros.face import Face
from radan_ros.training.pictures import draw_outline

Image = NDArray[np.uint8]
SIDE = 240  # pixels of a picture on the sheet
SHOWN = 1.5  # times the square of the landmarks is shown


def turned(image: Image, points: NDArray[np.float32], degrees: float) -> tuple[Image, NDArray[np.float32]]:
    """Image and points (68, 2) turned in the plane about the middle of the points."""
    x, y = points.mean(axis=0).tolist()
    matrix = cv2.getRotationMatrix2D((x, y), degrees, 1.0)
    size = (image.shape[1], image.shape[0])
    rotated = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(rotated, np.uint8), (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def coarse(image: Image, side: float, pixels: float) -> Image:
    """As if the face had been so many pixels large."""
    size = (image.shape[1], image.shape[0])
    factor = pixels / side
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def dark(image: Image, share: float) -> Image:
    """So much of the light, with a camera's noise, then brightened up again."""
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    seen = np.clip(np.rint(image * share + noise), 0, 255)
    return np.clip(seen / share, 0, 255).astype(np.uint8)


def covered(image: Image, points: NDArray[np.float32], low: float, high: float) -> Image:
    """A grey board before the face from one share of its height to another."""
    left, top = points.min(axis=0) - 20
    right, bottom = points.max(axis=0) + 20
    result = image.copy()
    rows = [int(top + share * (bottom - top)) for share in (low, high)]
    result[rows[0] : rows[1], int(left) : int(right)] = (110, 120, 130)
    return result


def close_up(
    pipeline: Pipeline, image: Image, face: Face, middle: NDArray[np.float32], side: float, label: str
) -> Image:
    """The part of an image around a face, with its landmarks and the outline of its mesh."""
    scale = SIDE / (SHOWN * side)
    offset = SIDE / 2 - scale * middle
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    shown = np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA), np.uint8)
    moved = [scale * points + [*offset, 0] for points in (pipeline.vertices([face])[0], face.landmarks)]
    shown = draw_outline(shown, moved[0], pipeline.model.face_model.triangles)
    shown = drawing.draw_landmarks(shown, moved[1][:, :2])
    return drawing.draw_label(shown, label, (0, 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="model folder; without it the built-in model")
    parser.add_argument("--out", type=Path, default=Path("docs/images/failures.jpg"))
    options = parser.parse_args()
    model = open_model(options.model)
    pipeline = Pipeline(model, open_detector("dlib_hog"))
    image = np.ascontiguousarray(cv2.resize(data.astronaut()[..., ::-1], None, fx=2, fy=2))
    first = pipeline(image)[0]
    truth = pipeline.regress(image, [square_from_landmarks(first.landmarks)])[0].landmarks[:, :2]
    square = square_from_landmarks(truth)
    side = float(square[2] - square[0])
    cases: list[tuple[str, Callable[[], tuple[Image, NDArray[np.float32]]]]] = [
        ("as it is", lambda: (image, truth)),
        *((f"turned {d}", lambda d=d: turned(image, truth, d)) for d in (30, 60, 90, 180)),
        *((f"{p} pixels", lambda p=p: (coarse(image, side, p), truth)) for p in (24, 16, 10)),
        *((f"1/{n} of the light", lambda n=n: (dark(image, 1 / n), truth)) for n in (10, 40)),
        ("eyes covered", lambda: (covered(image, truth, 0.15, 0.45), truth)),
        ("mouth covered", lambda: (covered(image, truth, 0.6, 1.05), truth)),
    ]
    pictures = []
    for name, make in cases:
        picture, points = make()
        answer = pipeline.regress(picture, [square_from_landmarks(points)])[0]
        size = np.sqrt(np.ptp(points, axis=0).prod())
        error = np.linalg.norm(answer.landmarks[:, :2] - points, axis=1).mean() / size
        pictures.append(close_up(pipeline, picture, answer, points.mean(axis=0), side, f"{name}: {100 * error:.1f} %"))
        print(f"{name:20} {100 * error:5.1f} % of the face's size")
    sheet = np.vstack([np.hstack(pictures[i : i + 4]) for i in range(0, len(pictures), 4)])
    cv2.imwrite(str(options.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
