"""``radan-label``: landmarks for pictures that have none, from a model's own answers; `radan-prepare` reads them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from radan_ros import Pipeline, open_detector, open_model
from radan_ros.files import whole_file
from radan_ros.pictures import read_picture
from radan_ros.tools.numbers import number as number_of
from radan_ros.tools.numbers import whole
from radan_ros.tools.progress import progress_bar
from radan_ros.training.labelling import label_picture

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        _label(options)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"radan-label: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _label(options: argparse.Namespace) -> None:
    folder = options.data / "images"
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in _PICTURES)
    if not paths:
        raise ValueError(f"{folder}: no pictures there; name the folder that holds images/")
    pipeline = Pipeline(open_model(options.model), open_detector("dlib_hog"))
    options.out.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the work, not after
    if options.out.is_dir():
        raise ValueError(f"{options.out} is a folder: name a file")
    names, landmarks, spreads = [], [], []
    unreadable = 0
    for number, path in enumerate(progress_bar(paths, unit="picture")):
        try:
            image = read_picture(path)
        except (OSError, ValueError) as error:
            tqdm.write(f"radan-label: left out: {error}", file=sys.stderr)
            unreadable += 1
            continue
        label = label_picture(pipeline, image, np.random.default_rng((options.seed, number)))
        if label is not None:
            names.append(path.name)
            landmarks.append(label[0])
            spreads.append(label[1])
    left_out = f"; {unreadable} could not be read" if unreadable else ""
    if not names:
        raise ValueError(f"{folder}: no face was found in any of {len(paths)} pictures{left_out}")
    # How far the crops of one model disagree says which pictures it is sure of, and nothing beside another model's.
    kept = np.sort(np.argsort(spreads, kind="stable")[: max(1, round(options.keep * len(spreads)))])
    with whole_file(options.out) as part, part.open("wb") as file:  # np.savez would give it another ending
        np.savez(file, names=np.array(names)[kept], landmarks=np.stack(landmarks)[kept])
    print(
        f"{options.out}: {len(kept)} of {len(paths)} pictures; a face was found in {len(names)}, the crops disagree "
        f"by {100 * np.median(spreads):.2f} % of it{left_out}"
    )


def _share(text: str) -> float:
    return number_of(text, lambda value: 0 < value <= 1, "between 0 and 1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-label", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/")
    parser.add_argument("out", type=Path, help="labels to write (.npz); for radan-prepare --labels")
    parser.add_argument("--model", help="model folder; without it the built-in model")
    parser.add_argument("--keep", type=_share, default=0.9, help="share of the pictures to keep, the surest (0.9)")
    parser.add_argument("--seed", type=whole, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
