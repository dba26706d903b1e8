"""``radan-reconstruct``: pictures in; landmarks, an overlay, a depth and a PNCC image out. No ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros import Pipeline, boxes, detectors, drawing, open_detector, open_model
from radan_ros.face import Face
from radan_ros.rendering import Renderer
from radan_ros.rendering.compat import reference_depth_and_pncc


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, or 1 when the model or any picture could not be done."""
    options = _parser().parse_args(arguments)
    try:
        model = open_model(options.model, device=options.device)
        detector = open_detector(options.detector, min_face=options.min_face, threshold=options.threshold)
        options.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, ImportError) as error:
        print(f"radan-reconstruct: {error}", file=sys.stderr)
        return 1
    pipeline = Pipeline(model, detector, compat=options.compat)
    # Rendering in image pixels is cheap beside reading and writing files: the CPU will do.
    renderer = Renderer(model.face_model.triangles, model.face_model.codes)
    failed = 0
    for path in tqdm(options.files, unit="picture", disable=len(options.files) < 2 or not sys.stderr.isatty()):
        try:
            count = _reconstruct(path, pipeline, renderer, options)
            tqdm.write(f"{path}: {count} faces -> {options.out / path.stem}_*")
        except (OSError, ValueError, cv2.error) as error:
            failed += 1
            print(f"radan-reconstruct: {' '.join(str(error).split())}", file=sys.stderr)
    return 1 if failed else 0


def _reconstruct(path: Path, pipeline: Pipeline, renderer: Renderer, options: argparse.Namespace) -> int:
    image = read_picture(path)
    box_file = path.with_name(path.name + ".bbox")
    given = boxes.read_bbox_file(str(box_file)) if box_file.is_file() else None
    faces = pipeline(image, None if given is None else np.array(given), two_step=options.bbox_init == "two")
    stem = str(options.out / path.stem)
    for i, face in enumerate(faces):
        # Three rows x, y, z of 68 numbers; as 3DDFA writes them, the third grows towards the viewer.
        np.savetxt(f"{stem}_{i}.txt", (face.landmarks * [1, 1, -1]).T, fmt="%.3f")
    for name, picture in _pictures(image, faces, pipeline, renderer).items():
        write_picture(Path(f"{stem}_{name}"), picture)
    return len(faces)


def _pictures(
    image: NDArray[np.uint8], faces: list[Face], pipeline: Pipeline, renderer: Renderer
) -> dict[str, NDArray[np.uint8]]:
    """Overlay, depth (nearest white, 8 bits) and PNCC, by the end of their file names."""
    size = image.shape[:2]
    face_model = pipeline.model.face_model
    vertices = pipeline.vertices(faces)
    drawn = [
        drawing.DrawnFace(number=i, landmarks=face.landmarks, vertices=mesh, label=f"face {i}")
        for i, (face, mesh) in enumerate(zip(faces, vertices, strict=True))
    ]
    if pipeline.compat:
        towards = [mesh * np.array([1, 1, -1], np.float32) for mesh in vertices]
        depth, pncc = reference_depth_and_pncc(towards, face_model.triangles, face_model.codes, size)
        grey, colour = np.asarray(depth).astype(np.uint8), np.asarray(pncc).astype(np.uint8)
    else:
        rendering = renderer.render(vertices, size)
        grey, colour = _grey(rendering.depth), rendering.colour
    return {
        "landmarks.jpg": drawing.overlay(image, drawn, triangles=face_model.triangles),
        "depth.png": grey,
        "pncc.png": np.ascontiguousarray(colour[..., ::-1]),
    }


def _grey(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth to 8 bits over its own range: nearest 255, farthest 1, nothing 0."""
    out = np.zeros(depth.shape, np.uint8)
    seen = np.isfinite(depth)
    if seen.any():
        near, far = float(depth[seen].min()), float(depth[seen].max())
        out[seen] = np.rint(255 - 254 * (depth[seen] - near) / max(far - near, 1e-6)).astype(np.uint8)
    return out


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 BGR.

    Raises
    ------
    ValueError, OSError
        Name the file: it is missing, or no picture that OpenCV reads.
    """
    content = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if picture is None:
        raise ValueError(f"{path}: not a picture that can be read")
    return np.asarray(picture, np.uint8)


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture in the format that its name ends in; OSError when the disk does not take it."""
    _, content = cv2.imencode(path.suffix, picture)
    path.write_bytes(content.tobytes())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-reconstruct", description=__doc__)
    parser.add_argument(
        "-f", "--files", nargs="+", type=Path, required=True, help="pictures; boxes from a .bbox file beside one"
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the results (this folder)")
    parser.add_argument("--model", help="model folder; without it the built-in model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<i>")
    parser.add_argument("--detector", default="dlib_hog")
    parser.add_argument("--min-face", type=int, help="smallest face to find, pixels (a sixth of the picture's height)")
    parser.add_argument(
        "--threshold",
        type=float,
        default=detectors.THRESHOLD,
        help=f"smallest score of a detection ({detectors.THRESHOLD}); 0 finds more, of which more are none",
    )
    parser.add_argument(
        "--bbox-init", choices=("one", "two"), default="one", help="two: crop again around the first answer"
    )
    parser.add_argument("--compat", action="store_true", help="the pixel conventions and pictures of 3DDFA's code")
    return parser


if __name__ == "__main__":
    sys.exit(main())
