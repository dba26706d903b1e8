"""Files that are written whole or not at all: beside their place, and moved there at the end."""

from __future__ import annotations

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
    with _moved_at_the_end(target) as part:
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
            with _moved_at_the_end(self.path):
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
def _moved_at_the_end(path: Path) -> Iterator[Path]:
    part = _part_of(path)
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        _remove(part)


def _part_of(path: Path) -> Path:
    """Where a file is written until it is whole: beside its place, of the same ending."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


def _named(error: OSError, path: Path) -> OSError:
    """The error with the name of the file that was meant: a full disk is told without one, else it is the part's."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def _remove(part: Path) -> None:
    with suppress(OSError):  # a disk that takes no writing refuses this, too, also of what is not there
        part.unlink(missing_ok=True)
