"""Pictures for `radan-reconstruct`: read and searched ahead, reconstructed in batches, written behind, side by side."""

from __future__ import annotations

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
from radan_ros.errors import line
from radan_ros.face import Detection, Face
from radan_ros.pictures import read_picture
from radan_ros.pipeline import Pipeline
from radan_ros.threads import available_cores
from radan_ros.tools.results import Results

# Pixels of all pictures that are in memory at a time, about: read ahead, in a batch, or being drawn and written.
_MOST_PIXELS = 72_000_000
# What a picture that is no good, a disk, or a network ends in; cv2.error is none of Python's, CUDA's are RuntimeError.
ERRORS = (OSError, ValueError, MemoryError, RuntimeError, cv2.error)


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
    """A picture and where its faces are, with a number for each and what is wrong with others."""

    still: Still
    image: NDArray[np.uint8]
    detections: list[Detection]
    numbers: list[int]
    troubles: list[str]

    @property
    def pixels(self) -> int:
        return self.image.shape[0] * self.image.shape[1]


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
    with _Flow(open_detector, results, options) as flow:
        for still in stills:
            while flow.full():
                yield from flow.go_on()
            flow.begin(still)
        while not flow.empty():
            yield from flow.go_on()


class _Flow:
    """Pictures on their way: being read, waiting for a batch, being written. All methods are for one thread."""

    def __init__(self, open_detector: Callable[[], Detector], results: Results, options: StillOptions) -> None:
        self._results, self._options = results, options
        self._search = _Search(results.pipeline, open_detector, options.max_faces)
        workers = min(available_cores(), 8)
        self._most_reading, self._most_writing = workers + 2, 2 * workers
        self._readers, self._writers = (
            ThreadPoolExecutor(workers, thread_name_prefix=name) for name in ("reader", "writer")
        )
        self._reading: deque[Future[_Found | Outcome]] = deque()
        self._batch: list[_Found] = []
        self._writing: deque[tuple[int, Future[Outcome]]] = deque()
        self._like_before = 0  # pixels of the picture that was read last: as many are expected of the next ones

    def __enter__(self) -> _Flow:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=True, cancel_futures=True)

    def empty(self) -> bool:
        return not (self._reading or self._batch or self._writing)

    def full(self) -> bool:
        """Whether another picture has to wait."""
        if self._reading and not self._like_before:
            return True  # how large they are the first one tells
        if len(self._reading) >= self._most_reading or len(self._writing) >= self._most_writing:
            return True
        pixels = (len(self._reading) + 1) * self._like_before
        pixels += sum(found.pixels for found in self._batch) + sum(pixels for pixels, _ in self._writing)
        return pixels > _MOST_PIXELS and not self.empty()

    def begin(self, still: Still) -> None:
        """Have a picture read and its faces searched for."""
        self._reading.append(self._readers.submit(self._search, still))

    def go_on(self) -> Iterator[Outcome]:
        """Take what is farthest on its way a step on; what is done is yielded."""
        if self._writing and (self._writing[0][1].done() or len(self._writing) >= self._most_writing):
            yield self._writing.popleft()[1].result()
        elif self._reading:
            entry = self._reading.popleft().result()
            if isinstance(entry, Outcome):
                yield entry
                return
            self._like_before = entry.pixels
            self._batch.append(entry)
            if len(self._batch) >= self._options.batch:
                yield from self._reconstruct()
        elif self._batch:
            yield from self._reconstruct()
        elif self._writing:
            yield self._writing.popleft()[1].result()

    def _reconstruct(self) -> Iterator[Outcome]:
        batch, self._batch = self._batch, []
        try:
            answers = self._faces(batch)
        except ERRORS:  # which picture is to blame shows only one by one
            for found in batch:
                try:
                    self._write(found, self._faces([found])[0])
                except ERRORS as error:
                    yield Outcome(found.still, 0, [*found.troubles, f"{found.still.path}: {line(error)}"])
            return
        for found, faces in zip(batch, answers, strict=True):
            self._write(found, faces)

    def _faces(self, batch: Sequence[_Found]) -> list[list[Face]]:
        return self._results.pipeline.many(
            [found.image for found in batch],
            [found.detections for found in batch],
            two_step=self._options.two_step,
        )

    def _write(self, found: _Found, faces: Sequence[Face]) -> None:
        job = self._writers.submit(_write, found, faces, self._results, self._options.wanted)
        self._writing.append((found.pixels, job))


class _Search:
    """Reads a picture and finds its faces; called from several threads."""

    def __init__(self, pipeline: Pipeline, open_detector: Callable[[], Detector], max_faces: int | None) -> None:
        self._pipeline, self._open, self._max = pipeline, open_detector, max_faces
        self._own = threading.local()

    def __call__(self, still: Still) -> _Found | Outcome:
        troubles: list[str] = []
        try:
            image = read_picture(still.path)
            box_file = still.path.with_name(still.path.name + ".bbox")
            if box_file.is_file():
                given = boxes.read_bbox_file(str(box_file))
                fits = [_inside(box, image) for box in given]
                numbers = [i for i, fit in enumerate(fits) if fit]
                troubles = [
                    f"{box_file}: box {i} cannot be used ({', '.join(f'{v:g}' for v in given[i])}; the picture is "
                    f"{image.shape[1]}x{image.shape[0]})"
                    for i, fit in enumerate(fits)
                    if not fit
                ]
                found = self._pipeline.detections(image, np.array([given[i] for i in numbers]))
            else:
                found = self._detector()(image)
                numbers = [*range(len(found))]
        except ERRORS as error:
            text = line(error)
            return Outcome(still, 0, [text if str(still.path) in text else f"{still.path}: {text}"])
        if troubles and not found:
            return Outcome(still, 0, troubles)
        return _Found(still, image, found[: self._max], numbers[: self._max], troubles)

    def _detector(self) -> Detector:
        if not hasattr(self._own, "detector"):
            self._own.detector = self._open()
        detector: Detector = self._own.detector
        return detector


def _inside(box: NDArray[np.float32], image: NDArray[np.uint8]) -> bool:
    """Whether there is picture in a box, and a square around it that can be cropped."""
    left, top, right, bottom = box
    height, width = image.shape[:2]
    if not (np.isfinite(box).all() and right > left and bottom > top):
        return False
    overlap = left < width and top < height and right > 0 and bottom > 0
    return bool(overlap and boxes.usable(boxes.square_from_detection(box), (height, width)))


def _write(found: _Found, faces: Sequence[Face], results: Results, wanted: Collection[str]) -> Outcome:
    path = found.still.path
    troubles = list(found.troubles)
    try:
        # A crop that the network has no answer for gives no face: which one it was is then not known.
        numbers = found.numbers if len(faces) == len(found.numbers) else None
        if numbers is None:
            troubles.append(f"{path}: {len(found.numbers) - len(faces)} of {len(found.numbers)} boxes gave no face")
        scene, reasons = results.scene(found.image, faces, numbers)
        troubles += [f"{path}: {reason}" for reason in reasons]
        if not scene.faces and not troubles:
            troubles = [
                f"{path}: no face found (--min-face and --threshold find more; {path.name}.bbox can name boxes)"
            ]
        if scene.faces:
            results.write(found.still.name, scene, wanted)
        return Outcome(found.still, len(scene.faces), troubles)
    except ERRORS as error:
        return Outcome(found.still, 0, [*troubles, f"{path}: {line(error)}"])
