"""Reading ahead and writing behind in threads of their own, for work whose stages wait for each other."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 0.1  # seconds between looks at whether the reader's items are still wanted
_SMALL = 1 << 20  # bytes of small items that may be ahead, however many they are


class _Closed(Exception):
    """Nobody wants the items any more."""


class _Buffer:
    """What one thread has made and another one has not taken yet: so many items, or more where they are small."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._items: deque[tuple[bool, Any, int]] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def put(self, entry: tuple[bool, Any], size: int) -> None:
        with self._changed:
            while not self.closed and len(self._items) >= self._most and self._held + size > _SMALL:
                self._changed.wait(_PATIENCE)
            if self.closed:
                raise _Closed
            self._items.append((*entry, size))
            self._held += size
            self._changed.notify()

    def take(self) -> list[tuple[bool, Any]]:
        """The next item, and those behind it that are small: threads take turns for each lot, not for each item."""
        with self._changed:
            while not self._items:  # not without limit: Ctrl-C would have to wait for an item
                self._changed.wait(_PATIENCE)
            lot: list[tuple[bool, Any]] = []
            size = 0
            while self._items and (not lot or size + self._items[0][2] <= _SMALL // 8):
                is_item, value, held = self._items.popleft()
                lot.append((is_item, value))
                size += held
            self._held -= size
            self._changed.notify()
            return lot


def read_ahead(
    items: Iterable[T], most: int, size: Callable[[T], int] = lambda _: _SMALL + 1
) -> Generator[T, None, None]:
    """The items, made by a thread that is ahead of who takes them; what it raises is raised here, in its place.

    When the generator is closed, the thread ends after the item that it is at.

    Parameters
    ----------
    items : iterable
    most : int
        How many items it may be ahead.
    size : callable, optional
        Bytes of an item: a megabyte of items may be ahead, however many they are.
    """
    buffer = _Buffer(most)

    def read() -> None:
        try:
            try:
                for item in items:
                    buffer.put((True, item), size(item))
                buffer.put((False, None), 0)
            finally:
                if isinstance(items, Generator):  # which may have threads, too
                    items.close()
        except _Closed:
            pass
        except BaseException as error:  # belongs to whoever takes the items
            with contextlib.suppress(_Closed):
                buffer.put((False, error), 0)

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        while True:
            for is_item, value in buffer.take():
                if is_item:
                    yield value
                elif value is None:
                    return
                else:
                    raise value
    finally:
        buffer.closed = True
        thread.join()


class WriteBehind:
    """Jobs done in their order by one thread; what one raises is raised by a later call, and none is done behind it.

    Parameters
    ----------
    most : int
        Jobs that may wait.
    size : int, optional
        Bytes that they may hold, but for one that holds more by itself.
    undo : callable, optional
        Called by the thread at its end when something went wrong, here or in a job.
    """

    def __init__(self, most: int, size: int = sys.maxsize, undo: Callable[[], None] | None = None) -> None:
        self._most, self._size, self._undo = most, size, undo
        self._held = 0
        self._broken = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._jobs: deque[tuple[Future[None], int]] = deque()

    def __call__(self, job: Callable[..., None], *arguments: Any, size: int = 0) -> None:
        """Have a job done that holds so many bytes; waits while too many are waiting."""
        self._jobs.append((self._pool.submit(self._do, job, *arguments), size))
        self._held += size
        while (
            len(self._jobs) > self._most
            or self._held > max(self._size, size)
            or (self._jobs and self._jobs[0][0].done())
        ):
            self._pop()

    def _do(self, job: Callable[..., None], *arguments: Any) -> None:
        if self._broken:  # it would be written behind a gap
            return
        try:
            job(*arguments)
        except BaseException:
            self._broken = True
            raise

    def _pop(self) -> None:
        job, held = self._jobs.popleft()
        job.result()
        self._held -= held

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all jobs; after an error, for the one that is being done."""
        try:
            if kind is None:
                while self._jobs:
                    self._pop()
        except BaseException:
            kind = BaseException
            raise
        finally:
            if kind is not None:
                self._broken = True
                if self._undo is not None:
                    self._pool.submit(self._undo)
            self._pool.shutdown(wait=True)
