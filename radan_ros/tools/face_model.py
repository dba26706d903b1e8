"""``radan-face-model``: makes the built-in face model, draws it, and measures it. The same file on every machine."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radan_ros.tools.numbers import positive_integer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from radan_ros.face_models import FaceModel

_PACKAGE = Path(__file__).resolve().parents[1]
_SHARED = _PACKAGE.parents[1] / "shared"

# Sums come out alike to the last digit where they are made by the same instructions in the same order: one thread, and
# the code for processors of 2013 (Haswell), which newer ones run too.
_ARITHMETIC = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 after Ctrl-C.

    Where the environment lacks `_ARITHMETIC` it does not return: the program takes this process's place.
    """
    options = _parser().parse_args(arguments)
    if any(os.environ.get(name) != value for name, value in _ARITHMETIC.items()):
        # NumPy reads these when it is imported: start again with them.
        given = sys.argv[1:] if arguments is None else list(arguments)
        environment = os.environ | _ARITHMETIC
        program = "import sys; from radan_ros.programs import face_model; sys.exit(face_model())"
        command = [sys.executable, "-W", "ignore", "-c", program, *given]
        os.execve(sys.executable, command, environment)
    try:
        from radan_ros.face_models import write_face_model
        from radan_ros.face_models.making.build import STEP, build_face_model

        options.out.parent.mkdir(parents=True, exist_ok=True)
        if sys.stderr.isatty():
            print("Making the face model (some seconds)", file=sys.stderr)
        face_model = build_face_model()
        write_face_model(options.out, face_model, step=STEP)
        content = options.out.read_bytes()
        print(f"{options.out}: {len(content) / 1e6:.2f} MB, SHA-256 {hashlib.sha256(content).hexdigest()}")
        if options.pictures is not None:
            from radan_ros.face_models.making.pictures import write_pictures

            options.pictures.mkdir(parents=True, exist_ok=True)
            for path in write_pictures(face_model, options.pictures):
                print(path)
        if options.measure:
            _measure(face_model, options)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        print(f"radan-face-model: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _measure(face_model: FaceModel, options: argparse.Namespace) -> None:
    from radan_ros.face_models.making.gaussian_process import MEASURES
    from radan_ros.face_models.making.measure import measure_on_ict, measure_on_photographs

    rows = []
    for measure in MEASURES:
        deviation = measure.deviation_in(face_model.shape_basis, face_model.landmarks)
        rows.append((measure.name, *_mm(measure.deviation, measure.deviation_without_size, deviation)))
    _table(("standard deviation, mm", "of people, about", "without size", "of the model"), rows)
    if options.ict.is_dir():
        figures = measure_on_ict(face_model, options.ict, options.identities)
        rows = [
            (f"{options.identities} identities, surface", *_mm(*_summary(figures.identities)), "2.0"),
            (f"{options.identities} identities, 68 landmarks", *_mm(*_summary(figures.identity_landmarks)), "3.0"),
        ]
        for name, distance in figures.expressions.items():
            rows.append((f"{name}, surface", *_mm(distance), "", "", "2.5"))
            rows.append((f"{name}, 68 landmarks", *_mm(figures.expression_landmarks[name]), "", "", "3.0"))
        _table(("fitted to ICT-FaceKit, mm", "mean", "median", "worst", "bar of the mean"), rows)
    else:
        print(f"not measured: there is no ICT-FaceKit in {options.ict} (option --ict)")
    if options.photographs.is_dir():
        shares = measure_on_photographs(face_model, options.photographs)
        row = (f"{len(shares)} near-frontal faces", *(f"{100 * value:.2f}" for value in _summary(shares)))
        _table(("fitted to 2D landmarks, % of the face", "mean", "median", "worst"), [row])
    else:
        print(f"not measured: there are no landmarks on photographs in {options.photographs} (option --photographs)")


def _summary(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, median and worst."""
    ordered = sorted(float(value) for value in values)
    middle = len(ordered) // 2
    return sum(ordered) / len(ordered), (ordered[middle] + ordered[-1 - middle]) / 2, ordered[-1]


def _mm(*metres: float) -> tuple[str, ...]:
    return tuple(f"{1e3 * value:.2f}" for value in metres)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print as Markdown, columns aligned."""
    lines = [head, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    print()
    for i, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-face-model", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=_PACKAGE / "data" / "model" / "face_model.npz", help="file to write (the package's)"
    )
    parser.add_argument("--pictures", type=Path, help="folder to draw it into (no pictures)")
    parser.add_argument("--measure", action="store_true", help="print how well it fits other faces")
    parser.add_argument(
        "--ict", type=Path, default=_SHARED / "models" / "ict_facekit", help="folder with ict_face_light.npz"
    )
    parser.add_argument(
        "--photographs", type=Path, default=_SHARED / "datasets" / "ytf68", help="folder with labels.npz"
    )
    parser.add_argument("--identities", type=positive_integer, default=100, help="random identities to fit (100)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
