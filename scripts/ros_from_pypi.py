"""Makes ROS 2 from PyPI usable in the virtual environment whose Python runs this.

The CMake files in the wheels name the include folders of the machine that built them. They are rewritten to this
Python's and this NumPy's. A second run finds nothing to do.

usage: python scripts/ros_from_pypi.py [--check]
  --check  only look whether this machine can build the messages (Python's headers, a C++ compiler, make)
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from pathlib import Path

BUILD_FARM_PYTHON = re.compile(r"/opt/python/cp\d+-cp\d+t?/include/python3\.\d+t?")
BUILD_FARM_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+t?/lib/python3\.\d+t?/site-packages/numpy/_?core/include")


def missing_tools() -> list[str]:
    """Say what this machine lacks to build message packages.

    Returns
    -------
    list of str
        One sentence each, with what to install. Empty when all is there.
    """
    missing = []
    version = sys.version_info
    if not (3, 10) <= version[:2] <= (3, 14):
        missing.append(
            f"ROS 2 on PyPI is for CPython 3.10 to 3.14, this is {version.major}.{version.minor}: PYTHON=python3.12"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        missing.append(f"{header} is missing: install Python's headers (Debian, Ubuntu: apt install python3-dev)")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        missing.append("no C++ compiler: install one (Debian, Ubuntu: apt install g++)")
    return missing


def rewrite_include_folders(share: Path, python_include: str, numpy_include: str) -> int:
    """Replace the build farm's include folders in all CMake files below a folder.

    Parameters
    ----------
    share : Path
        The folder `share` of the environment.
    python_include, numpy_include : str
        Folders with `Python.h` and with `numpy/arrayobject.h`.

    Returns
    -------
    int
        How many files were changed.
    """
    changed = 0
    for path in sorted(share.rglob("*.cmake")):
        old = path.read_text(encoding="utf-8")
        new = BUILD_FARM_NUMPY.sub(lambda _: numpy_include, old)
        new = BUILD_FARM_PYTHON.sub(lambda _: python_include, new)
        if new != old:
            path.write_text(new, encoding="utf-8")
            changed += 1
    return changed


def main() -> int:
    """Check the machine, then rewrite. Returns the exit status."""
    missing = missing_tools()
    for sentence in missing:
        print(sentence, file=sys.stderr)
    if missing or "--check" in sys.argv[1:]:
        return 1 if missing else 0

    import numpy

    rewrite_include_folders(Path(sys.prefix) / "share", sysconfig.get_path("include"), numpy.get_include())
    return 0


if __name__ == "__main__":
    sys.exit(main())
