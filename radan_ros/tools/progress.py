"""Progress bars where a person looks on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

SIZE = (80, 24)  # columns and lines of a terminal that does not tell: a serial line, or one without a window


def progress_bar(items: Iterable[Any] | None = None, *, hidden: bool = False, **options: Any) -> Any:
    """A `tqdm` on stderr with these options; hidden where stderr is no terminal."""
    from tqdm import tqdm

    hidden = hidden or not sys.stderr.isatty()
    if not hidden and not os.get_terminal_size(sys.stderr.fileno()).columns:
        options["ncols"], options["nrows"] = SIZE
    return tqdm(items, disable=hidden, **options)
