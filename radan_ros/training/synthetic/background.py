"""What is behind the head: pictures made of gradients, shapes, noise and letters, or patches of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
_LONGEST = 400  # pixels; photographs are kept no larger


def read_photographs(folder: str | Path, limit: int) -> list[Picture]:
    """Read photographs (BGR) of a folder, in the order of their names, each reduced to 400 pixels at most.

    Raises
    ------
    ValueError
        Names the folder when it is none, or no picture in it can be read.
    """
    import cv2

    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"folder of backgrounds {root} does not exist or is no folder")
    names = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp"))
    pictures = []
    for name in names[:: max(1, len(names) // max(limit, 1))][:limit]:
        picture = cv2.imread(str(name), cv2.IMREAD_COLOR)
        if picture is None or min(picture.shape[:2]) < 32:
            continue
        factor = _LONGEST / max(picture.shape[:2])
        if factor < 1:
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        pictures.append(np.ascontiguousarray(picture))
    if not pictures:
        raise ValueError(f"folder of backgrounds {root}: no picture in it can be read")
    return pictures


def patch_of_photograph(rng: np.random.Generator, photographs: list[Picture], side: int) -> Picture:
    """A random square of a random photograph, at most half as large as it, so that it hardly shows a whole face."""
    import cv2

    picture = photographs[rng.integers(len(photographs))]
    shorter = min(picture.shape[:2])
    size = int(shorter * rng.uniform(0.2, 0.5))
    # Rather at the borders: photographs of people have their faces in the middle.
    y, x = (int(rng.beta(0.4, 0.4) * (n - size)) for n in picture.shape[:2])
    patch = picture[y : y + size, x : x + size]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.5, 5))
    gain = np.exp(rng.normal(0, 0.25, 3) * [1, 0.3, 1])
    return np.asarray(cv2.convertScaleAbs(patch * gain), np.uint8)


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < 0.85:  # few things are bright and colourful
        b, g, r = np.clip(rng.uniform(0, 255) + rng.normal(0, rng.exponential(14), 3), 0, 255)
    else:
        b, g, r = rng.uniform(0, 255, 3)
    return float(b), float(g), float(r)


def random_background(rng: np.random.Generator, side: int) -> Picture:
    """A picture of nothing in particular, (side, side, 3) uint8 BGR."""
    import cv2

    corners = np.array([[_colour(rng), _colour(rng)], [_colour(rng), _colour(rng)]], np.float32)
    if rng.random() < 0.5:  # a wall
        corners = corners[:1, :1] + rng.normal(0, 15, (2, 2, 3)).astype(np.float32)
    picture = cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)
    for size in (3, 6, 14, 40):
        if rng.random() < (0.45 if size < 40 else 0.15):
            noise = rng.normal(0, rng.exponential(14), (size, size, 3 if size < 10 and rng.random() < 0.3 else 1))
            picture += cv2.resize(noise.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC).reshape(
                side, side, -1
            )
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 12)) if rng.random() < 0.75 else 0):
        _shape(rng, picture)
    if rng.random() < 0.15:
        for _ in range(int(rng.integers(1, 4))):
            text = "".join(chr(c) for c in rng.integers(48, 91, rng.integers(2, 9)))
            where = (int(rng.integers(-20, side)), int(rng.integers(0, side)))
            font, height, thickness = int(rng.integers(0, 8)), rng.uniform(0.4, 2.2), int(rng.integers(1, 6))
            cv2.putText(picture, text, where, font, height, _colour(rng), thickness)
    blur = rng.uniform(0, 9) if rng.random() < 0.65 else 0.0
    if blur > 0.4:
        # Out of focus; done at half size, where it costs a quarter.
        small = cv2.resize(picture, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(cv2.GaussianBlur(small, (0, 0), blur / 2), (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(picture, np.uint8)


def _shape(rng: np.random.Generator, picture: Picture) -> None:
    import cv2

    side = picture.shape[0]
    x, y = (int(v) for v in rng.integers(-20, side + 20, 2))
    w, h = (int(v) for v in rng.exponential(0.2 * side, 2) + 2)
    colour = _colour(rng)
    kind = rng.integers(5)
    if kind == 0:
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
    elif kind == 1:
        cv2.ellipse(picture, (x, y), (w // 2, h // 2), rng.uniform(0, 180), 0, 360, colour, -1)
    elif kind == 2:
        end = (int(x + rng.normal(0, side / 2)), int(y + rng.normal(0, side / 2)))
        cv2.line(picture, (x, y), end, colour, int(rng.integers(1, 14)))
    elif kind == 3:
        corners = (rng.normal(0, side / 4, (int(rng.integers(3, 7)), 2)) + (x, y)).astype(np.int32)
        cv2.fillPoly(picture, [corners], colour)
    else:  # a stripe across the picture: a frame, a pole, a shelf
        if rng.random() < 0.5:
            picture[:, max(x, 0) : max(x, 0) + max(w // 3, 2)] = colour
        else:
            picture[max(y, 0) : max(y, 0) + max(h // 3, 2)] = colour
