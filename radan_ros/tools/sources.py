"""Frames from a clip, pictures, a webcam or the built-in moving picture, behind one small interface. No ROS."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.astronaut import Astronaut
from radan_ros.pictures import PICTURE_SUFFIXES, pictures_in, read_picture

Frame = NDArray[np.uint8]

# In a row, and a clip has ended. A damaged packet spoils the frames up to the next whole picture: some hundreds.
_MOST_FAILURES = 1000
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
    if path.is_fifo():
        raise SourceError(f"{path}: is a pipe, not a file")
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


def _frames(
    capture: cv2.VideoCapture, size: tuple[int, int], lost: Callable[[], None] | None = None
) -> Iterator[Frame]:
    """What is left of an open capture; it is released at the end.

    `lost` is told of each place where frames could not be decoded, and others behind it can; without it, the first
    place is the end. OpenCV answers both, and the end, with nothing.
    """
    failed = 0
    try:
        while failed < (1 if lost is None else _MOST_FAILURES):
            read, frame = capture.read()
            if not read:
                failed += 1
                continue
            if failed and lost is not None:
                lost()
            failed = 0
            yield letterbox(np.asarray(frame, np.uint8), size)
    finally:
        capture.release()


class Clip:
    """A video file, or an animated gif."""

    skipped = 0

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._gaps = 0  # where frames in the midst could not be decoded
        capture = self._open()
        for _ in range(_MOST_FAILURES):
            read, frame = capture.read()
            if read:
                break
        else:
            raise SourceError(f"{path}: no frame in this file")
        self.size = (frame.shape[0], frame.shape[1])
        fps = capture.get(cv2.CAP_PROP_FPS)
        # Some containers state no rate, or their time base instead (1000 and more).
        self.fps = float(fps) if math.isfinite(fps) and 0.1 <= fps <= 500 else 30.0
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count: int | None = frames if frames > 0 else None
        capture.release()

    def _open(self) -> cv2.VideoCapture:
        with _utf8_name(self.path) as name:
            capture = cv2.VideoCapture(name)
        if not capture.isOpened():
            raise SourceError(f"{self.path}: cannot be read as a video or picture")
        return capture

    def missing(self, last: float) -> str | None:
        """What to say of a clip that was read to its end, at `last` seconds, where there should have been more."""
        stated = _stated_seconds(self.path)
        end = last + 1 / self.fps
        if stated is not None and stated - end > max(0.5, 0.05 * stated):
            return f"{self.path}: ends at {end:.1f} s of {stated:.1f} s: damaged?"
        if self._gaps:
            return f"{self.path}: frames are missing in {self._gaps} place{'s' * (self._gaps > 1)}: damaged?"
        return None

    def timed(self) -> Iterator[tuple[float, Frame]]:
        """The frames with their times in the clip, seconds, which rise: those of phones are not at a steady rate."""
        capture = self._open()
        self._gaps = 0
        now = -1 / self.fps
        for frame in _frames(capture, self.size, self._lost):
            stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            now = stated if stated > now else now + 1 / self.fps  # where the container states none
            yield now, frame

    def _lost(self) -> None:
        self._gaps += 1

    def __iter__(self) -> Iterator[Frame]:
        return (frame for _, frame in self.timed())


@contextmanager
def _utf8_name(path: Path) -> Iterator[str]:
    """A name for libraries that take no other than UTF-8; OpenCV crashes on one. Good until the block ends."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield str(path)


def _stated_seconds(path: Path) -> float | None:
    """How long a video is by what its file says; None where that is unknown, or without PyAV.

    OpenCV tells the number of frames alone, which some files state wrongly.
    """
    try:
        import av
    except ImportError:
        return None
    try:
        with _utf8_name(path) as name, av.open(name) as file:
            stream = file.streams.video[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            if file.duration is None:
                return None
            # Matroska's ends where the last frame does, and frames are told from the first one.
            return float(file.duration - max(file.start_time or 0, 0)) / av.time_base
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
