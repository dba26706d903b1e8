"""Tables of faces: what is written is what is read, in CSV and in Parquet, whole or not at all."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from radan_ros import CameraModel, Face, Model, Pipeline, metric_face
from radan_ros.pose import euler_from_rotation
from radan_ros.tables import TABLES, columns, row

ROWS = 3


@pytest.fixture(scope="module")
def face(builtin: Model, astronaut: np.ndarray) -> Face:
    return Pipeline(builtin)(astronaut, [(181, 79, 273, 171)])[0]


@pytest.fixture(scope="module")
def values(builtin: Model, face: Face) -> np.ndarray:
    metric = metric_face(face, builtin.face_model, CameraModel.from_field_of_view((512, 512), 1.0))
    return row(7, 0.28, 2, face, metric)


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table by their names."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            names, *lines = csv.reader(file)
        return dict(zip(names, np.array(lines, float).reshape(-1, len(names)).T, strict=True))
    parquet = pytest.importorskip("pyarrow.parquet", reason="reading Parquet needs pyarrow")
    table = parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def written(kind: str, values: np.ndarray, folder: Path) -> Path:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    path = folder / f"table.{kind}"
    with TABLES[kind](path, 50) as table:
        for _ in range(ROWS):
            table.add(values)
    return path


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_says_what_is_known_of_a_face(
    kind: str, values: np.ndarray, face: Face, builtin: Model, tmp_path: Path
) -> None:
    table = read(written(kind, values, tmp_path))
    assert list(table) == list(columns(50))
    assert all(len(column) == ROWS for column in table.values())
    first = {name: column[0] for name, column in table.items()}
    assert (first["frame"], first["time_s"], first["face"]) == (7, 0.28, 2)
    assert np.isnan(first["score"]), "the box was given"
    px = np.array([[first[f"{axis}{i}_px"] for axis in "xy"] for i in range(68)])
    assert np.abs(px - face.landmarks[:, :2]).max() < 0.01
    box = [first[name] for name in ("left", "top", "right", "bottom")]
    assert np.allclose(box, [*px.min(axis=0), *px.max(axis=0)], atol=0.02)
    metres = np.array([[first[f"{axis}{i}_m"] for axis in "xyz"] for i in range(68)])
    assert np.allclose(metres[27], [first[f"{axis}_m"] for axis in "xyz"], atol=2e-5), "the sellion is the origin"
    coefficients = [first[f"shape{i}"] for i in range(40)] + [first[f"expression{i}"] for i in range(10)]
    assert np.allclose(coefficients, face.coefficients, rtol=1e-5)


def test_angles_and_quaternion_are_of_one_rotation(values: np.ndarray) -> None:
    first = dict(zip(columns(50), values, strict=True))
    x, y, z, w = (first[name] for name in ("qx", "qy", "qz", "qw"))
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    angles = np.degrees(euler_from_rotation(rotation))
    assert np.allclose(angles, [first[name] for name in ("yaw_deg", "pitch_deg", "roll_deg")], atol=1e-3)


@pytest.mark.parametrize("kind", TABLES)
def test_both_kinds_hold_the_same_numbers_and_no_rows_are_a_table_too(
    kind: str, values: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    text, other = read(written("csv", values, tmp_path)), read(written("parquet", values, tmp_path))
    for name, column in text.items():
        assert np.allclose(column, other[name], rtol=1e-5, atol=6e-3, equal_nan=True), name
    with TABLES[kind](tmp_path / f"empty.{kind}", 50):
        pass
    empty = read(tmp_path / f"empty.{kind}")
    assert list(empty) == list(columns(50)) and all(len(column) == 0 for column in empty.values())


@pytest.mark.parametrize("kind", TABLES)
def test_an_error_leaves_the_table_that_was_there(kind: str, values: np.ndarray, tmp_path: Path) -> None:
    path = written(kind, values, tmp_path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), TABLES[kind](path, 50) as table:
        table.add(values)
        raise RuntimeError
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", TABLES)
def test_a_folder_that_is_not_there_is_named(kind: str, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    with pytest.raises(OSError, match="nowhere"):
        TABLES[kind](tmp_path / "nowhere" / f"table.{kind}", 50)
