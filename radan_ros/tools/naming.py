"""Which pictures of a folder are inputs, and names for their results, so that no two inputs share one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# Pictures that are results themselves, and what they are results of.
_RESULT = re.compile(
    r"(.+)_((pose|landmarks)\.jpg|(depth|depth_mm|pncc)\.png|\d+_(paf|crop)\.jpg|\d+_(texture|visible)\.png)"
)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name a path: its stem; where several share one, with the ending as well, and then with folders before it.

    ``a.jpg`` is ``a``; beside ``a.png`` the two are ``a_jpg`` and ``a_png``; ``x/a.jpg`` and ``y/a.jpg`` are
    ``x_a_jpg`` and ``y_a_jpg``.

    Parameters
    ----------
    paths : sequence of Path
        All different.
    """
    names = [path.stem for path in paths]
    absolute = [path.absolute() for path in paths]
    for depth in range(1 + max((len(path.parts) for path in absolute), default=0)):
        counts = Counter(names)
        if len(counts) == len(names):
            return names
        names = [
            name if counts[name] == 1 else _with_folders(path, depth)
            for name, path in zip(names, absolute, strict=True)
        ]
    return [f"{name}_{i}" for i, name in enumerate(names)]  # folders whose names have "_" in them can still be alike


def without_results(files: Sequence[Path]) -> list[Path]:
    """The files of a folder, but for pictures that an earlier run made of others among them."""
    stems = {file.stem for file in files}
    made = {file: _RESULT.fullmatch(file.name) for file in files}
    return [file for file, match in made.items() if match is None or match[1] not in stems]


def _with_folders(path: Path, depth: int) -> str:
    folders = path.parts[1:-1]
    return "_".join([*folders[len(folders) - depth :], path.stem, path.suffix.lstrip(".")]).strip("_")
