"""Frames from a clip, pictures, a webcam or the built-in moving picture, behind one small interface. No ROS."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.astronaut import Astronaut
from radan_ros.pictures import PICTURE_SUFFIXES, pictures_in, read_picture

Frame = NDArray[np.uint8]

ASTRONAUT = "astronaut"
# Degrees over the width that a portrait is taken with, from more than a metre. In pictures as of a wide lens, from half
# of that, the far sides of a face are smaller than they are in this one.
ASTRONAUT_FOV = 25.0


class SourceError(ValueError):
    """A source that cannot be opened, or gives no frame; the text is one line for the user."""


class Source(Protocol):
    """A sequence of frames of one size.

    Attributes
    ----------
    name : str
        What it is, for a progress line.
    size : tuple of int
        Height and width of every frame in pixels.
    fps : float
        Frames a second that the source was made for.
    count : int or None
        Number of frames as far as it is known beforehand (a damaged clip ends earlier); None for a webcam.
    skipped : int
        Files that could not be read, so far.

    Iterating yields (height, width, 3) uint8 BGR frames, from the start each time (a webcam goes on). Nothing is kept
    open outside of it; SourceError when the source is no longer there.
    """

    name: str
    size: tuple[int, int]
    fps: float

    @property
    def count(self) -> int | None: ...

    @property
    def skipped(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...


def open_source(text: str) -> Source:
    """Open a source by what the user typed.

    Parameters
    ----------
    text : str
        A video file (mp4, gif, ...), a picture, a folder of pictures, a webcam (its number, or /dev/video0),
        or "astronaut": a picture that comes with scikit-image, moved as by a hand-held camera.

    Raises
    ------
    SourceError
        With one line that says what is wrong and with which file.
    """
    if text == ASTRONAUT:
        try:
            return Astronaut()
        except ImportError as error:
            raise SourceError(str(error)) from None
    path = Path(text).expanduser()
    if text.isdigit() and not path.exists():
        return Webcam(int(text))
    if path.is_dir():
        try:
            files = pictures_in(path)
        except ValueError as error:
            raise SourceError(str(error)) from None
        return Pictures(files, fps=10.0, name=f"{path} ({len(files)} pictures)")
    if path.is_char_device():
        return Webcam(str(path))
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder (a number is a webcam, '{ASTRONAUT}' is built in)")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return Pictures([path], fps=30.0, name=str(path))
    return Clip(path)


def letterbox(frame: Frame, size: tuple[int, int]) -> Frame:
    """Scale a frame to fit `size` (height, width) with its aspect kept, centred, black beside it."""
    height, width = size
    if frame.shape[:2] == size:
        return frame
    scale = min(height / frame.shape[0], width / frame.shape[1])
    fitted = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, fitted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    result = np.zeros((height, width, 3), np.uint8)
    top, left = (height - fitted[1]) // 2, (width - fitted[0]) // 2
    result[top : top + fitted[1], left : left + fitted[0]] = small
    return result


class Pictures:
    """Pictures in the given order, all letterboxed to the size of the first readable one."""

    def __init__(self, files: list[Path], fps: float, name: str) -> None:
        self.files, self.fps, self.name = files, fps, name
        self._unreadable: set[Path] = set()
        first = next((frame for frame in map(self._read, files) if frame is not None), None)
        if first is None:
            what = str(files[0]) if len(files) == 1 else f"{files[0].parent}: none of {len(files)} pictures"
            raise SourceError(f"{what}: cannot be read as a picture")
        self.size = (first.shape[0], first.shape[1])

    def _read(self, path: Path) -> Frame | None:
        try:
            return read_picture(path)
        except (OSError, ValueError):
            self._unreadable.add(path)
            return None

    @property
    def skipped(self) -> int:
        """Files found to be unreadable so far."""
        return len(self._unreadable)

    @property
    def count(self) -> int | None:
        """Number of pictures, less those found to be unreadable."""
        return len(self.files) - len(self._unreadable)

    def __iter__(self) -> Iterator[Frame]:
        for path in self.files:
            if path in self._unreadable:
                continue
            frame = self._read(path)
            if frame is not None:
                yield letterbox(frame, self.size)


def _frames(capture: cv2.VideoCapture, size: tuple[int, int]) -> Iterator[Frame]:
    """What is left of an open capture; it is released at the end."""
    try:
        while True:
            read, frame = capture.read()
            if not read:
                return
            yield letterbox(np.asarray(frame, np.uint8), size)
    finally:
        capture.release()


class Clip:
    """A video file, or an animated gif."""

    skipped = 0

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        capture = self._open()
        read, frame = capture.read()
        if not read:
            raise SourceError(f"{path}: no frame in this file")
        self.size = (frame.shape[0], frame.shape[1])
        fps = capture.get(cv2.CAP_PROP_FPS)
        # Some containers state no rate, or their time base instead (1000 and more).
        self.fps = float(fps) if math.isfinite(fps) and 0.1 <= fps <= 500 else 30.0
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count: int | None = frames if frames > 0 else None
        capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self.path}: cannot be read as a video or picture")
        return capture

    def missing(self, last: float) -> str | None:
        """What to say of a clip whose frames end at `last` seconds, where it says of itself that it is longer."""
        stated = _stated_seconds(self.path)
        end = last + 1 / self.fps
        if stated is None or stated - end <= max(0.5, 0.05 * stated):
            return None
        return f"{self.path}: ends at {end:.1f} s of {stated:.1f} s: damaged?"

    def timed(self) -> Iterator[tuple[float, Frame]]:
        """The frames with their times in the clip, seconds, which rise: those of phones are not at a steady rate."""
        capture = self._open()
        now = -1 / self.fps
        for frame in _frames(capture, self.size):
            stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            now = stated if stated > now else now + 1 / self.fps  # where the container states none
            yield now, frame

    def __iter__(self) -> Iterator[Frame]:
        return (frame for _, frame in self.timed())


def _stated_seconds(path: Path) -> float | None:
    """How long a video is by what its file says; None where that is unknown, or without PyAV.

    OpenCV tells the number of frames alone, which some files state wrongly.
    """
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            return None if file.duration is None else file.duration / av.time_base
    except (av.FFmpegError, OSError, IndexError):
        return None


class Webcam:
    """A camera of this machine, by number or device file. Goes on until it is unplugged.

    Held only while its frames are read, since one process alone can have it: the demo looks at it before its player
    plays it.
    """

    skipped = 0
    count: int | None = None

    def __init__(self, device: int | str) -> None:
        self.device, self.name = device, f"webcam {device}"
        capture = cv2.VideoCapture(device)
        try:
            first = self._read(capture)
            fps = capture.get(cv2.CAP_PROP_FPS)
        finally:
            capture.release()
        self.size = (first.shape[0], first.shape[1])
        self.fps = float(fps) if math.isfinite(fps) and 1 <= fps <= 500 else 30.0

    def _read(self, capture: cv2.VideoCapture) -> Frame:
        """The first frame of a capture."""
        read, frame = capture.read() if capture.isOpened() else (False, None)
        if not read or frame is None:
            raise SourceError(f"{self.name}: cannot be opened, or gives no picture (ls /dev/video*; permissions?)")
        return np.asarray(frame, np.uint8)

    def timed(self) -> Iterator[tuple[float, Frame]]:
        """The frames with the seconds since the first one."""
        capture = cv2.VideoCapture(self.device)
        try:
            yield 0.0, letterbox(self._read(capture), self.size)
            started = time.monotonic()
            for frame in _frames(capture, self.size):
                yield time.monotonic() - started, frame
        finally:
            capture.release()

    def __iter__(self) -> Iterator[Frame]:
        return (frame for _, frame in self.timed())
