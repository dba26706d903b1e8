"""Read NumPy arrays out of pickle files from elsewhere without running any code of theirs.

A pickle is a program for a small stack machine. This is that machine with nothing dangerous in it: Python's own, even
when it is told which classes it may hand out, lets a crafted file call NumPy's constructors on raw bytes as if these
were Python objects, hash tuples nested so deeply that the stack overflows, or fill the memory with a table of
references. Here a file gets to make numbers, text, lists, tuples, dictionaries and plain numeric arrays, and none of
them can be larger than the file.
"""

from __future__ import annotations

import codecs
import math
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# All that pickled NumPy arrays refer to. NumPy 2 renamed numpy.core to numpy._core; these are NumPy 1's names.
# Pickle protocols 0 to 2 have no bytes: they call for bytes() and encode(text, "latin1").
_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("builtins", "bytes"),
    ("__builtin__", "bytes"),
}
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]")
_LARGEST_PROTOCOL = 5
_MOST_DIMENSIONS = 32  # NumPy 1's limit


class _Refused(ValueError):
    """The pickle does something that arrays have no need of."""


@dataclass(frozen=True)
class _Name:
    """Stands for a function or class that the pickle refers to; the real one is never touched."""

    name: str


@dataclass(eq=False)
class _Dtype:
    code: str
    order: str = "="

    def real(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class _Array:
    """An array as pickles make them: first empty, then filled with its state."""

    array: NDArray[Any] | None = None


def _integer(text: bytes) -> int:
    if len(text) > 64:  # long ones take quadratic time
        raise _Refused("it has an integer of too many digits")
    return int(text)


def _int_or_bool(line: bytes) -> int | bool:
    return line == b"01" if line in (b"00", b"01") else _integer(line)


def _string(line: bytes) -> str:
    """Python 2's text: its repr()."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise _Refused("a string has no quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")  # type: ignore[attr-defined,unused-ignore]


def _utf8(content: bytes) -> str:
    return content.decode("utf-8")


def _latin1(content: bytes) -> str:
    return content.decode("latin1")


def _little_endian(content: bytes) -> int:
    return int.from_bytes(content, "little", signed=True)


# Opcodes that push one value, by how it is written: a constant, ...
_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    pickle.NONE: lambda: None,
    pickle.NEWTRUE: lambda: True,
    pickle.NEWFALSE: lambda: False,
    pickle.EMPTY_LIST: list,
    pickle.EMPTY_DICT: dict,
    pickle.EMPTY_TUPLE: tuple,
}
# ... a binary number, ...
_NUMBERS = {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BINFLOAT: ">d"}
# ... a line of text, ...
_LINES: dict[bytes, Callable[[bytes], Any]] = {
    pickle.INT: _int_or_bool,
    pickle.LONG: lambda line: _integer(line.removesuffix(b"L")),
    pickle.FLOAT: float,
    pickle.STRING: _string,
    pickle.UNICODE: lambda line: line.decode("raw-unicode-escape"),
}
# ... or bytes after their count, which itself has so many bytes.
_SIZED: dict[bytes, tuple[int, Callable[[bytes], Any]]] = {
    pickle.SHORT_BINBYTES: (1, bytes),
    pickle.BINBYTES: (4, bytes),
    pickle.BINBYTES8: (8, bytes),
    pickle.BYTEARRAY8: (8, bytes),
    pickle.SHORT_BINUNICODE: (1, _utf8),
    pickle.BINUNICODE: (4, _utf8),
    pickle.BINUNICODE8: (8, _utf8),
    pickle.SHORT_BINSTRING: (1, _latin1),
    pickle.BINSTRING: (4, _latin1),
    pickle.LONG1: (1, _little_endian),
    pickle.LONG4: (4, _little_endian),
}
_PUTS = {pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"}
_GETS = {pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}


class _Machine:
    """Runs one pickle."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        self._encoded = 0  # bytes made from text

    def run(self) -> Any:
        """The value of the pickle, with stand-ins in it."""
        while (opcode := self._take(1)) != pickle.STOP:
            self._step(opcode)
        return self._stack.pop()

    def _step(self, opcode: bytes) -> None:
        stack = self._stack
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode]())
        elif opcode in _NUMBERS:
            stack.append(self._number(_NUMBERS[opcode]))
        elif opcode in _LINES:
            stack.append(_LINES[opcode](self._line()))
        elif opcode in _SIZED:
            size, made = _SIZED[opcode]
            stack.append(made(self._take(int.from_bytes(self._take(size), "little"))))
        elif opcode in _PUTS:
            self._memo[self._number(_PUTS[opcode])] = stack[-1]
        elif opcode in _GETS:
            stack.append(self._memo[self._number(_GETS[opcode])])
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            if len(stack) < count:
                raise _Refused("its stack is empty")
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode == pickle.PUT:
            self._memo[_integer(self._line())] = stack[-1]
        elif opcode == pickle.GET:
            stack.append(self._memo[_integer(self._line())])
        elif opcode == pickle.MEMOIZE:
            self._memo[len(self._memo)] = stack[-1]
        elif opcode == pickle.PROTO:
            if (protocol := self._number("<B")) > _LARGEST_PROTOCOL:
                raise _Refused(f"pickle protocol {protocol} is not known")
        elif opcode == pickle.FRAME:
            self._take(8)  # frames only help to read ahead
        elif opcode == pickle.MARK:
            self._below.append(stack)
            self._stack = []
        elif opcode == pickle.POP:
            if stack:
                stack.pop()
            else:
                self._since_mark()
        elif opcode == pickle.POP_MARK:
            self._since_mark()
        elif opcode == pickle.DUP:
            stack.append(stack[-1])
        elif opcode == pickle.TUPLE:
            self._push(tuple(self._since_mark()))
        elif opcode == pickle.LIST:
            self._push(self._since_mark())
        elif opcode == pickle.DICT:
            items = self._since_mark()
            self._push({})
            self._set(items)
        elif opcode == pickle.APPEND:
            self._extend([stack.pop()])
        elif opcode == pickle.APPENDS:
            self._extend(self._since_mark())
        elif opcode == pickle.SETITEM:
            value, key = stack.pop(), stack.pop()
            self._set([key, value])
        elif opcode == pickle.SETITEMS:
            self._set(self._since_mark())
        elif opcode == pickle.GLOBAL:
            module = _utf8(self._line())
            stack.append(_find(module, _utf8(self._line())))
        elif opcode == pickle.STACK_GLOBAL:
            name, module = stack.pop(), stack.pop()
            stack.append(_find(module, name))
        elif opcode == pickle.REDUCE:
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif opcode == pickle.BUILD:
            state = stack.pop()
            self._build(stack[-1], state)
        else:
            raise _Refused(f"byte {self._at - 1} is an instruction ({opcode!r}) that arrays have no need of")

    def _take(self, count: int) -> bytes:
        if count > len(self._content) - self._at:
            raise _Refused("it ends too early")
        self._at += count
        return self._content[self._at - count : self._at]

    def _line(self) -> bytes:
        end = self._content.find(b"\n", self._at)
        if end < 0:
            raise _Refused("it ends too early")
        return self._take(end + 1 - self._at)[:-1]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _since_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._below.pop()
        return values

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise _Refused("it appends to something that is no list")
        self._stack[-1].extend(values)

    def _set(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not dict or len(items) % 2:
            raise _Refused("it sets items of something that is no dictionary")
        keys = items[::2]
        # Nested tuples would be hashed with one C call per level.
        if not all(type(key) is str or (type(key) is int and key.bit_length() <= 64) for key in keys):
            raise _Refused("a dictionary has keys other than text and integers")
        self._stack[-1].update(zip(keys, items[1::2], strict=True))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise _Refused("it calls something that is no function")
        if function.name == "_reconstruct" and arguments[:1] == (_Name("ndarray"),):
            return _Array()
        if function.name == "dtype":
            return _dtype(arguments)
        if function.name == "scalar":
            dtype, content = arguments
            return self._array((), dtype, False, content)[()]
        if function.name == "_frombuffer":
            content, dtype, shape, order = arguments
            if order not in ("C", "F"):
                raise _Refused("an array is neither in C nor in Fortran order")
            return self._array(shape, dtype, order == "F", content)
        if function.name == "encode":
            text, encoding = arguments
            if encoding not in ("latin1", "latin-1"):
                raise _Refused("it encodes text otherwise than NumPy does")
            return self._encode(text)
        if function.name == "bytes" and arguments == ():
            return b""
        raise _Refused(f"it calls {function.name} otherwise than NumPy does")

    def _build(self, target: Any, state: Any) -> None:
        if type(state) is not tuple:
            raise _Refused("it has a state that is no array's")
        if isinstance(target, _Dtype):
            # (version, byte order, and what only structured types have)
            if len(state) < 2 or type(state[1]) is not str or state[1] not in ("<", ">", "|", "="):
                raise _Refused("a dtype has no byte order")
            target.order = state[1]
        elif isinstance(target, _Array) and target.array is None:
            _, shape, dtype, fortran, content = state
            target.array = self._array(shape, dtype, fortran, content)
        else:
            raise _Refused("it gives a state to something that is no array")

    def _array(self, shape: Any, dtype: Any, fortran: Any, content: Any) -> NDArray[Any]:
        """A view of the bytes, so that many arrays of the same bytes take no memory."""
        if not isinstance(dtype, _Dtype) or type(fortran) not in (bool, int):
            raise _Refused("an array has no dtype")
        if type(content) is str:  # Python 2's bytes
            content = self._encode(content)
        if type(content) is not bytes:
            raise _Refused("an array has no bytes")
        if (
            type(shape) is not tuple
            or len(shape) > _MOST_DIMENSIONS
            or not all(type(n) is int and 0 <= n < 2**62 for n in shape)
        ):
            raise _Refused("an array has an impossible shape")
        real = dtype.real()
        if math.prod(shape) * real.itemsize != len(content):
            raise _Refused("an array's shape does not match its bytes")
        return np.ndarray(shape, real, content, order="F" if fortran else "C")

    def _encode(self, text: Any) -> bytes:
        if type(text) is not str:
            raise _Refused("it encodes something that is no text")
        # Each text that NumPy writes is encoded once; the same one many times could fill the memory.
        self._encoded += len(text)
        if self._encoded > len(self._content):
            raise _Refused("its arrays are larger than the file")
        return text.encode("latin1")


def _find(module: Any, name: Any) -> _Name:
    if type(module) is not str or type(name) is not str:
        raise _Refused("it refers to something without a name")
    if (re.sub(r"^numpy\._core\b", "numpy.core", module), name) not in _NAMES:
        raise _Refused(f"it refers to {module[:80]}.{name[:80]}, which arrays have no need of")
    return _Name(name)


def _dtype(arguments: tuple[Any, ...]) -> _Dtype:
    code = arguments[0] if arguments else None
    if type(code) is not str or not _DTYPE.fullmatch(code):
        raise _Refused("it has an array of something else than numbers")
    return _Dtype(code)


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """Replace the stand-ins by the arrays; `done` has what was met, by its id (each is alive: the pickle's value)."""
    if isinstance(value, _Array):
        if value.array is None:
            raise _Refused("an array has no content")
        return value.array
    if not isinstance(value, (list, tuple, dict)):
        if isinstance(value, (_Name, _Dtype)):
            raise _Refused("it has something else than arrays in it")
        return value
    if id(value) not in done:
        done[id(value)] = _Refused  # until it is known: a container in itself meets this
        if isinstance(value, dict):
            done[id(value)] = {key: _finished(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_finished(item, done) for item in value)
    if done[id(value)] is _Refused:
        raise _Refused("a container contains itself")
    return done[id(value)]


def load_arrays(path: str | Path) -> Any:
    """Read a pickle of NumPy arrays, and of dictionaries, lists and tuples of them, numbers and text.

    Any pickle protocol, written by NumPy 1 or 2; text and arrays of Python 2 too.

    Returns
    -------
    object
        What was pickled. Arrays are of bool, int8..64, uint8..64 or float16..64, in their byte order, and read-only.

    Raises
    ------
    ValueError
        Names the file: it is damaged, or it has anything but these in it (nothing of that is executed).
    OSError
        When it cannot be read.
    """
    try:
        return _finished(_Machine(Path(path).read_bytes()).run(), {})
    except OSError:
        raise
    except Exception as e:  # a broken program can fail in any way
        reason = str(e) if isinstance(e, _Refused) else f"damaged ({type(e).__name__})"
        shown = "".join(c if c.isprintable() else " " for c in reason)
        raise ValueError(f"{path}: not a pickle of NumPy arrays: {shown}") from None
