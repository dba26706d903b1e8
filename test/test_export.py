"""Files for other programs: what is written is read back, upright, in the right colours, whole or not at all."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from radan_ros import Model
from radan_ros.export import (
    FORMATS,
    for_viewers,
    vertex_colours,
    write_atomically,
    write_landmarks,
    write_mesh,
    write_reference_mesh,
    write_roibox,
    write_vertices,
)
from radan_ros.face_models import FaceModel
from radan_ros.pictures import read_picture

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


def read_glb(path: Path) -> Mesh:
    document, binary = glb_parts(path)
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    indices = document["meshes"][0]["primitives"][0]["indices"]
    light = glb_array(document, binary, attributes["COLOR_0"]) / 65535
    colours = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # sRGB
    assert (light[:, 3] == 1).all()
    return (
        glb_array(document, binary, attributes["POSITION"]),
        glb_array(document, binary, indices).reshape(-1, 3),
        np.rint(255 * colours[:, :3]),
    )


def glb_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary part; checks what holds them together (glTF 2.0, chapter 4)."""
    content = path.read_bytes()
    magic, version, length = content[:4], *np.frombuffer(content, "<u4", 2, 4)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    first = int(np.frombuffer(content, "<u4", 1, 12)[0])
    assert content[16:20] == b"JSON" and first % 4 == 0
    document = json.loads(content[20 : 20 + first])
    at = 20 + first
    second = int(np.frombuffer(content, "<u4", 1, at)[0])
    assert content[at + 4 : at + 8] == b"BIN\0" and second % 4 == 0 and at + 8 + second == len(content)
    binary = content[at + 8 :]
    assert 0 <= len(binary) - document["buffers"][0]["byteLength"] < 4
    return document, binary


def glb_array(document: dict[str, Any], binary: bytes, number: int) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    dtype = np.dtype({5123: "<u2", 5125: "<u4", 5126: "<f4"}[accessor["componentType"]])
    columns = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    assert view["byteOffset"] % 4 == 0 and view["byteLength"] == accessor["count"] * columns * dtype.itemsize
    assert columns == 1 or columns * dtype.itemsize % 4 == 0, "elements of attributes start at multiples of four"
    return np.frombuffer(binary, dtype, accessor["count"] * columns, view["byteOffset"]).reshape(-1, columns)


READERS = {"ply": read_ply, "obj": read_obj, "glb": read_glb}


@pytest.fixture
def mesh(small_face: FaceModel) -> Mesh:
    colours = np.random.default_rng(0).integers(0, 256, (len(small_face.mean), 3), np.uint8)
    return small_face.mean * np.float32(small_face.unit), small_face.triangles, colours


