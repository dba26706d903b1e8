"""A thread of its own for the face detector, which takes as long as several images."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from radan_ros.detectors import Detector
from radan_ros.face import Detection

# Seconds that the interpreter waits at its end for detections under way. One that is cut off there may abort the
# process: dlib's code does not survive that its thread is ended.
LAST_WAIT = 1.0

_Jobs = SimpleQueue[Callable[[], None] | None]
_threads: weakref.WeakKeyDictionary[threading.Thread, _Jobs] = weakref.WeakKeyDictionary()


class DetectionWorker:
    """Runs detectors, one image after the other, beside the caller or in line.

    The thread starts with the first image and ends with `close`, or with the worker when nobody holds it any more. The
    interpreter, when it ends, waits for it for up to `LAST_WAIT`; for one of `concurrent.futures`, without limit.

    Attributes
    ----------
    count : int
        Detections so far, those that failed included.
    seconds : float
        What the last one took; NaN before the first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.seconds = float("nan")
        self._jobs: _Jobs = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, detector: Detector, image: NDArray[np.uint8]) -> Future[list[Detection]]:
        """Begin with an image (H, W, 3) uint8 BGR, not to be written to until then; returns at once."""
        if self._thread is None:
            self._jobs = SimpleQueue()
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name="radan_detector", daemon=True)
            self._thread.start()
            _threads[self._thread] = self._jobs
            self._end = weakref.finalize(self, self._jobs.put, None)
        answer: Future[list[Detection]] = Future()
        self._jobs.put(partial(self._answer, answer, detector, image))
        return answer

    def run(self, detector: Detector, image: NDArray[np.uint8]) -> Future[list[Detection]]:
        """The same, but finished when it returns."""
        done: Future[list[Detection]] = Future()
        self._answer(done, detector, image)
        return done

    def close(self, wait: bool = True) -> None:
        """End the thread after the detections that were begun and not cancelled, and `wait` for that or not.

        A later `start` begins a new thread.
        """
        if self._thread is not None:
            self._end()
            if wait:
                self._thread.join()
            self._thread = None

    def _answer(self, answer: Future[list[Detection]], detector: Detector, image: NDArray[np.uint8]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(self._detect(detector, image))
        except Exception as e:  # whoever asks for the result gets it
            answer.set_exception(e)

    def _detect(self, detector: Detector, image: NDArray[np.uint8]) -> list[Detection]:
        started = time.perf_counter()
        try:
            return detector(image)
        finally:
            self.seconds = time.perf_counter() - started
            self.count += 1


def _work(jobs: _Jobs) -> None:
    """Do jobs until there is None instead; a function that does not hold the worker, and a job only while it runs."""
    while (job := jobs.get()) is not None:
        job()
        del job


@atexit.register
def _finish() -> None:
    """End all threads, and wait for them a little."""
    running = list(_threads.items())
    for _, jobs in running:
        jobs.put(None)
    until = time.monotonic() + LAST_WAIT
    for thread, _ in running:
        thread.join(max(0.0, until - time.monotonic()))
