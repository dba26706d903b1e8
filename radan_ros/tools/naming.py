"""Names for the results of inputs, so that no two inputs share one, and which files of a folder are such results."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

# Pictures that are results themselves: of what (an input's name, and the number of a video's frame), and their kind.
_RESULT = re.compile(
    r"(?P<name>.+?)(?P<frame>_\d{6,})?_"
    r"(?:(?P<whole>(?:pose|landmarks)(?=\.jpg)|(?:depth|depth_mm|pncc)(?=\.png))"
    r"|\d+_(?P<face>(?:paf|crop)(?=\.jpg)|(?:texture|visible)(?=\.png)))\.\w+"
)


def _stem(path: Path) -> str:
    return path.stem


def distinct_names(paths: Sequence[Path], stem: Callable[[Path], str] = _stem) -> list[str]:
    """A name a path: its stem; where several share one, with the ending as well, and then with folders before it.

    ``a.jpg`` is ``a``; beside ``a.png`` the two are ``a_jpg`` and ``a_png``; ``x/a.jpg`` and ``y/a.jpg`` are
    ``x_a_jpg`` and ``y_a_jpg``.

    Parameters
    ----------
    paths : sequence of Path
        All different.
    stem : callable
        What a file's name is without its ending.
    """
    absolute = [unrolled(path) for path in paths]
    stems = names = [stem(path) for path in absolute]
    for depth in range(1 + max((len(path.parts) for path in absolute), default=0)):
        counts = Counter(names)
        if len(counts) == len(names):
            return names
        names = [
            name if counts[name] == 1 else _with_folders(path, before, depth)
            for name, path, before in zip(names, absolute, stems, strict=True)
        ]
    return [f"{name}_{i}" for i, name in enumerate(names)]  # folders whose names have "_" in them can still be alike


def unrolled(path: Path) -> Path:
    """The path from the root, without ``.`` and ``..``; links stay, since two of one file have names of their own."""
    return Path(os.path.abspath(path))


def results_among(paths: Sequence[Path], folder: Path) -> dict[Path, str]:
    """The paths that an earlier run with `folder` for its results made of the others, and the kind of each.

    They lie in the folder itself, and are named as the results of those that remain (`distinct_names`).

    Parameters
    ----------
    paths : sequence of Path
        All different.
    folder : Path
    """
    place = unrolled(folder)
    matches = {path: _RESULT.fullmatch(path.name) for path in paths if unrolled(path).parent == place}
    made = {path: match for path, match in matches.items() if match is not None}
    while made:
        names = {*distinct_names([path for path in paths if path not in made])}
        # Of a frame, or of a picture whose name ends as one does.
        left = {path: m for path, m in made.items() if {m["name"], m["name"] + (m["frame"] or "")} & names}
        if len(left) == len(made):
            break
        made = left
    return {path: (match["whole"] or match["face"]).replace("_", "-") for path, match in made.items()}


def _with_folders(path: Path, stem: str, depth: int) -> str:
    folders = path.parts[1:-1]
    return "_".join([*folders[len(folders) - depth :], stem, path.name[len(stem) :].lstrip(".")]).strip("_")