@pytest.fixture
def textured(small_face: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates, not symmetric in any way, and a texture whose colour tells them: u in red, v in green."""
    low, size = small_face.mean[:, :2].min(axis=0), np.ptp(small_face.mean[:, :2], axis=0)
    uv = (0.1 + 0.7 * (small_face.mean[:, :2] - low) / size).astype(np.float32)
    ramp = (np.arange(256) + 0.5) / 256
    texture = np.zeros((256, 256, 3), np.uint8)
    texture[..., 2] = np.rint(255 * ramp)
    texture[..., 1] = np.rint(255 * ramp[::-1, None])  # v counts from below
    return uv, texture


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may become larger than `size` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", FORMATS)
def test_a_mesh_is_read_back_as_it_was_written(name: str, mesh: Mesh, tmp_path: Path) -> None:
    path = write_mesh(tmp_path / f"face.{name}", *mesh)
    assert path == tmp_path / f"face.{name}"
    for read, written in zip(READERS[name](path), mesh, strict=True):
        assert np.allclose(read, written, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FORMATS)
def test_other_programs_read_it(name: str, mesh: Mesh, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = write_mesh(tmp_path / f"face.{name}", *mesh)
    loaded = next(iter(trimesh.load_scene(path, process=False).geometry.values()))
    assert np.allclose(loaded.vertices, mesh[0], atol=1e-6) and np.array_equal(loaded.faces, mesh[1])
    if name == "glb":  # trimesh hands the colours of a mesh with a material on as they are: light, in 16 bits
        light = loaded.visual.vertex_attributes["color"][:, :3] / 65535
        assert np.allclose(light**0.4545, mesh[2] / 255, atol=0.04), "gamma 2.2 is near sRGB"
        assert loaded.visual.material.metallicFactor == 0
    else:
        assert np.array_equal(loaded.visual.vertex_colors[:, :3], mesh[2])


@pytest.mark.parametrize("name", FORMATS)
def test_a_head_opens_upright_with_its_skin_outside(name: str, builtin: Model, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    face = builtin.face_model
    in_camera = face.mean * np.float32(face.unit) * np.array([1, -1, -1], np.float32)
    in_camera += np.array([0.1, 0, 0.6], np.float32)
    colours = np.full((len(in_camera), 3), 128, np.uint8)
    loaded = trimesh.load_mesh(write_mesh(tmp_path / f"a.{name}", for_viewers(in_camera), face.triangles, colours))
    low, high = loaded.bounds
    assert 0.1 < high[0] - low[0] < 0.25 and -0.61 < low[2] < high[2] < -0.4, "metres, before the camera"
    points = for_viewers(in_camera)[face.landmarks]
    assert points[27, 1] > points[30, 1] > points[57, 1] > points[8, 1], "sellion, nose, lip, chin from above"
    assert points[45, 0] > points[36, 0], "the subject's left eye at the viewer's right"
    assert points[30, 2] > points[[0, 16], 2].max(), "the nose is nearest"
    near_nose = np.linalg.norm(loaded.triangles_center - points[30], axis=1) < 0.01
    assert loaded.face_normals[near_nose, 2].mean() > 0.3, "and its outside looks at the viewer"
    if name == "glb":  # which has normals of its own, by which it is lit
        document, binary = glb_parts(tmp_path / "a.glb")
        attributes = document["meshes"][0]["primitives"][0]["attributes"]
        assert (glb_array(document, binary, attributes["NORMAL"])[face.landmarks[27:36], 2] > 0).all()


@pytest.mark.parametrize("name", ["obj", "glb"])
def test_a_texture_lies_where_it_belongs(
    name: str, mesh: Mesh, textured: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("PIL")
    uv, texture = textured
    path = write_mesh(tmp_path / f"face.{name}", mesh[0], mesh[1], mesh[2], uv=uv, texture=texture)
    loaded = trimesh.load_mesh(path, process=False)
    assert np.allclose(loaded.vertices, mesh[0], atol=1e-6) and np.array_equal(loaded.faces, mesh[1])
    shown = loaded.visual.to_color().vertex_colors[:, :2] / 255
    assert np.allclose(shown, uv, atol=0.02)
    files = {"obj": ["face.mtl", "face.obj", "face_texture.png"], "glb": ["face.glb"]}[name]
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    if name == "obj":
        assert np.array_equal(read_picture(tmp_path / "face_texture.png"), texture)


def test_gltf_keeps_to_its_specification(mesh: Mesh, textured: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    uv, texture = textured
    document, binary = glb_parts(write_mesh(tmp_path / "a.glb", *mesh, uv=uv, texture=texture))
    primitive = document["meshes"][0]["primitives"][0]
    assert document["asset"]["version"] == "2.0" and primitive["mode"] == 4
    positions = glb_array(document, binary, primitive["attributes"]["POSITION"])
    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
    assert np.array_equal(np.float32(accessor["min"]), positions.min(axis=0))
    assert np.array_equal(np.float32(accessor["max"]), positions.max(axis=0))
    assert {document["accessors"][number]["count"] for number in primitive["attributes"].values()} == {len(positions)}
    normals = glb_array(document, binary, primitive["attributes"]["NORMAL"])
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    downwards = glb_array(document, binary, primitive["attributes"]["TEXCOORD_0"])
    assert np.allclose(downwards, np.column_stack([uv[:, 0], 1 - uv[:, 1]]))
    indices = document["accessors"][primitive["indices"]]
    assert indices["type"] == "SCALAR" and indices["count"] == 3 * len(mesh[1])
    targets = {number: 34962 for number in primitive["attributes"].values()} | {primitive["indices"]: 34963}
    for number, target in targets.items():
        assert document["bufferViews"][document["accessors"][number]["bufferView"]]["target"] == target
    image = document["images"][0]
    view = document["bufferViews"][image["bufferView"]]
    inside = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    assert image["mimeType"] == "image/png" and "target" not in view
    assert np.array_equal(np.asarray(cv2.imdecode(np.frombuffer(inside, np.uint8), cv2.IMREAD_COLOR)), texture)
    material = document["materials"][primitive["material"]]
    assert material["pbrMetallicRoughness"]["baseColorTexture"]["index"] == 0
    assert set(material["extensions"]) <= set(document["extensionsUsed"])
    plain, _ = glb_parts(write_mesh(tmp_path / "b.glb", *mesh[:2]))
    assert "COLOR_0" not in plain["meshes"][0]["primitives"][0]["attributes"] and "images" not in plain


def test_a_mesh_without_colours_has_none(mesh: Mesh, tmp_path: Path) -> None:
    assert b"red" not in write_mesh(tmp_path / "a.ply", *mesh[:2]).read_bytes()
    line = next(line for line in write_mesh(tmp_path / "a.obj", *mesh[:2]).read_text().splitlines() if line[0] == "v")
    assert len(line.split()) == 4


def test_arrays_that_do_not_fit_are_refused(mesh: Mesh, tmp_path: Path) -> None:
    vertices, triangles, colours = mesh
    uv, texture = np.zeros((len(vertices), 2), np.float32), np.zeros((4, 4, 3), np.uint8)
    broken = vertices.copy()
    broken[3, 1] = np.nan
    for message, arguments, more in (
        ("finite", (broken, triangles), {}),
        ("vertices 0 to", (vertices[:9], triangles), {}),
        ("colours", (vertices, triangles, colours[:-1]), {}),
        ("texture", (vertices, triangles), {"uv": uv}),
        ("texture", (vertices, triangles), {"texture": texture}),
        ("uv", (vertices, triangles), {"uv": uv[1:], "texture": texture}),
    ):
        for name in FORMATS:
            with pytest.raises(ValueError, match=message):
                write_mesh(tmp_path / f"a.{name}", *arguments, **more)
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(OSError, match="face.obj"):
        write_mesh(folder, *mesh)
    with pytest.raises(ValueError, match=r"face.stl.*known: ply, obj, glb"):
        write_mesh(tmp_path / "face.stl", *mesh)
    with pytest.raises(OSError, match=r"nowhere/face.ply'$"):
        write_mesh(tmp_path / "nowhere" / "face.ply", *mesh)
    with full_disk(len(before) // 2), pytest.raises(OSError, match=r"face.ply'$"):
        write_atomically(target, b"x" * len(before))
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.obj", "face.ply"], "nothing is left behind"


def test_landmarks_and_crops_are_texts_as_the_originals_write_them(tmp_path: Path) -> None:
    landmarks = np.random.default_rng(1).normal(0, 300, (68, 3)).astype(np.float32)
    lines = write_landmarks(tmp_path / "a.txt", landmarks).read_text().splitlines()
    assert [len(line.split()) for line in lines] == [68, 68, 68]
    assert all(len(number.partition(".")[2]) == 3 for line in lines for number in line.split())
    assert np.allclose(np.loadtxt(tmp_path / "a.txt"), (landmarks * [1, 1, -1]).T, atol=6e-4), "z to the viewer"
    roi = np.array([-10.5, 20, 109.25, 139.75], np.float32)
    assert write_roibox(tmp_path / "a.roibox", roi).read_text() == "-10.500\n20.000\n109.250\n139.750\n"


def test_dense_vertices_are_read_back_from_matlab_files(mesh: Mesh, tmp_path: Path) -> None:
    from scipy.io import loadmat

    content = loadmat(write_vertices(tmp_path / "a.mat", mesh[0]))
    header = (tmp_path / "a.mat").read_bytes()[:128]
    assert header.startswith(b"MATLAB 5.0 MAT-file ") and not re.search(rb"\d:\d", header), "without the time of day"
    assert [key for key in content if key[0] != "_"] == ["vertex"]
    assert np.array_equal(content["vertex"], (mesh[0] * np.array([1, 1, -1], np.float32)).T)


def test_compat_meshes_have_the_numbers_of_the_originals(tmp_path: Path) -> None:
    vertices = np.array([[1.25, 2.5, -3], [40, 2, 7.00004], [3.5, 9, -0.5]], np.float32)
    image = np.zeros((8, 10, 3), np.uint8)
    image[2, 1], image[2, 9], image[7, 4] = (1, 2, 3), (4, 5, 6), (7, 8, 9)  # BGR
    ply = write_reference_mesh(tmp_path / "a.ply", vertices, np.array([[0, 1, 2]]), image).read_text()
    assert ply.partition("end_header\n")[2] == (
        "1.2500 2.5000 3.0000\n40.0000 2.0000 -7.0000\n3.5000 9.0000 0.5000\n3 2 1 0\n"
    )
    obj = write_reference_mesh(tmp_path / "a.obj", vertices, np.array([[0, 1, 2]]), image).read_text()
    assert obj == (
        "v 2.5000 1.2500 3.0000 3 2 1\nv 2.0000 9.0000 -7.0000 6 5 4\nv 7.0000 3.5000 0.5000 9 8 7\nf 3 2 1\n"
    )
    assert vertices[1, 0] == 40, "the input is left alone"
    with pytest.raises(ValueError, match="glb"):
        write_reference_mesh(tmp_path / "a.glb", vertices, np.array([[0, 1, 2]]), image)


def test_compat_meshes_of_the_reference_picture(shared: Path, tmp_path: Path) -> None:
    from scipy.io import loadmat

    expected = np.load(shared / "expected" / "3ddfa_v1_test1.npz")
    image = read_picture(shared / "images" / "test1.jpg")
    given = loadmat(shared / "models" / "3ddfa_v1" / "visualize" / "tri.mat")["tri"].astype(np.int64).T  # from 1
    vertices = expected["face0_vertices"].T * np.array([1, 1, -1], np.float32)
    rows = [
        line.split() for line in write_reference_mesh(tmp_path / "a.obj", vertices, given[:, ::-1] - 1, image).open()
    ]
    values = np.array([row[1:] for row in rows if row[0] == "v"], float)
    assert np.allclose(values[:, [1, 0, 2]], expected["face0_vertices"].T, atol=1e-4)
    assert np.array_equal(values[:, 5:2:-1], expected["face0_vertex_colors_bgr"])
    assert np.array_equal(np.array([row[1:] for row in rows if row[0] == "f"], int), given)
