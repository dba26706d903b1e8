"""What a program that goes on all the same prints."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from radan_ros.errors import line


def tell(program: str, text: str) -> bool:
    """Print a line at once. False where standard output is closed or full, which is said; what follows is dropped."""
    try:
        tqdm.write(text)  # above a bar, where there is one
        sys.stdout.flush()
    except OSError as error:
        print(f"{program}: standard output: {line(error)}", file=sys.stderr)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return False
    return True
