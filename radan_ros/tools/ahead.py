"""Reading ahead and writing behind in threads of their own, for work whose stages wait for each other."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 0.1  # seconds between looks at whether the reader's items are still wanted


def read_ahead(items: Iterable[T], most: int) -> Generator[T, None, None]:
    """The items, made by a thread that is ahead by at most so many; what it raises is raised here, in its place.

    When the generator is closed, the thread ends after the item that it is at.
    """
    queue: Queue[tuple[bool, Any]] = Queue(most)
    closed = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not closed.is_set():
            try:
                queue.put(entry, timeout=_PATIENCE)
                return True
            except Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # belongs to whoever takes the items
            put((False, error))
        finally:
            if isinstance(items, Generator):  # which may have threads, too
                items.close()

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        while True:
            try:  # not without limit: Ctrl-C would have to wait for an item
                is_item, value = queue.get(timeout=_PATIENCE)
            except Empty:
                continue
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        closed.set()
        thread.join()


class WriteBehind:
    """Jobs done in their order by one thread; what one raises is raised by a later call.

    Parameters
    ----------
    most : int
        Jobs that may wait.
    size : int, optional
        Bytes that they may hold, but for one that holds more by itself.
    """

    def __init__(self, most: int, size: int = sys.maxsize) -> None:
        self._most, self._size = most, size
        self._held = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._jobs: deque[tuple[Future[None], int]] = deque()

    def __call__(self, job: Callable[..., None], *arguments: Any, size: int = 0) -> None:
        """Have a job done that holds so many bytes; waits while too many are waiting."""
        self._jobs.append((self._pool.submit(job, *arguments), size))
        self._held += size
        while (
            len(self._jobs) > self._most
            or self._held > max(self._size, size)
            or (self._jobs and self._jobs[0][0].done())
        ):
            done, held = self._jobs.popleft()
            done.result()
            self._held -= held

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all jobs; after an error, for the one that is being done."""
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for job, _size in self._jobs:
                job.result()
