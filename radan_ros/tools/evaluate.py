"""``radan-evaluate``: how far a model's landmarks are off on photographs, by the turn of the head, and at what cost."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros import Pipeline, boxes
from radan_ros.benchmarks.answers import open_models
from radan_ros.benchmarks.labelled import Photographs, read_photographs
from radan_ros.benchmarks.plots import check_matplotlib, draw_errors
from radan_ros.benchmarks.scoring import known_or_none
from radan_ros.errors import line
from radan_ros.files import write_atomically
from radan_ros.model import Model
from radan_ros.networks import load_checkpoint, network_state
from radan_ros.networks.runtime import GRAPH_SUFFIXES
from radan_ros.pictures import write_picture
from radan_ros.pipeline import cameras_in_crop
from radan_ros.tools.numbers import positive_integer, whole
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.stills import ERRORS
from radan_ros.training import evaluation
from radan_ros.training.augmentation import DETECTOR
from radan_ros.training.pictures import prediction_grid
from radan_ros.training.preparation import label_pictures, prepare_samples, read_labelled_pictures
from radan_ros.training.samples import MARGIN, Samples, read_samples

PHOTOGRAPHS = "ytf68"
FINE_BINS = tuple((low, low + 15) for low in range(0, 90, 15))
ON_SHEET = 16  # faces

# What the built-in weights have to reach: row of the table, whether at most or at least, value.
BARS = (
    ("mean", "at most", 4.0),
    ("median", "at most", 3.8),
    ("yaw 30-60 over 0-30", "at most", 1.35),
    ("eye openings", "at least", 0.60),
    ("mouth openings", "at least", 0.85),
    ("parameters, M", "at most", 1.6),
    ("file, MB", "at most", 4.0),
    ("ms a crop", "at most", 1.0),
)


@dataclass(frozen=True)
class Answers:
    """A model's answers for N faces, each in D squares.

    Attributes
    ----------
    squares : (N, D, 4) float32
        In pixels of the picture.
    parameters : (N, D, 62) float32
    landmarks : (N, D, 68, 2) float32
        Pixels of the picture.
    errors : (N, D) float64
        Normalised mean errors.
    """

    squares: NDArray[np.float32]
    parameters: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    errors: NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        _evaluate(options)
    except KeyboardInterrupt:
        return 130
    except (*ERRORS, ImportError) as error:
        print(f"radan-evaluate: {line(error)}", file=sys.stderr)
        return 1
    return 0


def _evaluate(options: argparse.Namespace) -> None:
    check_matplotlib()  # said before the work, not after it
    models = open_models([options.model, *options.compare], options.device, options.threads)
    sets = [read_photographs(options.data / PHOTOGRAPHS, options.split)]
    if options.profiled is not None:
        sets.append(profiled(read_samples(options.profiled)))
    elif not options.photographs_only:
        sets.append(profiled(turned_photographs(options, next(iter(models.values())))))
    options.out.mkdir(parents=True, exist_ok=True)
    total = len(models) * sum(len(faces) for faces in sets)
    answers: dict[tuple[str, str], Answers] = {}
    with progress_bar(total=total, unit="face") as bar:
        for name, model in models.items():
            for faces in sets:
                bar.set_description(f"{name}, {faces.name}")
                answers[name, faces.name] = answer(model, faces, options.draws, options.seed, bar)
    results = {}
    for name, model in models.items():
        results[name] = {faces.name: measure(faces, answers[name, faces.name]) for faces in sets}
        results[name]["cost"] = cost(model)
    print(_report(results, sets, options))
    settings = {"draws": options.draws, "seed": options.seed, "split": options.split, "box": asdict(DETECTOR)}
    known = {
        m: {k: {r: known_or_none(v) for r, v in rows.items()} for k, rows in t.items()} for m, t in results.items()
    }
    content = json.dumps({"settings": settings, "models": known}, indent=2)
    write_atomically(options.out / "evaluation.json", (content + "\n").encode())
    panels = {
        faces.name: {name: (100 * answers[name, faces.name].errors, faces.yaw) for name in models} for faces in sets
    }
    draw_errors(options.out / "errors.png", panels)
    first, model = next(iter(models.items()))
    for faces in sets:
        for kind, picture in _sheets(faces, answers[first, faces.name], model, options.seed).items():
            write_picture(options.out / f"{faces.name.replace(' ', '_')}_{kind}.png", picture)
    print(f"written to {options.out}")


def turned_photographs(options: argparse.Namespace, model: Model) -> Samples:
    """The photographs turned in 3D with a model's face model; its whitening says how much coefficients vary."""
    pictures = read_labelled_pictures(options.data / PHOTOGRAPHS, options.split)
    labels = label_pictures(pictures, model.face_model, deviations=model.whitening.std[12:])
    return prepare_samples(
        pictures, labels, model.face_model, plain=False, seed=options.seed, progress=sys.stderr.isatty()
    )


