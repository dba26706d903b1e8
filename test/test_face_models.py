"""Face models: readers, our own format, and what the linear model computes."""

from __future__ import annotations

import pickle
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radan_ros.face_models import FaceModel, read_3ddfa, read_3ddfa_v2, read_face_model, write_face_model
from radan_ros.pickles import load_arrays


def test_landmarks_are_the_dense_vertices_at_their_indices(small_face: FaceModel) -> None:
    coefficients = np.random.default_rng(0).normal(size=(3, 50))
    dense = small_face.vertices(coefficients)
    assert np.allclose(dense[:, small_face.landmarks], small_face.landmark_points(coefficients), atol=1e-3)
    by_hand = (
        small_face.mean
        + small_face.shape_basis @ coefficients[1, :40]
        + small_face.expression_basis @ coefficients[1, 40:]
    )
    assert np.allclose(dense[1], by_hand, atol=1e-3)


def test_native_format_round_trips(small_face: FaceModel, tmp_path: Path) -> None:
    write_face_model(tmp_path / "face.npz", small_face)
    again = read_face_model(tmp_path / "face.npz")
    assert again.version == small_face.version and again.name == small_face.name and again.unit == small_face.unit
    assert np.array_equal(again.triangles, small_face.triangles)
    changed = FaceModel(**{**_arrays(small_face), "mean": small_face.mean + 1})
    assert changed.version != small_face.version


def _arrays(model: FaceModel) -> dict:
    names = ("name", "mean", "shape_basis", "expression_basis", "triangles", "landmarks", "codes", "unit")
    return {name: getattr(model, name) for name in names}


@pytest.mark.parametrize("damage", ["truncated", "text", "missing", "shape", "indices", "nan", "codes", "flipped"])
def test_damaged_native_files_are_named(small_face: FaceModel, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "face.npz"
    write_face_model(path, small_face)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("hello")
    else:
        with np.load(path) as file:
            arrays = dict(file)
        if damage == "missing":
            del arrays["triangles"]
        elif damage == "shape":
            arrays["codes"] = arrays["codes"][:-1]
        elif damage == "indices":
            arrays["triangles"] = arrays["triangles"] + 10
        else:
            arrays["mean" if damage == "nan" else damage][3] = np.nan
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match="face.npz"):
        read_face_model(path)


def test_both_3ddfa_layouts_are_the_same_face_wound_outwards(model_folder: Path, model_folder_v2: Path) -> None:
    first = read_3ddfa(model_folder)
    second = read_3ddfa_v2(model_folder_v2 / "configs" / "bfm_noneck_v3.pkl")
    assert (len(first.mean), len(first.triangles)) == (53215, 105840)
    assert (len(second.mean), len(second.triangles)) == (38365, 76073)
    coefficients = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32) * [1e5] * 1
    assert np.allclose(first.landmark_points(coefficients), second.landmark_points(coefficients), rtol=1e-4, atol=1)
    for model in (first, second):
        size = np.ptp(model.mean, axis=0) * model.unit
        assert (0.12 < size).all() and (size < 0.3).all(), "a head in metres"
        a, b, c = (model.mean[model.triangles[:, i]] for i in range(3))
        assert (np.cross(b - a, c - a)[:, 2] > 0).mean() > 0.8, "normals out of the face"
        points = model.mean[model.landmarks]
        assert points[30, 2] > points[[0, 16], 2].max(), "the nose tip is before the ears"
        assert points[36, 0] < points[45, 0] and points[27, 1] > points[8, 1], "x to the subject's left, y up"
        assert 250 < model.codes.max() <= 255


