"""Tables of faces in a video, one row a face and frame: CSV and Parquet with the same columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from radan_ros.face import Face
from radan_ros.files import WholeFile
from radan_ros.metric import MetricFace
from radan_ros.pose import euler_from_rotation, quaternion_from_rotation
from radan_ros.smoothing import SHAPE

_ROWS = 2048  # of a group in a Parquet file, at most; as many are kept in memory

# Column: how CSV prints it. Units in docs/offline.md.
_SCALARS = {
    "frame": "%d",
    "time_s": "%.6f",
    "face": "%d",
    "score": "%.4g",
    "confidence": "%.4f",
    **dict.fromkeys(("left", "top", "right", "bottom"), "%.2f"),
    **dict.fromkeys(("yaw_deg", "pitch_deg", "roll_deg"), "%.3f"),
    **dict.fromkeys(("x_m", "y_m", "z_m"), "%.5f"),
    **dict.fromkeys(("qx", "qy", "qz", "qw"), "%.6f"),
}


def columns(modes: int) -> dict[str, str]:
    """Names of the columns, and how CSV prints each, for a face model of so many shape and expression modes."""
    px = {f"{axis}{i}_px": "%.2f" for axis in "xy" for i in range(68)}
    metres = {f"{axis}{i}_m": "%.5f" for axis in "xyz" for i in range(68)}
    shape = {f"shape{i}": "%.6g" for i in range(SHAPE)}
    expression = {f"expression{i}": "%.6g" for i in range(modes - SHAPE)}
    return {**_SCALARS, **px, **metres, **shape, **expression}


def row(frame: int, time: float, number: int, face: Face, metric: MetricFace) -> NDArray[np.float64]:
    """The values of one face in one frame, in the order of `columns`.

    Parameters
    ----------
    frame : int
        From 0.
    time : float
        Seconds of the video.
    number : int
        Who it is.
    face : Face
        Its landmarks are those in pixels, its coefficients shape and expression.
    metric : MetricFace
        Pose (degrees, metres, quaternion of the head frame in the camera frame) and landmarks in metres.
    """
    angles = np.degrees(euler_from_rotation(metric.pose.rotation))
    quaternion = quaternion_from_rotation(metric.pose.rotation)
    head = [frame, time, number, face.score, face.confidence, *face.box, *angles, *metric.pose.translation, *quaternion]
    return np.concatenate([head, face.landmarks[:, :2].T.ravel(), metric.landmarks.T.ravel(), face.coefficients])


class Table(Protocol):
    """A table that is being written. As a context it appears at its end, whole, and not at all after an error."""

    def add(self, values: NDArray[np.float64]) -> None:
        """Add a row; OSError when the disk does not take it."""

    def __enter__(self) -> Table: ...

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None: ...


class CsvTable(WholeFile):
    """A table as text: a line of names, commas, ``.`` in numbers, ``nan`` where nothing is known."""

    def __init__(self, path: Path, modes: int) -> None:
        super().__init__(path)
        names = columns(modes)
        self._line = ",".join(names.values()) + "\n"
        with self.naming(first=True):
            self._file: TextIO = open(self.part, "w", encoding="ascii", newline="")
            self._file.write(",".join(names) + "\n")

    def add(self, values: NDArray[np.float64]) -> None:
        """Add a row."""
        with self.naming():
            self._file.write(self._line % tuple(values.tolist()))

    def _close(self, *, whole: bool) -> None:
        self._file.close()


class ParquetTable(WholeFile):
    """A table as Apache Parquet: whole numbers as int32, the time as float64, all else as float32.

    Raises
    ------
    ImportError
        Names the package to install.
    """

    def __init__(self, path: Path, modes: int) -> None:
        super().__init__(path)
        arrow, parquet = _pyarrow()
        self._schema = arrow.schema(
            [
                (name, arrow.float64() if name == "time_s" else arrow.int32() if how == "%d" else arrow.float32())
                for name, how in columns(modes).items()
            ]
        )
        self._arrow = arrow
        self._rows: list[NDArray[np.float64]] = []
        with self.naming(first=True):
            self._writer = parquet.ParquetWriter(str(self.part), self._schema, compression="zstd")

    def add(self, values: NDArray[np.float64]) -> None:
        """Add a row."""
        self._rows.append(values)
        if len(self._rows) == _ROWS:
            with self.naming():
                self._flush()

    def _flush(self) -> None:
        table = np.array(self._rows).reshape(-1, len(self._schema))
        arrays = [
            self._arrow.array(column.astype(field.type.to_pandas_dtype()))
            for column, field in zip(table.T, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []

    def _close(self, *, whole: bool) -> None:
        if whole:
            self._flush()
        self._writer.close()


TABLES: dict[str, Callable[[Path, int], Table]] = {"csv": CsvTable, "parquet": ParquetTable}


def check_parquet() -> None:
    """Raise ImportError, which names the package, where Parquet cannot be written."""
    _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("a Parquet table needs the package pyarrow: pip install pyarrow") from None
    return pyarrow, pyarrow.parquet
