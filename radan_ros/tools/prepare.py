"""``radan-prepare``: labelled pictures to training samples: crops, fitted face models, copies turned to the side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radan_ros.errors import line
from radan_ros.model import open_face_model, read_whitening
from radan_ros.pipeline import cameras_in_crop
from radan_ros.pose import decompose_camera, euler_from_rotation, head_rotation
from radan_ros.tools.numbers import positive_integer, whole
from radan_ros.tools.signals import Signals
from radan_ros.training.preparation import label_pictures, prepare_samples, read_labelled_pictures
from radan_ros.training.samples import Samples, write_samples

_Array = NDArray[np.float64]
SYNTHETIC = "synthetic"
_YAWS = (("0-30", 0, 30), ("30-60", 30, 60), ("60 and more", 60, 181))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 or 143 after a signal."""
    options = _parser().parse_args(arguments)
    signals = Signals()
    try:
        with signals:
            return _synthetic(options) if str(options.data) == SYNTHETIC else _prepare(options)
    except KeyboardInterrupt:
        return signals.status
    except (OSError, ValueError, ImportError, BrokenExecutor) as error:
        print(f"radan-prepare: {line(error)}", file=sys.stderr)
        return 1


def _prepare(options: argparse.Namespace) -> int:
    pictures = read_labelled_pictures(options.data, options.split, options.labels)
    deviations = read_whitening(options.whitening).std[12:] if options.whitening else None
    face_model = open_face_model(options.face_model)
    options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the work, not after
    labels = label_pictures(pictures, face_model, deviations=deviations, levelled=0 if options.as_marked else 1)
    _print_fits(labels.errors, labels.landmark_weights.max(axis=1), labels.parameter_weights)
    samples = prepare_samples(
        pictures,
        labels,
        face_model,
        copies=options.copies,
        plain=not options.profiled_only,
        seed=options.seed,
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    write_samples(options.out, samples, face_model)
    _print_samples(options.out, samples)
    return 0


def _synthetic(options: argparse.Namespace) -> int:
    from radan_ros.training.synthetic import SyntheticFaces, SyntheticSettings

    settings = SyntheticSettings(shape_spread=options.shape_spread)
    face_model = open_face_model(options.face_model)
    faces = SyntheticFaces(face_model, settings)
    options.out.mkdir(parents=True, exist_ok=True)
    samples = faces.samples(options.count, options.seed, options.workers, progress=sys.stderr.isatty())
    write_samples(options.out, samples, face_model)
    _print_samples(options.out, samples)
    return 0


def _print_samples(out: Path, samples: Samples) -> None:
    heads = [head_rotation(decompose_camera(c).rotation) for c in cameras_in_crop(samples.parameters)]
    yaws = np.abs(np.rad2deg([euler_from_rotation(head)[0] for head in heads]))
    bins = ", ".join(f"{name} {np.sum((yaws >= low) & (yaws < high))}" for name, low, high in _YAWS)
    print(f"{out}: {len(samples)} samples; by degrees of yaw: {bins}")


def _print_fits(errors: _Array, landmark_weights: _Array, parameter_weights: _Array) -> None:
    count = len(errors)
    left_out, landmarks_only = landmark_weights == 0, (parameter_weights == 0) & (landmark_weights > 0)
    median = 100 * np.median(errors) if count else float("nan")
    print(
        f"{count} pictures fitted, {median:.2f} % of the face's size off at the median; "
        f"{left_out.sum()} left out, {landmarks_only.sum()} with landmarks only, "
        f"{((parameter_weights < 1) & (parameter_weights > 0)).sum()} with less weight"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-prepare", description=__doc__)
    parser.add_argument("data", type=Path, help=f"folder with images/ and labels.npz; or '{SYNTHETIC}': rendered faces")
    parser.add_argument("out", type=Path, help="folder of samples to write")
    parser.add_argument("--split", help="only pictures of this split of labels.npz: train, val")
    parser.add_argument("--labels", type=Path, help="other labels than the folder's, such as radan-label writes")
    parser.add_argument("--count", type=positive_integer, default=8000, help="how many rendered faces (8000)")
    parser.add_argument(
        "--shape-spread", type=float, default=0.8, help="of rendered faces, in standard deviations of the model (0.8)"
    )
    parser.add_argument("--copies", type=whole, default=3, help="turned copies of each picture (3)")
    parser.add_argument(
        "--profiled-only", action="store_true", help="the copies alone: a validation set of large poses"
    )
    parser.add_argument(
        "--as-marked",
        action="store_true",
        help="leave in what all marked points lie off the teacher's by: a set to measure on",
    )
    parser.add_argument(
        "--face-model", default="builtin", help="builtin, a face model .npz, 3DDFA's folder, 3DDFA_V2's bfm .pkl"
    )
    parser.add_argument(
        "--whitening", type=Path, help="standard deviations of the coefficients, for face models of the BFM family"
    )
    parser.add_argument("--workers", type=positive_integer, default=1, help="processes (1)")
    parser.add_argument("--seed", type=whole, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
