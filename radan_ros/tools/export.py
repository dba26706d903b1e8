"""``radan-export``: a torch checkpoint as an OpenVINO graph, for machines without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from radan_ros.errors import line
from radan_ros.networks import export_network, open_network


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with one line on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="radan-export", description=__doc__)
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint of radan_mobile, RADAN or MobileNet-V1 (.pth, .pth.tar)"
    )
    parser.add_argument("out", type=Path, help=".xml to write; its weights go beside it in a .bin")
    options = parser.parse_args(arguments)
    try:
        export_network(options.checkpoint, options.out)
        name = open_network(options.out, device="cpu").name
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"radan-export: {line(error)}", file=sys.stderr)
        return 1
    print(f"{options.out}: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
