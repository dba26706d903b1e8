"""A thread of its own for the face detector, which takes as long as several images."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from radan_ros.detectors import Detector
from radan_ros.face import Detection


class DetectionWorker:
    """Runs detectors, one image after the other, beside the caller or in line.

    The thread starts with the first image and ends with `close`, or with the worker when nobody holds it any more.

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
        self._pool: ThreadPoolExecutor | None = None

    def start(self, detector: Detector, image: NDArray[np.uint8]) -> Future[list[Detection]]:
        """Begin with an image (H, W, 3) uint8 BGR, not to be written to until then; returns at once."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="radan_detector")
        return self._pool.submit(self._detect, detector, image)

    def run(self, detector: Detector, image: NDArray[np.uint8]) -> Future[list[Detection]]:
        """The same, but finished when it returns."""
        done: Future[list[Detection]] = Future()
        try:
            done.set_result(self._detect(detector, image))
        except Exception as e:  # whoever asks for the result gets it, as from the thread
            done.set_exception(e)
        return done

    def close(self) -> None:
        """Wait for the detection that runs, and end the thread. A later `start` begins a new one."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _detect(self, detector: Detector, image: NDArray[np.uint8]) -> list[Detection]:
        started = time.perf_counter()
        try:
            return detector(image)
        finally:
            self.seconds = time.perf_counter() - started
            self.count += 1
