"""Processes that are started for work, and the Ctrl-C that is not for them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

_LOOK_EVERY = 0.2  # seconds


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started in a with block never see Ctrl-C, which a terminal sends to all processes at once.

    Of a `ProcessPoolExecutor` that spawns, they start when work is submitted. An initializer that ignores the signal
    would come too late: a new interpreter imports for a second before. What the program itself is sent meanwhile, it
    gets after the block: an exception between the steps of a start leaves a pool that cannot be shut down any more.
    """
    noted: list[int] = []
    held: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():  # whose handlers raise
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                held[number] = handler
                signal.signal(number, lambda number, _: noted.append(number))
    resource_tracker.ensure_running()  # whose start would take the mask away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for held_number, handler in held.items():
            signal.signal(held_number, handler)
        if noted:
            signal.raise_signal(noted[0])


def end_with_parent(parent: int) -> None:
    """End this process when the one that began it (its number) does, however that is: for an initializer to call."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
