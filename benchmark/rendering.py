#!/usr/bin/env python3
"""Time of depth and PNCC pictures of the dense face: our pass against a plain loop, in one run, on one core.

Both draw the same faces into pictures of the same size, turn by turn, so that a change of the machine's pace meets
both. The plain loop is what one writes first with Numba: over the triangles, over the pixels of each bounding box,
barycentric coordinates; once for the depth and once more for the colours, as the reference does. The published
figures are one face, 240 px high.

usage: python benchmark/rendering.py [--rounds N] [--device cpu|cuda]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from radan_ros.benchmarks.plain import draw, placed  # noqa: E402
from radan_ros.benchmarks.timing import interleaved  # noqa: E402
from radan_ros.rendering import Renderer, warm_up  # noqa: E402

Array = npt.NDArray[Any]

SIZE = (720, 1280)
HEIGHTS = (120, 240, 480)  # of the face, in pixels
PUBLISHED = {"3DDFA, Cython, two passes": 9.5, "3DDFA_V2, Sim3DR (C++), one pass": 4.8}  # ms


def true_face(shared: Path) -> tuple[Array, Array, Array]:
    """The Basel model's mean: points (V, 3) y up and z to the viewer, triangles from 0, codes 0..255."""
    from scipy.io import loadmat

    folder = shared / "models" / "3ddfa_v1"
    mean = np.load(folder / "train.configs" / "u_shp.npy") + np.load(folder / "train.configs" / "u_exp.npy")
    triangles = loadmat(folder / "visualize" / "tri.mat")["tri"].T.astype(np.int32) - 1
    codes = np.load(folder / "train.configs" / "pncc_code.npy").T * 255
    return (
        mean.reshape(-1, 3).astype(np.float64),
        np.ascontiguousarray(triangles),
        np.ascontiguousarray(codes, np.float32),
    )


def synthetic_face() -> tuple[Array, Array, Array]:
    """An ellipsoid's front with as many vertices and triangles as the Basel model, within 1 %."""
    rows, columns = 231, 231
    v, u = np.meshgrid(np.linspace(-1.5, 1.5, rows), np.linspace(-2.0, 2.0, columns), indexing="ij")
    points = np.stack([0.8 * np.cos(v) * np.sin(u), np.sin(v), 0.8 * np.cos(v) * np.cos(u)], -1).reshape(-1, 3)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    upper = np.stack([corner, corner + 1, corner + columns], 1)
    lower = np.stack([corner + 1, corner + columns + 1, corner + columns], 1)
    triangles = np.concatenate([upper, lower], 1).reshape(-1, 3).astype(np.int32)
    codes = (points - points.min(0)) / np.ptp(points, axis=0) * 255
    return points, triangles, codes.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    shared = HERE.parents[1] / "shared"
    start = time.perf_counter()
    warm_up(arguments.device)
    started = time.perf_counter() - start
    if (shared / "README.md").is_file():
        what, (points, triangles, codes) = "Basel mean face", true_face(shared)
    else:
        what, (points, triangles, codes) = "synthetic face", synthetic_face()
    print(
        f"{what}: {len(points)} vertices, {len(triangles)} triangles; "
        f"picture {SIZE[1]}x{SIZE[0]}; device {arguments.device}"
    )
    print(
        f"warm-up {started:.2f} s (from a filled cache 0.1 to 0.3 s); median of {arguments.rounds} rounds, milliseconds"
    )
    print("plain: Numba loop over triangles, one pass for the depth and one for the colour; one pass: colour alone\n")
    print("| face px | faces | ours | ours, depth only | plain | plain, one pass | plain : ours | one pass : ours |")
    print("|--------:|------:|-----:|-----------------:|------:|----------------:|-------------:|----------------:|")
    renderer = Renderer(triangles, codes, arguments.device)
    ours_240 = math.nan
    for height in HEIGHTS:
        for count in (1, 2):
            faces = [placed(points, height, SIZE[1] * (i + 1) / (count + 1), 0.4 * i, SIZE) for i in range(count)]
            depths = np.stack([face[:, 2:] for face in faces])
            colours = np.stack([codes] * count)
            times = interleaved(
                {
                    "ours": lambda faces=faces: renderer.render(faces, SIZE),  # type: ignore[misc]
                    "depth": lambda faces=faces: renderer.render(faces, SIZE, colour=False),  # type: ignore[misc]
                    "two": lambda f=faces, d=depths, c=colours: draw(f, triangles, [d, c], SIZE),  # type: ignore[misc]
                    "one": lambda f=faces, c=colours: draw(f, triangles, [c], SIZE),  # type: ignore[misc]
                },
                rounds=arguments.rounds,
            )
            result = {name: float(np.median(of_job)) for name, of_job in times.items()}
            ours, two, one = result["ours"], result["two"], result["one"]
            if (height, count) == (240, 1):
                ours_240 = ours
            print(
                f"| {height:7} | {count:5} | {ours:4.2f} | {result['depth']:16.2f} | {two:5.2f} | {one:15.2f}"
                f" | {two / ours:12.1f} | {one / ours:15.1f} |"
            )
    print("\npublished for one face of 240 px (another machine: compare the ratios above first)")
    for name, milliseconds in PUBLISHED.items():
        print(f"  {name:34} {milliseconds:4.1f} ms   {milliseconds / ours_240:4.1f} times ours")


if __name__ == "__main__":
    main()