def profiled(samples: Samples) -> Photographs:
    """Labelled crops of turned faces; their wide crops are the pictures."""
    if not len(samples):
        raise ValueError("there are no turned faces: none of the photographs could be fitted")
    cameras = cameras_in_crop(samples.parameters)
    return Photographs.seen_by("profiled", samples.crops, samples.landmarks + MARGIN, cameras)


def detector_squares(faces: Photographs, index: int, draws: int, seed: int) -> list[NDArray[np.float64]]:
    """Squares as a detector would have found a face: the same for every model."""
    rng = np.random.default_rng((seed, index))
    true = boxes.square_from_landmarks(faces.landmarks[index])
    return [DETECTOR.draw(true, float(faces.turns[index]), rng) for _ in range(draws)]


def answer(model: Model, faces: Photographs, draws: int, seed: int, bar: tqdm[Any] | None = None) -> Answers:
    """Let a model look at every face in several squares.

    Raises
    ------
    ValueError, OSError
        A picture cannot be read, or the model's answer is not finite.
    """
    pipeline = Pipeline(model)
    found = []
    for index in range(len(faces)):
        seen = pipeline.regress(faces.picture(index), detector_squares(faces, index, draws, seed))
        if len(seen) < draws:
            raise ValueError(f"model {model.name}: no finite answer for face {index} of {faces.name}")
        found.append(seen)
        if bar is not None:
            bar.update()
    squares, parameters, landmarks = (
        np.array([[getattr(face, what) for face in seen] for seen in found])
        for what in ("roi", "parameters", "landmarks")
    )
    errors = evaluation.nme(landmarks, faces.landmarks[:, None])
    return Answers(squares, parameters, landmarks[..., :2], errors)


def measure(faces: Photographs, answers: Answers) -> dict[str, float]:
    """Rows of the table: errors in percent, ratios and correlations; every square of a face counts."""
    draws = answers.errors.shape[1]
    percent, yaw = 100 * answers.errors.ravel(), np.repeat(faces.yaw, draws)
    whole, coarse = evaluation.spread(percent), evaluation.by_yaw(percent, yaw)
    rows = {"faces": float(len(faces)), "mean": whole.mean, "std": whole.std, "median": whole.median}
    rows["90th percentile"] = float(np.percentile(percent, 90))
    for (low, high), values in evaluation.by_yaw(percent, yaw, FINE_BINS).items():
        rows |= _row(f"yaw {low}-{high}", values, draws)
    for (low, high), values in coarse.items():
        rows |= _row(f"yaw {low}-{high}", values, draws)
    rows["mean of bins"] = evaluation.mean_of_bins(coarse)
    rows["yaw 30-60 over 0-30"] = coarse[30, 60].mean / coarse[0, 30].mean
    given = np.repeat(faces.landmarks, draws, axis=0)
    said = answers.landmarks.reshape(-1, 68, 2)
    # Labels may lie off the picture by a constant share of the face: what the model cannot be blamed for.
    size = evaluation.face_sizes(given)[:, None, None]
    offset = ((given - said) / size).mean(axis=(0, 1))
    rows |= {"labels lie right by": 100 * float(offset[0]), "labels lie down by": 100 * float(offset[1])}
    rows["mean without that"] = 100 * float(evaluation.nme(said + offset * size, given).mean())
    for name, opening in (
        ("eye openings", evaluation.eye_openings),
        ("mouth openings", evaluation.mouth_openings),
    ):
        rows[name] = evaluation.correlation(opening(said), opening(given))
    return rows


def _row(name: str, values: evaluation.Spread, draws: int) -> dict[str, float]:
    return {name: values.mean, f"{name} std": values.std, f"{name} faces": values.count / draws}


def cost(model: Model) -> dict[str, float]:
    """Parameters in millions, size of the network's file in MB, and milliseconds for one crop (median)."""
    rows = {}
    if model.network_file is not None:
        rows = {
            "parameters, M": count_parameters(model.network_file) / 1e6,
            "file, MB": _bytes(model.network_file) / 1e6,
        }
    crop = np.random.default_rng(0).integers(0, 256, (1, boxes.CROP_SIZE, boxes.CROP_SIZE, 3), np.uint8)
    times = []
    for _ in range(300):
        start = time.perf_counter()
        model.network(crop)
        times.append(time.perf_counter() - start)
    rows["ms a crop"] = 1e3 * float(np.median(times[20:]))
    return rows


