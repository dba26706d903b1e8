"""How programs that run until they are told to end do end: between two pieces of work, however often they are told."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

LAST_WORK = 1.0  # seconds that what is at work, an image or the start, has to end when the program does


class Ending:
    """From its making on, SIGINT and SIGTERM ask the program to end, and tear nothing out of what it does.

    rclpy has to be told to leave the signals alone: its own handlers end the context under whoever uses it.

    What cannot be interrupted, opening a model or a camera for instance, has `LAST_WORK` seconds from then on; then the
    program is over, with status 0. `finish` takes that limit away.
    """

    def __init__(self) -> None:
        self._asked = False
        self._finishing = threading.Event()
        # A thread that is there already, and a pipe to it: a handler may come in the middle of anything, also of the
        # start of a thread, and may take no lock.
        self._ears, self._mouth = os.pipe()
        threading.Thread(target=self._watch, name="ending", daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked

    def finish(self) -> None:
        """From now on what remains to be done is done to its end."""
        self._finishing.set()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            os.write(self._mouth, b".")

    def _watch(self) -> None:
        os.read(self._ears, 1)
        if not self._finishing.wait(LAST_WORK):
            os._exit(0)
