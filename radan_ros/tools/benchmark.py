"""``radan-benchmark``: a model's errors on AFLW2000-3D, AFLW or labelled photographs, or the speed of everything."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radan_ros import open_detector
from radan_ros.benchmarks.answers import (
    BOXES,
    DETECTOR,
    GIVEN,
    OURS,
    REFERENCE,
    answer,
    open_models,
    pictures_of,
    read_predictions,
    sheet,
)
from radan_ros.benchmarks.faces import LabelledFaces
from radan_ros.benchmarks.labelled import read_aflw, read_aflw2000, read_folder, read_ytf68
from radan_ros.benchmarks.plots import check_matplotlib, draw_errors, draw_speed
from radan_ros.benchmarks.scoring import Answers, PoseTable, Table, as_json, score, score_poses, text_of
from radan_ros.errors import line
from radan_ros.files import write_atomically
from radan_ros.model import Model
from radan_ros.pictures import write_picture
from radan_ros.tools.numbers import positive_integer
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.stills import ERRORS

DATA_SETS = ("aflw2000", "aflw", "ytf68", "photographs")
ON_SHEET = 16  # faces
_CROPS = {
    GIVEN: "given (test.data)",
    BOXES: "squares around the given points",
    DETECTOR: "detector dlib_hog",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.speed == (options.data_set is not None):
        parser.error(f"name a data set ({', '.join(DATA_SETS)}) or --speed")
    if options.data_set is not None and options.data is None:
        parser.error(f"{options.data_set} needs --data, the folder that it lies in")
    if options.predictions is not None and (options.speed or options.model):
        parser.error("--predictions takes the place of a model: neither --model nor --speed goes with it")
    if options.split is not None and not _has_splits(options):
        parser.error("--split goes with ytf68, and with photographs in a folder with labels.npz")
    try:
        check_matplotlib()  # said before the work, not after it
        options.out.mkdir(parents=True, exist_ok=True)
        if options.speed:
            _speed(options)
        else:
            _benchmark(options)
    except KeyboardInterrupt:
        return 130
    except (*ERRORS, ImportError) as error:
        print(f"radan-benchmark: {line(error)}", file=sys.stderr)
        return 1
    print(f"written to {options.out}")
    return 0


def _benchmark(options: argparse.Namespace) -> None:
    faces = _read(options)
    crops = options.crops or (GIVEN if faces.squares is not None else BOXES)
    answers: dict[str, Answers] = {}
    models: dict[str, Model] = {}
    if options.predictions is not None:
        answers[options.predictions.name], in_crops = read_predictions(options.predictions, faces)
        source, pixels = (_CROPS[GIVEN], REFERENCE) if in_crops else ("as the file's author has it", "as given")
    else:
        source, pixels = _CROPS[crops], REFERENCE if options.compat else OURS
        pictures_of(faces, crops)
        models = open_models(options.model or [None], options.device, options.threads)
        detector = open_detector() if crops == DETECTOR else None
        with progress_bar(total=len(models) * len(faces), unit="face") as bar:
            for name, model in models.items():
                bar.set_description(f"{name}, {faces.name}")
                answers[name] = answer(model, faces, crops, detector=detector, compat=options.compat, bar=bar)
    tables = [table for name, of in answers.items() for table in score(faces, of, name, source, pixels)]
    poses = [table for name, of in answers.items() for table in score_poses(faces, of, name, source)]
    text = text_of(tables, poses)
    print(text)
    write_atomically(options.out / "benchmark.txt", (text + "\n").encode())
    _write_json(options.out / "benchmark.json", tables, poses)
    _write_faces(options.out / "faces.npz", faces, tables)
    draw_errors(options.out / "errors.png", _panels(tables))
    for name, model in models.items():
        suffix = "" if len(models) == 1 else "_" + "".join(c if c.isalnum() or c in "-." else "_" for c in name)
        for kind, which in _chosen(faces, answers[name], tables, name).items():
            picture = sheet(faces, answers[name], model, crops, which)
            write_picture(options.out / f"{kind}{suffix}.png", picture)


def _has_splits(options: argparse.Namespace) -> bool:
    """Whether the pictures that are asked for may be parted by --split."""
    with_labels = options.data_set == "photographs" and (options.data / "labels.npz").is_file()
    return with_labels or options.data_set == "ytf68"


def _read(options: argparse.Namespace) -> LabelledFaces:
    if options.data_set == "aflw2000":
        return read_aflw2000(options.data)
    if options.data_set == "aflw":
        return read_aflw(options.data)
    if options.data_set == "ytf68":
        return read_ytf68(options.data, options.split or "val")
    return read_folder(options.data, options.split)


def _write_json(path: Path, tables: Sequence[Table], poses: Sequence[PoseTable]) -> None:
    content = {"errors": [as_json(table) for table in tables], "poses": [as_json(table) for table in poses]}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _write_faces(path: Path, faces: LabelledFaces, tables: Sequence[Table]) -> None:
    """The error of each face in percent (NaN: missing), by model, annotation and dimensions; names and yaws."""
    content = io.BytesIO()
    errors = {f"{t.model}, {t.annotation}, {t.dimensions}D": t.errors for t in tables}
    np.savez(content, names=np.array([p.name for p in faces.pictures]), **faces.yaws, **errors)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def _panels(tables: Sequence[Table]) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What `draw_errors` takes: a panel for each annotation and dimension, by the first split's yaw."""
    panels: dict[str, dict[str, tuple[Any, Any]]] = {}
    for table in tables:
        title = f"{table.data}, {table.annotation}, {table.points} points, {table.dimensions}D"
        panels.setdefault(title, {}).setdefault(table.model, (table.errors, table.yaw))
    return panels


