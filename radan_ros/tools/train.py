"""``radan-train``: trains a network as a configuration file says; under torchrun, with several processes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from radan_ros.errors import line
from radan_ros.tools.signals import Signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 or 143 after a signal."""
    options = _parser().parse_args(arguments)
    signals = Signals()  # until the steps begin, which have handlers of their own
    try:
        with signals:
            return _train(options)
    except KeyboardInterrupt:
        return signals.status
    except ImportError as error:
        print(f"radan-train: {error} (training needs torch: pip install 'radan_ros[train]')", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"radan-train: {line(error)}", file=sys.stderr)
        return 1


def _train(options: argparse.Namespace) -> int:
    from radan_ros.training.config import read_config
    from radan_ros.training.loop import export_model, train

    overrides = [*options.set, *([f"output={json.dumps(options.output)}"] if options.output is not None else [])]
    config = read_config(options.config, overrides)
    if not train(config, resume=options.resume):
        return 130
    if int(os.environ.get("RANK", 0)) == 0:
        folder = export_model(config.output, Path(config.output) / "model")
        print(f"{folder}: the trained model")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="radan-train", description=__doc__)
    parser.add_argument("config", type=Path, help="YAML file; see config/training/")
    parser.add_argument("--resume", action="store_true", help="go on from last.pth of the output folder")
    parser.add_argument("--output", help="output folder instead of the file's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace an entry: optimiser.rate=0.01"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
