"""``radan-train-presence``: teaches a trained radan_mobile to tell faces that its answers fit from everything else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from radan_ros.tools.numbers import positive_integer, whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        _train(options)
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        print(f"radan-train-presence: {error} (training needs torch: pip install 'radan_ros[train]')", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"radan-train-presence: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    from radan_ros.training.presence import train_presence

    for given in options.photographs:
        if len(given) > 2:
            raise ValueError(f"--photographs {' '.join(map(str, given))}: a folder, and at most one file of labels")
    rows = train_presence(
        options.model,
        options.samples,
        [(folder, labels[0] if labels else None) for folder, *labels in options.photographs],
        options.unseen,
        count=options.count,
        seed=options.seed,
        threads=options.threads,
        say=lambda text: print(text, file=sys.stderr),
    )
    print("on pictures that were not learned from:")
    for name, value in rows.items():
        whole, percent = name in ("faces", "others"), name.startswith(("lost", "passed", "others at"))
        text = f"{value:.0f}" if whole else f"{100 * value:.2f} %" if percent else f"{value:.4f}"
        print(f"  {name:28}{text:>10}")
    print(f"{options.model}: its network has the head now")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-train-presence", description=__doc__)
    parser.add_argument("model", type=Path, help="model folder; the head is written into its checkpoint")
    parser.add_argument(
        "--samples", type=Path, nargs="+", required=True, metavar="FOLDER", help="faces, as radan-prepare writes them"
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        nargs="+",
        action="append",
        required=True,
        metavar=("FOLDER", "LABELS"),
        help="labelled photographs, for what is beside a face; LABELS instead of the folder's own. Of a folder "
        "with the splits train and val the second is for the figures alone",
    )
    parser.add_argument(
        "--unseen", type=Path, nargs="*", default=[], metavar="FOLDER", help="more samples for the figures alone"
    )
    parser.add_argument("--count", type=positive_integer, default=500, help="photographs of each folder (500)")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument("--threads", type=positive_integer, help="of the network")
    return parser


if __name__ == "__main__":
    sys.exit(main())
