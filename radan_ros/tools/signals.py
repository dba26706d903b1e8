"""Ctrl-C, SIGTERM and a closed terminal for programs that have something to put away."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

QUIET = 10.0  # seconds that a program has to end before a signal disturbs it again


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt in a with block; while it then ends, further ones do nothing.

    Not for ever: Python swallows what is raised while it puts an object away, and the program may then not end at all.
    A signal that was ignored when the program began, as Ctrl-C is in a background job, stays so.

    Attributes
    ----------
    last : int or None
        The signal that came last.
    """

    def __init__(self) -> None:
        self.last: int | None = None
        self._pending = False
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # which alone may
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # After one, Python has threads and modules to put away yet.
            signal.signal(number, handler if self.last is None else signal.SIG_IGN)

    @property
    def status(self) -> int:
        """The exit status of a program that was interrupted: 130, 143 or 129."""
        return 128 + (self.last or signal.SIGINT)

    def check(self) -> None:
        """KeyboardInterrupt once more where one was swallowed: a library's callback may do that. For loops to call."""
        if self._pending:
            raise KeyboardInterrupt(self.last)

    def listen(self) -> None:
        """Take signals again at once: one has ended a part of the work, and that alone."""
        self._pending = False

    def _end(self, number: int, _: object) -> None:
        now = time.monotonic()
        if not self._pending or now - self._at > QUIET:
            self.last, self._at, self._pending = number, now, True
            raise KeyboardInterrupt(number)
