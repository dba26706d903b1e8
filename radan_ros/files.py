"""Files that are written whole or not at all: beside their place, and moved there at the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all: an existing one is replaced, or stays as it was.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    OSError
        Names the file that cannot be written.
    """
    target = Path(path).absolute()
    with whole_file(target) as part:
        part.write_bytes(content)
    return target


class WholeFile:
    """A file that is written for a while, as `part`, and moved to its place when the context ends without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = _part_of(path)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        if kind is None:
            with whole_file(self.path):
                self._close(whole=True)
            return
        with suppress(OSError):  # what is left in memory may not go to the disk either
            self._close(whole=False)
        _remove(self.part)

    def _close(self, *, whole: bool) -> None:
        """End the writing; where it is not to be `whole`, the part is thrown away."""
        raise NotImplementedError

    @contextmanager
    def naming(self, *, first: bool = False) -> Iterator[None]:
        """What the disk refuses is told with the file's name; at the `first` step nothing is left of it, either."""
        try:
            yield
        except BaseException as error:
            if first:
                _remove(self.part)
            if isinstance(error, OSError):
                raise _named(error, self.path) from None
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name under which a file is to be written in a with block, at whose end it takes the place of `path`.

    After an error nothing is left of it; an OSError names `path`.
    """
    part = _part_of(path)
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(part):  # of another file, written beside it
            raise
        raise _named(error, path) from None
    finally:
        _remove(part)


def _part_of(path: Path) -> Path:
    """Where a file is written until it is whole: beside its place, of the same ending."""
    # Video writers take no names but UTF-8.
    stem = path.stem.encode(errors="replace").decode()
    return path.with_name(f".{stem}.{os.getpid()}{path.suffix}")


def _named(error: OSError, path: Path) -> OSError:
    """The error with the name of the file that was meant: a full disk is told without one, else it is the part's.

    NumPy's own, of an array that was written in part, has neither number nor name.
    """
    return OSError(error.errno or errno.EIO, error.strerror or "not written whole: the disk may be full", str(path))


def _remove(part: Path) -> None:
    with suppress(OSError):  # a disk that takes no writing refuses this, too, also of what is not there
        part.unlink(missing_ok=True)
