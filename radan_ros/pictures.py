"""Pictures from and to files; depth as a grey picture and as millimetres."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radan_ros.files import write_atomically

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
# Not read: OpenCV's wheels bring no codecs for them.
_OTHER_PICTURES = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf"}
# Metres that 16 bits of millimetres can hold; nothing is 0.
_FARTHEST = 65.535


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, by their endings, sorted, without hidden ones; ValueError when there are none."""
    files = _of_endings(folder, PICTURE_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: no pictures in this folder ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return files


def unread_in(folder: Path) -> list[Path]:
    """The pictures in a folder that `pictures_in` leaves out, by their endings: of formats that are not read here."""
    return _of_endings(folder, _OTHER_PICTURES)


def _of_endings(folder: Path, endings: Collection[str]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in endings
        and not path.name.startswith(".")
        and (path.is_file() or not path.exists())  # a link to what is gone is complained of when it is read
    )


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 BGR, turned as its EXIF data say.

    Raises
    ------
    ValueError, OSError
        Name the file: it is missing, or no picture that OpenCV reads.
    """
    import cv2

    content = np.fromfile(path, np.uint8)
    try:
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    except cv2.error:  # a header that promises more than there can be
        picture = None
    if picture is None:
        raise ValueError(f"{path}: not a picture that can be read")
    return np.asarray(picture, np.uint8)


def write_picture(path: str | Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    """Write a picture, whole or not at all, in the format that its name ends in.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    picture : (H, W) or (H, W, 3) uint8 or uint16
        Grey or BGR; 16 bits only in formats that hold them (PNG).

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    OSError
        When the disk does not take it.
    """
    import cv2

    _, content = cv2.imencode(Path(path).suffix, picture)
    return write_atomically(path, content.tobytes())


def grey_depth(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth (H, W) of any unit to 8 bits over its own range: nearest 255, farthest 1, nothing (NaN) 0."""
    out = np.zeros(depth.shape, np.uint8)
    seen = np.isfinite(depth)
    if seen.any():
        near, far = float(depth[seen].min()), float(depth[seen].max())
        out[seen] = np.rint(255 - 254 * (depth[seen] - near) / max(far - near, 1e-6)).astype(np.uint8)
    return out


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth (H, W) in metres to whole millimetres as depth cameras give them (REP-118): nothing, or too far, is 0."""
    seen = np.isfinite(depth) & (depth >= 0) & (depth <= _FARTHEST)
    return np.where(seen, np.rint(np.where(seen, depth, 0) * 1000), 0).astype(np.uint16)
