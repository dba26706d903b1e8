"""Errors as users are told of them."""

from __future__ import annotations


def line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
