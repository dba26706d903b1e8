"""Numbers on the command line, for argparse: each function reads one, or says what it is not."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable


def number(text: str, fits: Callable[[float], bool], what: str) -> float:
    """A number that fits; otherwise it is not `what`."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{text} is not {what}")
    return value


def finite(text: str) -> float:
    """Any number but infinity and NaN."""
    return number(text, math.isfinite, "a number")


def positive(text: str) -> float:
    """A finite number over zero."""
    return number(text, lambda value: math.isfinite(value) and value > 0, "a positive number")


def field_of_view(text: str) -> float:
    """Degrees."""
    return number(text, lambda value: 0 < value < 180, "between 0 and 180 degrees")


def whole(text: str) -> int:
    """A whole number from zero."""
    if not (text.isdecimal() and int(text) <= sys.maxsize):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)


def positive_integer(text: str) -> int:
    """A whole number from one."""
    if not (text.isdecimal() and 0 < int(text) <= sys.maxsize):
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)
