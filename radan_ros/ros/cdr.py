"""The bytes of a serialised message (CDR, as Fast DDS writes it) made the same each time."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

# Bytes of the basic types by their names in IDL; `octet` and the like are one.
_SIZES = {
    **dict.fromkeys(("boolean", "octet", "char", "uint8", "int8"), 1),
    **dict.fromkeys(("int16", "uint16"), 2),
    **dict.fromkeys(("int32", "uint32", "float"), 4),
    **dict.fromkeys(("int64", "uint64", "double"), 8),
}
_HEADER = 4  # bytes of encapsulation; alignment counts from behind them
_COUNT = struct.Struct("=I")  # of this machine's byte order, as it serialises

# What a field is made of: ("run", bytes of a number, how many), ("text",), ("sequence", step), ("array", length, step),
# ("fields", steps).
_Step = tuple[Any, ...]


def without_padding_noise(raw: bytes, kind: Any) -> bytes:
    """Set the bytes between the fields of a message to zero.

    CDR aligns numbers to multiples of their size; Fast CDR leaves what it skips as the memory was.

    Parameters
    ----------
    raw : bytes
        As `rclpy.serialization.serialize_message` gives it.
    kind : type
        Class of the message.

    Raises
    ------
    ValueError
        When the bytes are not those of such a message.
    """
    gaps: list[slice] = []
    try:
        end = _walk(raw, _HEADER, _plan(kind), gaps)
    except struct.error:
        end = len(raw) + 1
    if not end <= len(raw) < end + 8:
        raise ValueError(f"{len(raw)} bytes are no {kind.__name__} in CDR, which takes {end}")
    gaps.append(slice(end, len(raw)))
    if not any(any(raw[gap]) for gap in gaps):
        return raw
    buffer = bytearray(raw)
    for gap in gaps:
        buffer[gap] = bytes(len(buffer[gap]))
    return bytes(buffer)


def _walk(raw: bytes, at: int, step: _Step, gaps: list[slice]) -> int:
    """Find the padding in a field that begins at or after `at`: where it ends."""
    what = step[0]
    if what == "run":
        return _aligned(at, step[1], gaps) + step[1] * step[2] if step[2] else at
    if what == "fields":
        for inner in step[1]:
            at = _walk(raw, at, inner, gaps)
        return at
    if what == "array":
        for _ in range(step[1]):
            at = _walk(raw, at, step[2], gaps)
        return at
    at = _aligned(at, _COUNT.size, gaps)
    (length,) = _COUNT.unpack_from(raw, at)
    at += _COUNT.size
    if what == "text":
        return at + int(length)
    inner = step[1]
    if inner[0] == "run":
        return _walk(raw, at, ("run", inner[1], inner[2] * length), gaps)
    for _ in range(min(length, len(raw))):  # a count beyond the message is none
        at = _walk(raw, at, inner, gaps)
    return at


def _aligned(at: int, size: int, gaps: list[slice]) -> int:
    gap = (_HEADER - at) % size
    if gap:
        gaps.append(slice(at, at + gap))
    return at + gap


@cache
def _plan(kind: Any) -> _Step:
    """The fields of a message class. Neighbours of one size are one run: nothing lies between them."""
    steps: list[_Step] = []
    for slot in kind.SLOT_TYPES:
        step = _step(slot)
        if step[0] == "run" and steps and steps[-1][:2] == step[:2]:
            step = ("run", step[1], steps.pop()[2] + step[2])
        steps.append(step)
    return steps[0] if len(steps) == 1 and steps[0][0] == "run" else ("fields", tuple(steps))


def _step(slot: Any) -> _Step:
    from rosidl_parser import definition as idl

    if isinstance(slot, idl.BasicType):
        return ("run", _SIZES[slot.typename], 1)
    if isinstance(slot, idl.AbstractString):
        return ("text",)
    if isinstance(slot, idl.NamespacedType):
        from radan_ros.tools.record import message_class

        return _plan(message_class("/".join(slot.namespaced_name())))
    inner = _step(slot.value_type)
    if isinstance(slot, idl.AbstractSequence):
        return ("sequence", inner)
    if inner[0] == "run":
        return ("run", inner[1], inner[2] * slot.size)
    return ("array", slot.size, inner)
