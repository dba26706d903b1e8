"""Pictures for `radan-reconstruct`: read and searched ahead, reconstructed in batches, written behind, side by side."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros import boxes
from radan_ros.detectors import Detector
from radan_ros.face import Detection, Face
from radan_ros.pictures import read_picture
from radan_ros.pipeline import Pipeline
from radan_ros.tools.results import Results, one_line

# A batch ends early where its pictures have this many pixels together: they are all in memory.
_MOST_PIXELS = 48_000_000
# What a picture that is no good, or a disk, ends in; cv2.error is none of Python's.
ERRORS = (OSError, ValueError, MemoryError, cv2.error)


class Still(NamedTuple):
    """A picture to reconstruct, and the name of its results."""

    path: Path
    name: str


@dataclass(frozen=True)
class StillOptions:
    """How pictures are reconstructed.

    Attributes
    ----------
    wanted : collection of str
        Kinds of results.
    batch : int
        Pictures whose faces go through the network together.
    two_step : bool
    max_faces : int, optional
        The surest so many faces of a picture.
    """

    wanted: Collection[str]
    batch: int
    two_step: bool
    max_faces: int | None


class Outcome(NamedTuple):
    """What became of a picture: its faces that were written, and a line for each trouble."""

    still: Still
    faces: int
    troubles: list[str]


class _Found(NamedTuple):
    still: Still
    image: NDArray[np.uint8]
    detections: list[Detection]


def reconstruct_stills(
    stills: Sequence[Still], open_detector: Callable[[], Detector], results: Results, options: StillOptions
) -> Generator[Outcome, None, None]:
    """Reconstruct pictures; an outcome for each as it is done, about in their order.

    Parameters
    ----------
    stills : sequence of Still
    open_detector : function
        Called once in each thread that reads, since a detector does one picture at a time.
    results : Results
    options : StillOptions
    """
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
    search = _Search(results.pipeline, open_detector, options.max_faces)
    readers, writers = (ThreadPoolExecutor(workers, thread_name_prefix=name) for name in ("reader", "writer"))
    writing: deque[Future[Outcome]] = deque()
    try:
        for batch in _batches(_in_order(readers, search, stills, workers + 2), options.batch):
            found = [entry for entry in batch if isinstance(entry, _Found)]
            yield from (entry for entry in batch if isinstance(entry, Outcome))
            answers = results.pipeline.many(
                [entry.image for entry in found], [entry.detections for entry in found], two_step=options.two_step
            )
            for entry, faces in zip(found, answers, strict=True):
                writing.append(writers.submit(_write, entry, faces, results, options.wanted))
                while len(writing) > 2 * workers or (writing and writing[0].done()):
                    yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


class _Search:
    """Reads a picture and finds its faces; called from several threads."""

    def __init__(self, pipeline: Pipeline, open_detector: Callable[[], Detector], max_faces: int | None) -> None:
        self._open, self._max = open_detector, max_faces
        self._spare = [pipeline.detector]  # for the thread that comes first
        self._pipeline = pipeline
        self._own = threading.local()

    def __call__(self, still: Still) -> _Found | Outcome:
        try:
            image = read_picture(still.path)
            box_file = still.path.with_name(still.path.name + ".bbox")
            if box_file.is_file():
                found = self._pipeline.detections(image, np.array(boxes.read_bbox_file(str(box_file))))
            else:
                found = self._detector()(image)
        except ERRORS as error:
            text = one_line(error)
            return Outcome(still, 0, [text if str(still.path) in text else f"{still.path}: {text}"])
        return _Found(still, image, found[: self._max])

    def _detector(self) -> Detector:
        if not hasattr(self._own, "detector"):
            try:
                self._own.detector = self._spare.pop()
            except IndexError:
                self._own.detector = self._open()
        detector: Detector = self._own.detector
        return detector


def _in_order(
    pool: ThreadPoolExecutor, search: _Search, stills: Sequence[Still], most: int
) -> Iterator[_Found | Outcome]:
    """What the search finds, in the order of the pictures, which are read ahead by at most so many."""
    waiting: deque[Future[_Found | Outcome]] = deque()
    for still in stills:
        waiting.append(pool.submit(search, still))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(entries: Iterator[_Found | Outcome], most: int) -> Iterator[list[_Found | Outcome]]:
    batch: list[_Found | Outcome] = []
    pixels = 0
    for entry in entries:
        batch.append(entry)
        pixels += entry.image.size // 3 if isinstance(entry, _Found) else 0
        if len(batch) >= most or pixels >= _MOST_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _write(found: _Found, faces: Sequence[Face], results: Results, wanted: Collection[str]) -> Outcome:
    path = found.still.path
    try:
        scene, reasons = results.scene(found.image, faces)
        troubles = [f"{path}: {reason}" for reason in reasons]
        if not scene.faces and not troubles:
            troubles = [
                f"{path}: no face found (--min-face and --threshold find more; {path.name}.bbox can name boxes)"
            ]
        if scene.faces:
            results.write(found.still.name, scene, wanted, str(path))
        return Outcome(found.still, len(scene.faces), troubles)
    except ERRORS as error:
        return Outcome(found.still, 0, [f"{path}: {one_line(error)}"])
