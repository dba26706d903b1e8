"""The options of `radan-reconstruct`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from radan_ros import detectors
from radan_ros.boxes import CROP_SIZE
from radan_ros.tools.numbers import field_of_view, finite, number, positive_integer, whole
from radan_ros.tools.results import ALL

_HELP = {
    "ply": "mesh, binary, a colour per vertex (default: on)",
    "obj": "mesh as text (on)",
    "glb": "mesh as glTF (on)",
    "txt": "68 landmarks, 3x68, image pixels (on)",
    "mat": "all vertices for Matlab, image pixels",
    "roibox": "the square that the network saw",
    "paf": "pose adaptive feature picture",
    "crop": "what the network saw",
    "pose": "picture with a pose box a head (on)",
    "depth": "depth in 8 bits, nearest white (on)",
    "depth-mm": "depth in 16 bits, millimetres",
    "pncc": "projected normalised coordinate code (on)",
    "landmarks": "picture with landmarks and meshes (on)",
    "overlay": "of a video: the video with meshes, landmarks, axes (on)",
    "csv": "of a video: a row a face and frame (on)",
    "parquet": "of a video: the same as Parquet (on where pyarrow is installed)",
}
PART_OF_A_PICTURE = 12  # a twelfth of a picture's height: faces from there on are found; groups have many small ones
FACES_OF_A_VIDEO = 10  # of a video, unless --max-faces says otherwise


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, or end the program with status 2 and what is wrong with it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.compat and options.smooth:
        parser.error("--smooth needs right conventions of pixels: leave --compat out")
    return options


def _odd(text: str) -> int:
    return int(number(text, lambda v: 1 <= v < CROP_SIZE and v % 2 == 1, f"an odd number under {CROP_SIZE}"))


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is none of auto, cpu, cuda, cuda:<i>")
    return text


def _folder(text: str) -> Path:
    return Path(os.path.expanduser(text))  # which leaves the home of nobody as it is


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="radan-reconstruct",
        description="Pictures, folders, videos, webcams in; meshes, landmarks, pictures, tables out.",
    )
    parser.add_argument(
        "-f",
        "--files",
        nargs="+",
        required=True,
        metavar="PATH",
        help="pictures, folders of them, videos, webcams (0, /dev/video0); boxes from a file a.jpg.bbox beside a.jpg",
    )
    parser.add_argument("--out", type=_folder, default=Path("."), help="folder for the results (this folder)")
    parser.add_argument(
        "--overwrite", action="store_true", help="write over pictures in a folder of inputs that are named as results"
    )
    parser.add_argument("--model", help="model folder; without it the built-in model")
    parser.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:<i> (auto)")
    parser.add_argument("--batch", type=positive_integer, default=16, help="pictures whose faces share a batch (16)")
    faces = parser.add_argument_group("faces")
    faces.add_argument(
        "--detector",
        choices=detectors.NAMES,
        default="dlib_hog",
        metavar="NAME",
        help=f"one of {', '.join(detectors.NAMES)}",
    )
    faces.add_argument(
        "--min-face",
        type=positive_integer,
        help="smallest face to find, pixels (pictures: a twelfth of the height; videos: a sixth; at least 40)",
    )
    faces.add_argument(
        "--threshold",
        type=finite,
        default=detectors.THRESHOLD,
        help=f"smallest score of a detection ({detectors.THRESHOLD}); 0 finds more, of which more are none",
    )
    faces.add_argument(
        "--max-faces", type=positive_integer, help=f"the surest so many (pictures: all; videos: {FACES_OF_A_VIDEO})"
    )
    faces.add_argument(
        "--bbox-init", choices=("one", "two"), default="one", help="two: crop again around the first answer"
    )
    faces.add_argument(
        "--dlib-landmark", metavar="FILE", help="crop around the landmarks of dlib's 68-point shape predictor (.dat)"
    )
    faces.add_argument(
        "--compat",
        action="store_true",
        help="of pictures, not videos: numbers and pictures as 3DDFA's code has them of the same boxes",
    )
    faces.add_argument(
        "--field-of-view", type=field_of_view, default=60.0, help="assumed of the camera, over the width, degrees (60)"
    )
    kinds = parser.add_argument_group("results", "each with --no-... as well")
    for kind in ALL:
        kinds.add_argument(f"--{kind}", action=argparse.BooleanOptionalAction, help=_HELP[kind])
    kinds.add_argument("--only", nargs="+", choices=ALL, metavar="KIND", help="just these: ply txt ...")
    kinds.add_argument(
        "--uv",
        action="store_true",
        help="texture (1024 px) and visibility; OBJ and glTF take it (glTF has one of 512 px without)",
    )
    kinds.add_argument("--paf-size", type=_odd, default=3, help="side of the patches of --paf, pixels (3)")
    videos = parser.add_argument_group("videos", "results of single frames, --ply for instance, only where asked for")
    videos.add_argument("--smooth", action=argparse.BooleanOptionalAction, default=False, help="smooth followed faces")
    videos.add_argument("--start", type=whole, default=0, metavar="N", help="begin at frame N (0)")
    videos.add_argument("--every", type=positive_integer, default=1, metavar="N", help="take every Nth frame (1)")
    videos.add_argument("--frames", type=positive_integer, metavar="N", help="end after N frames that were taken")
    return parser
