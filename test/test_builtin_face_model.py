"""The built-in face model: its modes, its expressions, its file, and how well it fits other faces."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import radan_ros
from radan_ros.face_models import FaceModel, read_face_model, write_face_model
from radan_ros.face_models.making.anatomy import find_eyeballs
from radan_ros.face_models.making.build import STEP
from radan_ros.face_models.making.expressions import NAMES, ONE_SIDED, nearest_orthogonal
from radan_ros.face_models.making.gaussian_process import MEASURES, farthest_points, nearness
from radan_ros.face_models.making.measure import (
    IctFaces,
    Similarity,
    Surface,
    SurfaceSearch,
    measure_on_ict,
    measure_on_photographs,
)
from radan_ros.face_models.making.pictures import views, write_pictures
from radan_ros.face_models.making.template import EYEBALL, INNER_MOUTH, LID_RIM, NOSTRIL, Template
from radan_ros.face_models.mirror import mirror_coefficients, mirror_vertices
from radan_ros.model import open_face_model
from radan_ros.tools import face_model as tool

COMMITTED = Path(radan_ros.__file__).parent / "data" / "model" / "face_model.npz"


@pytest.fixture(scope="module")
def radan() -> FaceModel:
    """The built-in face model: the file, which one test makes again."""
    return open_face_model("builtin")


@pytest.fixture(scope="module")
def template(radan: FaceModel) -> Template:
    """The model's mean face as the template that it was made from."""
    assert radan.uv is not None and radan.regions is not None
    vertices = radan.mean.astype(np.float64)
    return Template(vertices, radan.triangles, radan.landmarks, mirror_vertices(radan), radan.uv, radan.regions)


def vars_of(model: FaceModel) -> dict:
    """All that a face model is made of."""
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.init}


def posed(model: FaceModel, **coefficients: float) -> np.ndarray:
    """Vertices (V, 3), metres, of an expression."""
    values = np.zeros((1, model.modes))
    for name, value in coefficients.items():
        values[0, 40 + NAMES.index(name)] = value
    return model.vertices(values)[0].astype(np.float64)


def sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and radius of the sphere through points, by least squares."""
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def test_it_is_a_face_in_metres_with_40_and_10_modes_and_names(radan: FaceModel) -> None:
    assert radan.shape_basis.shape[2] == 40 and radan.expression_basis.shape[2] == 10
    assert 8000 <= len(radan.mean) <= 20000 and radan.unit == 1.0
    assert radan.expression_names == NAMES and len(set(NAMES)) == 10
    breadth, height, depth = np.ptp(radan.mean, axis=0)
    assert 0.12 < breadth < 0.16 and 0.16 < height < 0.22 and 0.08 < depth < 0.15
    assert radan.codes.min() == 0 and radan.codes.max() == 255
    for axis in range(3):  # the code is the normalised coordinate
        assert abs(np.corrcoef(radan.codes[:, axis], radan.mean[:, axis])[0, 1] - 1) < 1e-6
    assert radan.uv is not None and radan.uv.min() >= 0 and radan.uv.max() <= 1


def test_modes_of_a_group_are_orthogonal(radan: FaceModel) -> None:
    for basis in (radan.shape_basis, radan.expression_basis):
        flat = basis.reshape(-1, basis.shape[2]).astype(np.float64)
        gram = flat.T @ flat
        cosines = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
        assert np.abs(cosines - np.eye(len(cosines))).max() < 5e-3, "but for the rounding of the file"
    sizes = np.linalg.norm(radan.shape_basis.reshape(-1, 40), axis=0)
    assert (np.diff(sizes) < 0).all(), "sorted by variance"


def test_unit_coefficients_vary_the_face_as_people_vary(radan: FaceModel) -> None:
    for measure in MEASURES:
        deviation = measure.deviation_in(radan.shape_basis, radan.landmarks)
        assert 0.6 * measure.deviation_without_size < deviation < 1.75 * measure.deviation, measure.name
    faces = radan.vertices(np.c_[np.random.default_rng(0).normal(size=(400, 40)), np.zeros((400, 10))])
    jaw = np.ptp(faces[:, radan.landmarks[[4, 12]], 0], axis=1)
    expected = MEASURES[1].deviation_in(radan.shape_basis, radan.landmarks)
    assert abs(jaw.std() / expected - 1) < 0.1, "the deviations are those of unit normal coefficients"


def test_shape_modes_do_not_move_turn_or_scale_the_face(radan: FaceModel) -> None:
    points = radan.mean.astype(np.float64) - radan.mean.mean(axis=0)
    x, y, z = points.T
    zero = np.zeros_like(x)
    for motion in (np.stack([zero, zero + 1, zero], 1), np.stack([zero, zero, zero + 1], 1), points,
                   np.stack([zero, -z, y], 1)):  # fmt: skip
        share = np.einsum("va,vam->m", motion, radan.shape_basis) / np.linalg.norm(motion)
        assert np.abs(share / np.linalg.norm(radan.shape_basis.reshape(-1, 40), axis=0)).max() < 0.01


def test_mirrored_faces_have_mirrored_coefficients(radan: FaceModel) -> None:
    other = mirror_vertices(radan)
    matrix = mirror_coefficients(radan)
    expected = np.eye(50)
    left, right = (40 + NAMES.index(f"eye_close_{side}") for side in ("left", "right"))
    expected[[left, right]] = expected[[right, left]]
    assert np.abs(matrix - expected).max() < 1e-3, "all symmetric, but the eyes' closing change places"
    coefficients = np.random.default_rng(1).normal(size=(3, 50))
    mirrored = radan.vertices(coefficients)[:, other] * np.array([-1, 1, 1], np.float32)
    assert np.abs(mirrored - radan.vertices(coefficients @ matrix)).max() < 1e-5
    flat = radan.shape_basis[other] * np.array([-1, 1, 1], np.float32)[:, None]
    assert np.array_equal(flat, radan.shape_basis), "to the last bit"


def test_a_face_model_that_is_not_symmetric_is_told(radan: FaceModel) -> None:
    crooked = radan.mean.copy()
    crooked[radan.landmarks[54], 1] += 0.002
    with pytest.raises(ValueError, match=r"radan is not mirror symmetric.* up to 0\.\d\d mm"):
        mirror_coefficients(FaceModel(**(vars_of(radan) | {"mean": crooked})))
    still = radan.shape_basis.copy()
    still[..., 3] = 0
    with pytest.raises(ValueError, match="mode 3 moves nothing"):
        mirror_coefficients(FaceModel(**(vars_of(radan) | {"shape_basis": still})))
    random_modes = FaceModel(**(vars_of(radan) | {"expression_basis": radan.expression_basis[::-1].copy()}))
    with pytest.raises(ValueError, match="radan is not mirror symmetric.*outside its modes"):
        mirror_coefficients(random_modes)


def test_closing_an_eye_closes_it_over_the_eyeball(radan: FaceModel, template: Template) -> None:
    for side, eye, (corners, upper, lower) in zip(
        ("left", "right"), find_eyeballs(template), (((42, 45), (43, 44), (47, 46)), ((39, 36), (38, 37), (40, 41))),
        strict=True,
    ):  # fmt: skip
        neutral, half, closed = (posed(radan, **{f"eye_close_{side}": value}) for value in (0.0, 1.0, 2.0))
        opening = [points[radan.landmarks[list(upper)], 1] - points[radan.landmarks[list(lower)], 1]
                   for points in (neutral, half, closed)]  # fmt: skip
        assert (np.abs(opening[2]) < 0.2 * opening[0]).all() and (opening[1] > 0.3 * opening[0]).all()
        lids = np.flatnonzero(eye.hold > 0.5)
        for points in (half, closed):
            assert np.abs(points[eye.vertices] - neutral[eye.vertices]).max() < 3e-4, "the eyeball stays"
            distance = np.linalg.norm(points[lids] - eye.centre, axis=1)
            before = np.linalg.norm(neutral[lids] - eye.centre, axis=1)
            skin = template.regions[lids] != LID_RIM
            assert distance[skin].min() > eye.radius + 0.0005, "the skin of the lids stays outside the eyeball"
            assert (distance - before)[~skin & (before > eye.radius)].min() > -0.0006
        assert np.linalg.norm((closed - neutral)[radan.landmarks[list(corners)]], axis=1).max() < 0.001


def test_the_other_eye_stays_open(radan: FaceModel) -> None:
    moved = np.linalg.norm(posed(radan, eye_close_left=2.0) - posed(radan), axis=1)
    assert moved[radan.landmarks[36:42]].max() < 5e-4 < 5e-3 < moved[radan.landmarks[43:45]].min()


def test_opening_the_jaw_opens_the_mouth_and_leaves_the_upper_face(radan: FaceModel) -> None:
    closed, open_ = posed(radan)[radan.landmarks], posed(radan, jaw_open=2.75)[radan.landmarks]
    gap = np.linalg.norm(open_[62] - open_[66]) - np.linalg.norm(closed[62] - closed[66])
    assert 0.036 < gap < 0.055
    assert open_[8, 1] < closed[8, 1] - 0.015 and open_[8, 2] < closed[8, 2], "the chin goes down and back"
    upper = [*range(17, 48), 51, 62]
    assert np.linalg.norm(open_[upper] - closed[upper], axis=1).max() < 0.003
    moved = np.linalg.norm(posed(radan, jaw_open=2.75) - posed(radan), axis=1)
    below = (radan.regions == INNER_MOUTH) & (radan.mean[:, 1] < radan.mean[radan.landmarks[66], 1])
    assert np.median(moved[below]) > 0.01, "the inside of the lower lip follows"


def test_expressions_do_what_they_are_called(radan: FaceModel) -> None:
    def change(name: str) -> np.ndarray:
        """Displacements of the landmarks by 2.5 standard deviations, mm."""
        return 1e3 * (posed(radan, **{name: 2.5}) - posed(radan))[radan.landmarks]

    assert change("smile")[54, 0] > 4 and change("smile")[54, 1] > 4, "corners outwards and up"
    assert change("pucker")[54, 0] < -4 and change("pucker")[[51, 57], 2].min() > 3, "narrow and forwards"
    assert change("brow_up")[17:27, 1].min() > 4 and change("brow_down")[[21, 22], 1].max() < -3
    assert change("brow_down")[22, 0] < -2, "towards the middle"
    lips = change("upper_lip_raise")
    assert lips[51, 1] > 3 and abs(lips[57, 1]) < 1.5
    assert change("mouth_frown")[54, 1] < -4
    assert change("cheek_raise")[[46, 47], 1].min() > 1.5
    for name in NAMES:
        if name not in ("brow_up", "brow_down", "cheek_raise", "eye_close_left", "eye_close_right"):
            assert np.abs(change(name)[17:27]).max() < 1.5, f"{name} leaves the brows"


def test_eyeballs_stay_round_under_their_lids_in_every_identity(radan: FaceModel, template: Template) -> None:
    coefficients = np.c_[np.random.default_rng(2).normal(size=(50, 40)), np.zeros((50, 10))]
    for points in radan.vertices(coefficients).astype(np.float64):
        for eye in find_eyeballs(template):
            centre, radius = sphere(points[eye.vertices])
            assert np.abs(np.linalg.norm(points[eye.vertices] - centre, axis=1) - radius).max() < 0.0008
            skin = (eye.hold > 0) & (template.regions != LID_RIM)
            assert np.linalg.norm(points[skin] - centre, axis=1).min() > radius, "no lid in the eyeball"


def test_random_faces_are_not_folded(radan: FaceModel) -> None:
    random = np.random.default_rng(3)
    coefficients = random.normal(size=(60, 50))
    for name in ONE_SIDED:
        coefficients[:, 40 + NAMES.index(name)] = np.abs(coefficients[:, 40 + NAMES.index(name)])
    faces = radan.vertices(coefficients).astype(np.float64)
    hidden = np.isin(radan.regions, (INNER_MOUTH, NOSTRIL, EYEBALL))[radan.triangles].any(axis=1)
    seen = radan.triangles[~hidden]

    def normals(points: np.ndarray) -> np.ndarray:
        a, b, c = (points[seen[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    neutral = normals(radan.mean.astype(np.float64))
    flipped = np.array([(np.einsum("ta,ta->t", normals(points), neutral) < 0).mean() for points in faces])
    assert flipped.mean() < 0.001 and flipped.max() < 0.01
    at = faces[:, radan.landmarks, 1]
    lips = (at[:, [61, 62, 63]] - at[:, [67, 66, 65]]).min(axis=1)
    assert np.percentile(lips, 5) > -0.003, "the lower lip passes the upper by 3 mm in one face of 20 at most"
    lids = (at[:, [37, 38, 43, 44]] - at[:, [41, 40, 47, 46]]).min(axis=1)
    assert np.percentile(lids, 5) > -0.003


def test_nearest_orthogonal_modes_keep_length_and_sense() -> None:
    random = np.random.default_rng(4)
    modes = random.normal(size=(100, 3, 4)) * [10, 1, 1, 0.1]
    modes[:, :, 1] += 0.05 * modes[:, :, 0]
    again = nearest_orthogonal(modes).reshape(-1, 4)
    flat = modes.reshape(-1, 4)
    gram = again.T @ again
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-6 * gram.max()
    cosine = (again * flat).sum(0) / np.linalg.norm(again, axis=0) / np.linalg.norm(flat, axis=0)
    assert cosine[0] > 0.9999 and cosine.min() > 0.85, "the large one hardly changes"
    orthogonal = np.linalg.qr(random.normal(size=(300, 4)))[0].reshape(100, 3, 4) * [4, 3, 2, 1]
    assert np.allclose(nearest_orthogonal(orthogonal), orthogonal, atol=1e-9)


def test_farthest_points_and_nearness_by_hand() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [10, 0, 0], [4, 0, 0]])
    assert farthest_points(points, np.arange(5), 0, 3).tolist() == [0, 3, 4]
    assert farthest_points(points, np.array([0, 1, 2]), 0, 3).tolist() == [0, 2, 1]
    assert np.allclose(nearness(points[:2], points[:1], 1.0), [1, np.exp(-0.5)])


def test_closest_points_by_hand() -> None:
    square = Surface(
        np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]] * 4), np.arange(4)
    )
    found, normals = SurfaceSearch(square).closest(np.array([[0.3, 0.6, 2], [2, 0.5, 0], [-1, -1, 1.0]]))
    assert np.allclose(found, [[0.3, 0.6, 0], [1, 0.5, 0], [0, 0, 0]]) and np.allclose(normals, [[0, 0, 1]] * 3)
    random = np.random.default_rng(5)
    points = random.normal(size=(20, 3))
    place = Similarity(1.7, np.linalg.qr(random.normal(size=(3, 3)))[0], np.array([1.0, 2, 3]))
    place = Similarity(1.7, place.rotation * np.sign(np.linalg.det(place.rotation)), place.shift)
    found_place = Similarity.between(points, place.apply(points))
    assert np.allclose(found_place.rotation, place.rotation) and np.isclose(found_place.scale, 1.7)
    assert np.allclose(place.undo(place.apply(points)), points)
    assert np.allclose(place.after(found_place).apply(points), place.apply(place.apply(points)))


def test_the_built_in_file_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    out = tmp_path / "again.npz"
    subprocess.run([sys.executable, "-m", "radan_ros.tools.face_model", "--out", out], check=True, timeout=600)
    with zipfile.ZipFile(out) as again, zipfile.ZipFile(COMMITTED) as committed:
        assert again.namelist() == committed.namelist()
        for name in committed.namelist():
            assert again.read(name) == committed.read(name), name
    if "zlib-ng" not in zlib.ZLIB_RUNTIME_VERSION:  # which packs the same bytes differently
        assert out.read_bytes() == COMMITTED.read_bytes()
    assert out.stat().st_size < 4e6
    assert read_face_model(out).expression_names == NAMES


def test_the_file_keeps_all_and_its_bytes_do_not_depend_on_the_day(radan: FaceModel, tmp_path: Path) -> None:
    for step in (None, STEP):
        write_face_model(tmp_path / "a.npz", radan, step=step)
        write_face_model(tmp_path / "b.npz", radan, step=step)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert {info.date_time[0] for info in archive.infolist()} == {1980}
        again = read_face_model(tmp_path / "a.npz")
        for name in ("mean", "shape_basis", "expression_basis", "triangles", "landmarks", "codes", "uv", "regions"):
            assert np.array_equal(getattr(again, name), getattr(radan, name)), name
        assert again.version == radan.version and again.expression_names == radan.expression_names


def test_rounding_to_a_step_is_within_half_of_it(small_face: FaceModel, tmp_path: Path) -> None:
    write_face_model(tmp_path / "a.npz", small_face, step=0.01)
    again = read_face_model(tmp_path / "a.npz")
    assert 0.001 < np.abs(again.shape_basis - small_face.shape_basis).max() <= 0.00501
    assert again.uv is None and again.regions is None and again.expression_names == ()
    with pytest.raises(ValueError, match="a.npz: shape_basis does not fit into 16 bits"):
        write_face_model(tmp_path / "a.npz", small_face, step=1e-6)


def test_files_of_format_1_are_read(small_face: FaceModel, tmp_path: Path) -> None:
    arrays = {name: getattr(small_face, name) for name in ("mean", "shape_basis", "expression_basis", "triangles",
              "landmarks", "codes", "name", "unit")}  # fmt: skip
    np.savez_compressed(tmp_path / "old.npz", format=np.int64(1), **arrays)
    assert read_face_model(tmp_path / "old.npz").version == small_face.version
    np.savez_compressed(tmp_path / "new.npz", format=np.int64(3), **arrays)
    with pytest.raises(ValueError, match="new.npz: is no face model of format 1 to 2"):
        read_face_model(tmp_path / "new.npz")


@pytest.mark.parametrize("damage", ["uv", "regions", "names"])
def test_optional_parts_that_do_not_fit_are_named(radan: FaceModel, damage: str) -> None:
    parts = vars_of(radan) | {"uv": {"uv": radan.uv[:-1]}, "regions": {"regions": radan.regions[1:]},
              "names": {"expression_names": NAMES[:3]}}[damage]  # fmt: skip
    with pytest.raises(ValueError, match="radan.*(uv|regions|expression_names)"):
        FaceModel(**parts)


def test_it_fits_other_faces(radan: FaceModel, shared: Path) -> None:
    figures = measure_on_ict(radan, shared / "models" / "ict_facekit", identities=5)
    assert figures.identities.mean() < 0.002 and figures.identity_landmarks.mean() < 0.003
    assert set(figures.expressions) == {"jawOpen", "mouthSmile", "mouthPucker", "eyeBlink", "browInnerUp"}
    assert max(figures.expressions.values()) < 0.0025
    faces = list(IctFaces(shared / "models" / "ict_facekit").identities(2))
    assert np.abs(faces[0].vertices - faces[1].vertices).max() > 0.005, "the identities differ"
    assert measure_on_photographs(radan, shared / "datasets" / "ytf68", count=60).mean() < 0.02


def test_pictures_show_it_from_all_sides(radan: FaceModel, tmp_path: Path) -> None:
    paths = write_pictures(radan, tmp_path)
    assert len(paths) == 4 and all(5_000 < path.stat().st_size < 300_000 for path in paths)
    sheet = views(radan)
    front = sheet[:, : sheet.shape[1] // 5].astype(int)
    face = np.abs(front - front[:, :1]).sum(axis=2) > 30
    assert 0.6 < np.ptp(np.flatnonzero(face.any(axis=1))) / len(front) < 0.95, (
        "as high as the scale says: 0.19 of 0.25 m"
    )


@pytest.mark.parametrize("content", [None, b"hello"])
def test_what_is_no_ict_face_is_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ict_face_light.npz").write_bytes(content)
    with pytest.raises(ValueError, match="ict_face_light.npz"):
        IctFaces(tmp_path)


def test_an_ict_face_without_its_expressions_and_photographs_without_faces_are_told(
    radan: FaceModel, tmp_path: Path
) -> None:
    arrays = {"neutral": np.zeros((9, 3)), "identity": np.zeros((2, 9, 3)), "expression": np.zeros((1, 9, 3)),
              "expression_names": np.array(["jawOpen"]), "landmarks68": np.zeros(68, int),
              "triangles": np.zeros((1, 3), int)}  # fmt: skip
    np.savez(tmp_path / "ict_face_light.npz", **arrays)
    with pytest.raises(ValueError, match="ict_face_light.npz: .*lacks browInnerUp_L, "):
        IctFaces(tmp_path)
    np.savez(tmp_path / "ict_face_light.npz", **(arrays | {"identity": np.zeros((2, 8, 3))}))
    with pytest.raises(ValueError, match="ict_face_light.npz: .*do not fit together"):
        IctFaces(tmp_path)
    to_the_side = np.tile([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], (2, 1, 1))
    np.savez(tmp_path / "labels.npz", landmarks68_2d=np.zeros((2, 68, 2)), teacher_camera=to_the_side)
    with pytest.raises(ValueError, match="labels.npz: no face with 68 landmarks looks ahead"):
        measure_on_photographs(radan, tmp_path)


def test_the_program_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = subprocess.run(
        [sys.executable, "-m", tool.__name__, "--out", tmp_path / "file" / "face.npz"], capture_output=True, text=True
    )
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("radan-face-model: ") and "file" in result.stderr
    with pytest.raises(SystemExit, match="2"):
        tool.main(["--measure", "--identities", "0"])
