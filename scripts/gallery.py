"""Makes the pictures of docs/gallery.md: what radan-reconstruct makes of two photographs in the public domain.

Those come with Python packages: Eileen Collins (NASA) with scikit-image, Grace Hopper (US Navy) with matplotlib. The
same bytes from every run on one machine.

usage: python scripts/gallery.py [--out docs/images] [--work out/gallery]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros import drawing, read_picture
from radan_ros.export import for_viewers, write_atomically
from radan_ros.texture import flatten_to_texels
from radan_ros.tools import reconstruct

Picture = NDArray[np.uint8]
LARGEST = 150_000  # bytes of a picture
SIDE = 640  # pixels of the photographs
FACE = np.s_[:480, 120:520]  # where it is in both
GROUND = (38, 34, 32)
TURNS = (-60, -30, 0, 30, 60)  # degrees
OVERSAMPLE = 2


class Mesh(NamedTuple):
    """What a textured OBJ holds; x right, y up, z towards the viewer."""

    vertices: NDArray[np.float32]  # (V, 3)
    uv: NDArray[np.float32]  # (V, 2)
    triangles: NDArray[np.int64]  # (T, 3)


def photographs() -> dict[str, Picture]:
    """The two faces, (640, 640, 3) uint8 BGR, cut out and resized."""
    from matplotlib.cbook import get_sample_data
    from skimage import data

    collins = np.ascontiguousarray(data.astronaut()[0:250, 98:348, ::-1])
    sample: Any = get_sample_data("grace_hopper.jpg", asfileobj=False)
    hopper = read_picture(sample)[40:552]
    size = (SIDE, SIDE)
    return {
        "collins": np.asarray(cv2.resize(collins, size, interpolation=cv2.INTER_CUBIC), np.uint8),
        "hopper": np.asarray(cv2.resize(hopper, size, interpolation=cv2.INTER_CUBIC), np.uint8),
    }


def read_obj(path: Path) -> Mesh:
    """Read back a textured OBJ of radan-reconstruct, whose vertices have one texture coordinate each."""
    lines: dict[str, list[list[str]]] = {"v": [], "vt": [], "f": []}
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *words = line.split() or [""]
        if kind in lines:
            lines[kind].append(words)
    corners = np.array([[corner.split("/")[:2] for corner in words] for words in lines["f"]], np.int64) - 1
    vertices = np.array([words[:3] for words in lines["v"]], np.float32)
    uv = np.empty((len(vertices), 2), np.float32)
    uv[corners[..., 0]] = np.array(lines["vt"], np.float32)[corners[..., 1]]
    return Mesh(vertices, uv, corners[..., 0])


def textured_views(mesh: Mesh, texture: Picture, turns: Sequence[float], size: tuple[int, int]) -> Picture:
    """A textured mesh from far away, turned by so many degrees, next to each other; `size` is that of one view."""
    height, width = (side * OVERSAMPLE for side in size)
    turned = []
    for turn in np.radians(turns):
        sideways = np.array([[math.cos(turn), 0, -math.sin(turn)], [0, 1, 0], [math.sin(turn), 0, math.cos(turn)]])
        points = mesh.vertices @ sideways
        turned.append(points - (points.max(axis=0) + points.min(axis=0)) / 2)
    scale = 0.9 * min(min(width / np.ptp(p[:, 0]), height / np.ptp(p[:, 1])) for p in turned)
    views = []
    for points in turned:
        # To 0 .. 1 over the picture, as texels lie in a texture: y up, the third smaller when nearer.
        places = points * (scale / width, scale / height, -1) + (0.5, 0.5, 0)
        drawn = flatten_to_texels(places, mesh.triangles, (height, width))
        at = (mesh.uv[mesh.triangles[drawn.triangle]] * drawn.weights[..., None]).sum(axis=1)
        columns, rows = np.zeros((2, height, width), np.float32)
        columns[drawn.row, drawn.column] = at[:, 0] * texture.shape[1] - 0.5
        rows[drawn.row, drawn.column] = (1 - at[:, 1]) * texture.shape[0] - 0.5
        colours = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        view = np.full((height, width, 3), GROUND, np.uint8)
        view[drawn.row, drawn.column] = colours[drawn.row, drawn.column]
        views.append(cv2.resize(view, size[::-1], interpolation=cv2.INTER_AREA))
    return np.hstack(views)


def beside(*pictures: Picture, height: int = 480) -> Picture:
    """Pictures next to each other, all of one height."""
    same = [
        cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height), interpolation=cv2.INTER_AREA) for p in pictures
    ]
    return np.hstack(same)


def write(path: Path, picture: Picture) -> None:
    """Write a JPEG, as good as fits into `LARGEST` bytes."""
    for quality in range(92, 40, -4):
        content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(content) <= LARGEST:
            break
    write_atomically(path, content)
    print(f"{path}: {picture.shape[1]}x{picture.shape[0]}, {len(content) / 1000:.0f} kB")


def gallery(work: Path) -> dict[str, Picture]:
    """Let radan-reconstruct work in a folder, and put together what it leaves there: pictures by name.

    Raises
    ------
    RuntimeError
        When radan-reconstruct fails, or finds another number of faces than one in each photograph.
    """
    work.mkdir(parents=True, exist_ok=True)
    given = photographs()
    files = [work / f"{name}.png" for name in given]
    for file, photograph in zip(files, given.values(), strict=True):
        cv2.imwrite(str(file), photograph)
    results = work / "results"
    switches = ["--uv", "--only", "ply", "obj", "paf", "crop", "pose", "depth", "pncc", "landmarks"]
    if reconstruct.main(
        ["-f", *map(str, files), "--out", str(results), "--device", "cpu", "--paf-size", "5", *switches]
    ):
        raise RuntimeError("radan-reconstruct failed")
    for name in given:
        if not (results / f"{name}_0.obj").exists() or (results / f"{name}_1.obj").exists():
            raise RuntimeError(f"{name}: not one face")

    def made(name: str, *ends: str) -> list[Picture]:
        return [read_picture(results / f"{name}_{end}") for end in ends]

    meshes = {name: read_obj(results / f"{name}_0.obj") for name in given}
    textures = {name: made(name, "0_texture.png")[0] for name in given}
    views = {name: drawing.mesh_views(for_viewers(mesh.vertices), mesh.triangles) for name, mesh in meshes.items()}
    turned = [textured_views(mesh, textures[name], TURNS, (300, 240)) for name, mesh in meshes.items()]
    return {
        "landmarks": beside(*(p for name in given for p in made(name, "landmarks.jpg"))),
        "pose": beside(*(p for name in given for p in made(name, "pose.jpg"))),
        "depth_pncc": beside(*(p[FACE] for name in given for p in made(name, "depth.png", "pncc.png")), height=320),
        "mesh": beside(*views.values(), height=240),
        "textured": np.vstack(turned),
        "texture": beside(*(p for name in given for p in made(name, "0_texture.png", "0_visible.png")), height=320),
        "paf": beside(*(p for name in given for p in made(name, "0_crop.jpg", "0_paf.jpg")), height=320),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures (docs/images)")
    parser.add_argument(
        "--work", type=Path, default=Path("out/gallery"), help="folder for what radan-reconstruct makes"
    )
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, picture in gallery(options.work).items():
            write(options.out / f"gallery_{name}.jpg", picture)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