@pytest.fixture(scope="module")
def layout(small_face: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The half ellipsoid in 3DDFA's files: micrometres, more modes than are read, triangles from 1 and clockwise."""
    from scipy.io import savemat

    folder = tmp_path_factory.mktemp("layout")
    (folder / "train.configs").mkdir()
    (folder / "visualize").mkdir()
    mean = small_face.mean.reshape(-1, 1).astype(np.float64) * 1e3
    more = np.random.default_rng(3).normal(size=(len(mean), 5)).astype(np.float32)
    shape, expression = small_face.shape_basis.reshape(-1, 40) * 1e3, small_face.expression_basis.reshape(-1, 10) * 1e3
    arrays = {
        "u_shp": 0.75 * mean,
        "u_exp": 0.25 * mean,
        "w_shp_sim": np.hstack([shape, more]),
        "w_exp_sim": np.hstack([expression, more]),
        "keypoints_sim": (3 * small_face.landmarks[:, None] + np.arange(3)).ravel(),
        "pncc_code": small_face.codes.T / 255,
    }
    for name, array in arrays.items():
        np.save(folder / "train.configs" / f"{name}.npy", array)
    savemat(folder / "visualize" / "tri.mat", {"tri": small_face.triangles[:, ::-1].T + 1})
    return folder


def test_3ddfa_s_files_of_a_known_face_are_that_face(layout: Path, small_face: FaceModel) -> None:
    model = read_3ddfa(layout)
    for name in ("mean", "shape_basis", "expression_basis"):
        np.testing.assert_allclose(getattr(model, name), getattr(small_face, name) * 1e3, rtol=1e-5, atol=1e-2)
    assert np.array_equal(model.triangles, small_face.triangles)
    assert np.array_equal(model.landmarks, small_face.landmarks)
    np.testing.assert_allclose(model.codes, small_face.codes, atol=1e-3)
    assert model.unit == 1e-6


@pytest.mark.parametrize("name", ["u_shp.npy", "w_exp_sim.npy", "keypoints_sim.npy", "pncc_code.npy", "tri.mat"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_3ddfa_files_are_named(layout: Path, tmp_path: Path, name: str, damage: str) -> None:
    (tmp_path / "train.configs").mkdir()
    (tmp_path / "visualize").mkdir()
    for file in [*(layout / "train.configs").glob("*.npy"), layout / "visualize" / "tri.mat"]:
        target = tmp_path / file.relative_to(layout)
        if file.name != name:
            target.symlink_to(file)
        elif damage == "truncated":
            target.write_bytes(file.read_bytes()[:1000])
        elif damage == "other":
            np.save(target.with_suffix(".npy"), np.zeros((7, 3)))
            if file.name == "tri.mat":
                target.with_suffix(".npy").rename(target)
    with pytest.raises(ValueError, match=name if damage != "other" else "u_shp|train.configs|tri.mat"):
        read_3ddfa(tmp_path)


class Trap:
    """Unpickled by the ordinary reader, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_no_pickled_code_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    (tmp_path / "bfm_noneck_v3.pkl").write_bytes(pickle.dumps({"u": Trap(trap)}))
    with pytest.raises(ValueError, match="bfm_noneck_v3.pkl.*pathlib"):
        read_3ddfa_v2(tmp_path / "bfm_noneck_v3.pkl")
    assert not trap.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_pickle_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    content = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": [np.int64(3), "text"]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    again = load_arrays(tmp_path / "x.pkl")
    assert np.array_equal(again["a"], content["a"]) and again["n"][0] == 3


def test_a_truncated_pickle_is_named(tmp_path: Path) -> None:
    content = pickle.dumps({"u": np.arange(3000.0), "w_shp": np.zeros((3000, 40))})
    for size in (0, 10, len(content) // 2):
        (tmp_path / "bfm_noneck_v3.pkl").write_bytes(content[:size])
        with pytest.raises(ValueError, match="bfm_noneck_v3.pkl"):
            read_3ddfa_v2(tmp_path / "bfm_noneck_v3.pkl")


def test_a_face_model_is_replaced_whole_or_not_at_all(small_face: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "face.npz"
    write_face_model(path, small_face)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # bytes; no file can be larger
    try:
        with pytest.raises(OSError, match="face.npz"):
            write_face_model(path, replace(small_face, mean=2 * small_face.mean))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["face.npz"]