def count_parameters(path: Path) -> int:
    """Numbers that were trained; in an exported graph the norms are already folded into what they follow."""
    if path.suffix.lower() in GRAPH_SUFFIXES:
        import openvino

        constants = [node for node in openvino.Core().read_model(path).get_ops() if node.get_type_name() == "Constant"]
        return sum(int(np.prod(c.shape)) for c in constants if c.get_element_type().is_real())
    _, state = network_state(load_checkpoint(path))
    return sum(
        value.size for name, value in state.items() if not name.endswith(("running_mean", "running_var", "_tracked"))
    )


def _bytes(path: Path) -> int:
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.is_file() else 0)


def _report(
    results: dict[str, dict[str, dict[str, float]]], sets: Sequence[Photographs], options: argparse.Namespace
) -> str:
    """The tables, and for the first model which bars it meets."""
    names = list(results)
    width = max(12, *(len(name) + 2 for name in names))
    lines = []
    for faces in sets:
        lines += ["", f"{faces.name}: {len(faces)} faces, {options.draws} boxes each, off as a detector's are"]
        lines.append(f"{'NME, %':28}{'faces':>7}" + "".join(f"{name:>{width}}" for name in names))
        columns = [results[name][faces.name] for name in names]
        for row in columns[0]:
            if row in ("faces", "std") or row.endswith((" std", " faces")) or np.isnan(columns[0][row]):
                continue
            count = columns[0].get(f"{row} faces")
            lines.append(
                f"{_label(row):28}{'' if count is None else f'{count:.0f}':>7}"
                + "".join(f"{column[row]:>{width}.2f}" for column in columns)
            )
    lines += ["", f"{'cost':35}" + "".join(f"{name:>{width}}" for name in names)]
    for row in results[names[0]]["cost"]:
        lines.append(
            f"{_label(row):35}" + "".join(f"{results[n]['cost'].get(row, float('nan')):>{width}.2f}" for n in names)
        )
    lines += ["", f"bars of the built-in model ({sets[0].name}), {names[0]}"]
    first = results[names[0]][sets[0].name] | results[names[0]]["cost"]
    for row, side, bar in BARS:
        value = first.get(row, float("nan"))
        met = value <= bar if side == "at most" else value >= bar
        lines.append(f"{_label(row):35}{value:8.2f}  {side:8} {bar:5.2f}  {'met' if met else 'NOT MET'}")
    return "\n".join(lines[1:])


def _label(row: str) -> str:
    return f"correlation of {row}" if row.endswith("openings") else row


def _sheets(faces: Photographs, answers: Answers, model: Model, seed: int) -> dict[str, NDArray[np.uint8]]:
    """Given and predicted landmarks of the faces with the largest errors, and of random ones."""
    draw = answers.errors.argmax(axis=1)
    worst = np.argsort(-answers.errors.max(axis=1), kind="stable")[:ON_SHEET]
    some = np.random.default_rng(seed).permutation(len(faces))[:ON_SHEET]
    return {
        "worst": _sheet(faces, answers, model, [(int(i), int(draw[i])) for i in worst]),
        "random": _sheet(faces, answers, model, [(int(i), 0) for i in some]),
    }


def _sheet(faces: Photographs, answers: Answers, model: Model, which: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    crops, given = [], []
    for face, draw in which:
        square = answers.squares[face, draw]
        to_crop = np.linalg.inv(boxes.crop_to_image(square))
        crops.append(boxes.crop(faces.picture(face), square))
        given.append(faces.landmarks[face] @ to_crop[:2, :2].T + to_crop[:2, 2])
    parameters = np.stack([answers.parameters[pair] for pair in which])
    return prediction_grid(np.stack(crops), np.stack(given), parameters, model.face_model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, help="model folder; without it the built-in model")
    parser.add_argument("--compare", type=Path, action="append", default=[], help="another one; may be given again")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/datasets"), help=f"folder with {PHOTOGRAPHS}/ (../shared/datasets)"
    )
    parser.add_argument("--split", default="val", help="which photographs (val)")
    parser.add_argument(
        "--profiled", type=Path, help="folder of labelled crops of turned faces; without it the photographs are turned"
    )
    parser.add_argument("--photographs-only", action="store_true", help="no turned faces")
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"), help="folder for the results (out/evaluate)")
    parser.add_argument("--draws", type=positive_integer, default=5, help="boxes for each face (5)")
    parser.add_argument("--seed", type=whole, default=0, help="of the boxes (0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<i> (cpu)")
    parser.add_argument("--threads", type=positive_integer, default=2, help="of the network on the CPU (2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
