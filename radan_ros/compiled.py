"""How loops over vertices and triangles are compiled (Numba)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call, free of the GIL; keep the machine code on disk where a cache can be written."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # Numba found neither a writable __pycache__ nor a writable user cache
        return njit(nogil=True, error_model="numpy")(function)
