"""Errors as users are told of them."""

from __future__ import annotations


def line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing; of a file, which one it is and what is wrong."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
