"""Video files from pictures: H.264 where PyAV is installed, else MPEG-4 (part 2) by OpenCV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.files import WholeFile

# A gap in the times that is longer is not filled with standing pictures.
_LONGEST_GAP = 5.0  # seconds
_QUALITY = "20"  # x264's constant rate factor: 18 looks like the original, 23 is its default


class Movie(WholeFile):
    """An ``.mp4`` of a steady rate from pictures at any times; appears at the end of the context, whole or not at all.

    H.264, which everything plays, needs PyAV (``pip install av``): the OpenCV of PyPI has no encoder for it, and one
    for VP9 that takes 0.3 s a picture of 1280x720. Without PyAV it is MPEG-4 part 2, which players play, but browsers
    do not.

    Parameters
    ----------
    path : Path
        Ends in ``.mp4``.
    size : (int, int)
        Height and width of the pictures; an odd last row or column is left out, as the codecs want it.
    rate : float
        Pictures a second.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        super().__init__(path)
        self._rate = rate
        self._height, self._width = size[0] // 2 * 2, size[1] // 2 * 2
        self._slot: int | None = None  # of the last picture that was written
        self._offset = 0.0
        self._last: NDArray[np.uint8] | None = None
        self.written = 0
        with self.naming(first=True):
            try:
                str(self.part).encode()
            except UnicodeEncodeError:  # OpenCV would crash
                raise OSError(None, "videos are written into folders with names in UTF-8 alone") from None
            self.part.write_bytes(b"")  # where nothing can be written, this says why; OpenCV would not
            self._encoder = _open_encoder(self.part, (self._width, self._height), rate)

    def add(self, picture: NDArray[np.uint8], time: float) -> None:
        """Show a picture (H, W, 3) uint8 BGR from a time on, in seconds that rise."""
        slot = round((time - self._offset) * self._rate)
        if self._slot is None or slot - self._slot > _LONGEST_GAP * self._rate:
            following = 0 if self._slot is None else self._slot + 1
            self._offset += (slot - following) / self._rate
            slot = following
        with self.naming():
            # The one before stands until then; a picture that comes sooner than the rate allows replaces nothing.
            for _ in range(0 if self._slot is None else slot - self._slot - 1):
                self._encode(self._last)
            if self._slot is None or slot > self._slot:
                self._last = np.ascontiguousarray(picture[: self._height, : self._width])
                self._encode(self._last)
                self._slot = slot

    def _encode(self, picture: NDArray[np.uint8] | None) -> None:
        assert picture is not None
        self._encoder.write(picture)
        self.written += 1

    def _close(self, *, whole: bool) -> None:
        self._encoder.close()
        if not whole:
            return
        # OpenCV does not tell that the disk did not take it; the index at a file's end is then missing.
        check = cv2.VideoCapture(str(self.part))
        counted = int(check.get(cv2.CAP_PROP_FRAME_COUNT)) if check.isOpened() else 0
        check.release()
        if counted != self.written:
            raise OSError(None, "the video is incomplete (is the disk full?)")


class _Encoder(Protocol):
    def write(self, picture: NDArray[np.uint8]) -> None: ...

    def close(self) -> None: ...


class _AvEncoder:
    def __init__(self, av: Any, path: Path, size: tuple[int, int], rate: float) -> None:
        self._av = av
        with self._as_os_error():
            self._file = av.open(str(path), "w", options={"movflags": "faststart"})
            self._stream = self._file.add_stream(
                "libx264", rate=Fraction(rate).limit_denominator(1001), options={"preset": "superfast", "crf": _QUALITY}
            )
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"

    def write(self, picture: NDArray[np.uint8]) -> None:
        with self._as_os_error():
            frame = self._av.VideoFrame.from_ndarray(picture, format="bgr24")
            self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        with self._as_os_error():
            try:
                self._file.mux(self._stream.encode())
            finally:
                self._file.close()

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from None


class _OpenCvEncoder:
    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not self._writer.isOpened():
            raise OSError(None, "this OpenCV cannot write it (pip install av)", str(path))

    def write(self, picture: NDArray[np.uint8]) -> None:
        self._writer.write(picture)

    def close(self) -> None:
        self._writer.release()


def _open_encoder(path: Path, size: tuple[int, int], rate: float) -> _Encoder:
    try:
        import av
    except ImportError:
        return _OpenCvEncoder(path, size, rate)
    if "libx264" not in av.codecs_available:
        return _OpenCvEncoder(path, size, rate)
    return _AvEncoder(av, path, size, rate)