def _chosen(faces: LabelledFaces, answers: Answers, tables: Sequence[Table], model: str) -> dict[str, list[int]]:
    """Faces for the sheets: those with the largest errors, and some in even steps. None of 21 points: see `sheet`."""
    first = next(table for table in tables if table.model == model)
    found = np.flatnonzero(answers.found & np.isfinite(first.errors))
    if faces.annotations[0].points.shape[1] != 68 or not len(found):
        return {}
    worst = found[np.argsort(-first.errors[found], kind="stable")][:ON_SHEET]
    some = found[np.linspace(0, len(found) - 1, min(ON_SHEET, len(found))).astype(int)]
    return {"worst": worst.tolist(), "some": some.tolist()}


def _speed(options: argparse.Namespace) -> None:
    from radan_ros.benchmarks.speed import measure, speed_json, speed_text

    rows, notes = measure(
        options.model,
        data=options.data,
        devices=options.devices,
        threads=options.threads,
        quick=options.quick,
        progress=sys.stderr.isatty(),
    )
    text = speed_text(rows, notes)
    print(text)
    write_atomically(options.out / "speed.txt", (text + "\n").encode())
    write_atomically(options.out / "speed.json", (json.dumps(speed_json(rows, notes), indent=2) + "\n").encode())
    draw_speed(options.out / "speed.png", rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-benchmark", description=__doc__)
    parser.add_argument("data_set", nargs="?", choices=DATA_SETS, help="what to measure errors on")
    parser.add_argument("--speed", action="store_true", help="measure times, beside a plain implementation's")
    parser.add_argument(
        "--data",
        type=Path,
        help="aflw2000, aflw: the folder with test.data/ and test.configs/ (and AFLW2000/, for head poses and other "
        "crops); ytf68: its folder; photographs: a folder with labels.npz and images/, or pictures with .pts files; "
        "--speed: a folder of pictures (scikit-image's astronaut)",
    )
    parser.add_argument(
        "--model", type=Path, action="append", help="model folder; may be given again; without it the built-in model"
    )
    parser.add_argument("--out", type=Path, default=Path("out/benchmark"), help="folder for the results")
    parser.add_argument("--compat", action="store_true", help="3DDFA's pixel conventions, to compare with its figures")
    parser.add_argument("--predictions", type=Path, help="score the points in this .npz file instead of a model")
    parser.add_argument(
        "--crops",
        choices=(GIVEN, BOXES, DETECTOR),
        help="given: the benchmark's own; boxes: around the given points; detector: where ours finds the face",
    )
    parser.add_argument("--split", help="ytf68, labels.npz: only pictures of this split (ytf68: val)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<i>")
    parser.add_argument(
        "--devices", nargs="+", help="--speed: which; without it the CPU, and the GPU where there is one"
    )
    parser.add_argument("--threads", type=positive_integer, default=2, help="of the networks on the CPU (2)")
    parser.add_argument("--quick", action="store_true", help="--speed: under a minute, with fewer rounds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
