"""``radan-mark``: better labels of eyes and mouths, from a network that learns marked points; for `radan-prepare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radan_ros.errors import line
from radan_ros.files import whole_file
from radan_ros.tools.naming import distinct_names
from radan_ros.tools.numbers import positive_integer, whole
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.signals import Signals
from radan_ros.training.preparation import LabelledPictures, has_splits, read_labelled_pictures
from radan_ros.training.samples import read_samples

if TYPE_CHECKING:
    from radan_ros.training.marking import Marker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 or 143 after a signal."""
    options = _parser().parse_args(arguments)
    signals = Signals()
    try:
        with signals:
            _mark(options)
    except KeyboardInterrupt:
        return signals.status
    except (OSError, ValueError, ImportError) as error:
        print(f"radan-mark: {line(error)}", file=sys.stderr)
        return 1
    return 0


def _mark(options: argparse.Namespace) -> None:
    import torch

    from radan_ros.training.marking import learn

    torch.set_num_threads(options.threads or torch.get_num_threads())
    marked, taught = ([read_samples(folder) for folder in folders] for folders in (options.learn, options.also))
    sets = [read_labelled_pictures(folder, options.split if has_splits(folder) else None) for folder in options.data]
    for folder, what in (*zip(options.learn, marked, strict=True), *zip(options.also, taught, strict=True)):
        if not len(what):
            raise ValueError(f"{folder}: no samples in it")
    for pictures in sets:
        if not len(pictures):
            raise ValueError(f"{pictures.folder}: names no pictures")
    options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the work, not after
    network = learn(marked, taught, options.steps, batch=options.batch, seed=options.seed, progress=sys.stderr.isatty())
    for pictures, name in zip(sets, distinct_names(options.data), strict=True):
        _label(network, pictures, options.out / f"{name}.npz")


def _label(network: Marker, pictures: LabelledPictures, out: Path) -> None:
    from radan_ros.training.marking import corrected, mark_pictures

    parts = []
    with progress_bar(total=len(pictures), unit="picture") as bar:
        for part in mark_pictures(network, pictures):
            parts.append(part)
            bar.update(len(part))
    labels = corrected(pictures, np.concatenate(parts))
    with whole_file(out) as place:
        np.savez(place, allow_pickle=False, names=pictures.names, **labels)
    print(f"{out}: {len(pictures)} pictures")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-mark", description=__doc__)
    parser.add_argument("data", type=Path, nargs="+", help="folders with images/ and labels.npz, to be labelled better")
    parser.add_argument("--learn", type=Path, nargs="+", required=True, help="samples of marked points to learn from")
    parser.add_argument(
        "--also",
        type=Path,
        nargs="+",
        default=[],
        help="samples of a teacher's points, whose lids and lips do not count",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the labels, an .npz for each of data")
    parser.add_argument("--split", default="train", help="of data that have splits (train)")
    parser.add_argument("--steps", type=positive_integer, default=1800, help="of the training (1800)")
    parser.add_argument("--batch", type=positive_integer, default=64, help="crops of a step (64)")
    parser.add_argument("--threads", type=whole, default=0, help="of the arithmetic; 0: all cores")
    parser.add_argument("--seed", type=whole, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
