"""Read NumPy arrays out of pickle files from elsewhere without running any code of theirs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

# All that a pickled dictionary of NumPy arrays refers to, under the module names of NumPy 1 and 2.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which data has no need of")
        # NumPy 2 renamed its core; a file from NumPy 2 must open under NumPy 1 and the reverse.
        if module.startswith(("numpy.core", "numpy._core")):
            core = "_core" if int(np.__version__.split(".")[0]) >= 2 else "core"
            module = f"numpy.{core}.{module.rsplit('.', 1)[1]}"
        return super().find_class(module, name)


def load_arrays(path: str | Path) -> Any:
    """Unpickle NumPy arrays, and dictionaries and lists of them.

    Raises
    ------
    ValueError
        Names the file: it is damaged, or it refers to anything but NumPy arrays (nothing of that is executed).
    OSError
        When it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except (
            pickle.UnpicklingError,
            EOFError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            ImportError,
        ) as e:
            raise ValueError(f"{path}: not a pickle of NumPy arrays: {e}") from None
