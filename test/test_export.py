"""Mesh files: what is written is read back, upright, in the right colours, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radan_ros.export import FORMATS, for_viewers, vertex_colours, write_mesh
from radan_ros.face_models import FaceModel

Mesh = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_ply(path: Path) -> Mesh:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    vertices, faces = (int(line.split()[2]) for line in lines if line.startswith("element"))
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    assert properties[:6] == [["float", "x"], ["float", "y"], ["float", "z"]] + [
        ["uchar", colour] for colour in ("red", "green", "blue")
    ]
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)], vertices)
    triangles = np.frombuffer(body, [("n", "u1"), ("i", "<i4", 3)], faces, offset=points.nbytes)
    assert len(body) == points.nbytes + triangles.nbytes and (triangles["n"] == 3).all()
    return points["xyz"], triangles["i"], points["rgb"]


def read_obj(path: Path) -> Mesh:
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    points = np.array([line[1:] for line in lines if line[0] == "v"], float)
    triangles = np.array([line[1:] for line in lines if line[0] == "f"], int)
    assert points.shape[1] == 6 and points[:, 3:].min() >= 0 and points[:, 3:].max() <= 1, "colours from 0 to 1"
    return points[:, :3], triangles - 1, np.rint(points[:, 3:] * 255)


READERS = {"ply": read_ply, "obj": read_obj}


@pytest.fixture
def mesh(small_face: FaceModel) -> Mesh:
    colours = np.random.default_rng(0).integers(0, 256, (len(small_face.mean), 3), np.uint8)
    return small_face.mean * np.float32(small_face.unit), small_face.triangles, colours


@pytest.mark.parametrize("name", FORMATS)
def test_a_mesh_is_read_back_as_it_was_written(name: str, mesh: Mesh, tmp_path: Path) -> None:
    path = write_mesh(tmp_path / f"face.{name}", *mesh)
    assert path == tmp_path / f"face.{name}"
    for read, written in zip(READERS[name](path), mesh, strict=True):
        assert np.allclose(read, written, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FORMATS)
def test_other_programs_read_it(name: str, mesh: Mesh, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    loaded = trimesh.load(write_mesh(tmp_path / f"face.{name}", *mesh), process=False)
    assert np.allclose(loaded.vertices, mesh[0], atol=1e-6) and np.array_equal(loaded.faces, mesh[1])
    assert np.array_equal(loaded.visual.vertex_colors[:, :3], mesh[2])


def test_a_face_stands_upright_before_the_viewer() -> None:
    chin, brow, nose = [0, 0.1, 1.0], [0, -0.1, 1.0], [0, 0, 0.95]  # camera frame: y down, z away
    shown = for_viewers(np.array([chin, brow, nose], np.float32))
    assert shown[1, 1] > shown[0, 1], "the brow above the chin"
    assert shown[2, 2] > shown[0, 2], "the nose towards the viewer"
    axes = for_viewers(np.eye(3, dtype=np.float32))
    assert np.isclose(np.linalg.det(axes), 1), "right-handed, so that outside stays outside"


def test_vertices_take_the_colour_of_their_pixel() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0], image[1, 2] = (255, 0, 0), (0, 0, 255)  # blue, red
    pixels = np.array([[0.2, -0.3], [2.4, 1.2], [50, 50], [-9, -9], [np.nan, 0]])
    expected = [[0, 0, 255], [255, 0, 0], [255, 0, 0], [0, 0, 255], [128, 128, 128]]
    assert vertex_colours(image, pixels).tolist() == expected


def test_a_file_appears_whole_or_not_at_all(mesh: Mesh, tmp_path: Path) -> None:
    target = write_mesh(tmp_path / "face.ply", *mesh)
    before = target.read_bytes()
    folder = tmp_path / "face.obj"
    folder.mkdir()
    with pytest.raises(OSError):
        write_mesh(folder, *mesh)
    with pytest.raises(ValueError, match="stl"):
        write_mesh(tmp_path / "face.stl", *mesh)
    with pytest.raises(ValueError):
        write_mesh(target, mesh[0], mesh[1], mesh[2][:-1])
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.obj", "face.ply"], "nothing is left behind"
