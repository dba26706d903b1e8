"""The template of the built-in face model: its mesh, symmetry, landmarks, flat map and regions."""

import numpy as np
import pytest

from radan_ros.face_models.making import template as making
from radan_ros.face_models.making.meshing import smallest_angles
from radan_ros.face_models.making.sculpture import EYE_RADIUS

MM = 1000.0
LEFT, RIGHT = slice(42, 48), slice(36, 42)


@pytest.fixture(scope="module")
def face():
    return making.make_template()


@pytest.fixture(scope="module")
def marks(face):
    """The 68 landmarks, mm."""
    return face.vertices[face.landmarks] * MM


def _edges(triangles):
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return directed, *np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)


def _doubled_areas(flat, triangles):
    a, b, c = (flat[triangles[:, k]].astype(float) for k in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def _eye_centre(face, side):
    """Centre of the sphere that an eyeball's vertices lie on, mm."""
    points = face.vertices[(face.regions == making.EYEBALL) & (side * face.vertices[:, 0] > 0)] * MM
    solution = np.linalg.lstsq(np.column_stack([2 * points, np.ones(len(points))]), (points**2).sum(1), rcond=None)[0]
    assert np.sqrt(solution[3] + solution[:3] @ solution[:3]) == pytest.approx(EYE_RADIUS, abs=0.01)
    return solution[:3]


def test_arrays_have_the_size_and_types_of_a_face_model(face):
    count = len(face.vertices)
    assert 8000 <= count <= 20000
    assert face.vertices.shape == (count, 3) and face.vertices.dtype == np.float64
    assert face.triangles.shape[1:] == (3,) and face.triangles.dtype == np.int32
    assert face.landmarks.shape == (68,) and face.landmarks.dtype == np.int32
    assert face.mirror.shape == (count,) and face.mirror.dtype == np.int32
    assert face.uv.shape == (count, 2) and face.uv.dtype == np.float32
    assert face.regions.shape == (count,) and face.regions.dtype == np.uint8
    assert np.array_equal(np.unique(face.triangles), np.arange(count)), "every vertex belongs to a triangle"


def test_a_second_run_gives_the_same_bytes(face):
    again = making.make_template()
    for name in ("vertices", "triangles", "landmarks", "mirror", "uv", "regions"):
        assert getattr(again, name).tobytes() == getattr(face, name).tobytes(), name


def test_mirror_is_exact_in_space_mesh_map_and_regions(face):
    mirror = face.mirror
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    assert np.array_equal(face.vertices[mirror], face.vertices * (-1, 1, 1))
    assert np.array_equal(face.regions[mirror], face.regions)
    assert np.array_equal(face.uv[mirror], np.array([1, 0], np.float32) + face.uv * np.array([-1, 1], np.float32))
    turned = mirror[face.triangles][:, ::-1]
    as_set = [{tuple(np.roll(t, -np.argmin(t))) for t in triangles.tolist()} for triangles in (face.triangles, turned)]
    assert as_set[0] == as_set[1]
    middle = mirror == np.arange(len(mirror))
    assert (face.vertices[middle, 0] == 0).all() and (face.vertices[~middle, 0] != 0).all()


def test_landmarks_mirror_as_ibug_numbers_do(face):
    assert np.array_equal(face.landmarks[making.LANDMARK_MIRROR], face.mirror[face.landmarks])
    assert len(np.unique(face.landmarks)) == 68


def test_edges_are_manifold_and_triangles_turn_alike(face):
    directed, _, uses = _edges(face.triangles)
    assert set(uses) == {1, 2}
    assert len(np.unique(directed, axis=0)) == len(directed), "two triangles use an edge in the same direction"


def test_open_edges_are_those_of_the_skin_the_lids_and_the_eyeballs(face):
    """The nose and the mouth are closed: what is open goes around the face, and around each lid and eyeball."""
    _, edges, uses = _edges(face.triangles)
    border = edges[uses == 1]
    regions = face.regions[border]
    assert (regions[:, 0] == regions[:, 1]).all()
    assert set(regions[:, 0]) == {making.SKIN, making.LID_RIM, making.EYEBALL}
    skin = face.vertices[border[regions[:, 0] == making.SKIN]].reshape(-1, 3) * MM
    near_eye = np.abs(np.abs(skin[:, 0]) - 31) + np.abs(skin[:, 1] - 16) < 25
    assert not (near_eye & (skin[:, 2] > 70)).any()


def test_triangles_are_well_shaped(face):
    angles = smallest_angles(face.vertices, face.triangles)
    assert np.median(angles) > 40
    assert (angles < 15).mean() < 0.01
    assert angles.min() > 2
    skin = (face.regions[face.triangles] == making.SKIN).all(1)
    assert angles[skin].min() > 15


def test_triangles_look_outward(face):
    corners = face.vertices[face.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    regions = face.regions[face.triangles]
    ball = (regions == making.EYEBALL).all(1)
    for side in (-1, 1):
        away = corners[ball & (side * corners[:, 0, 0] > 0)].mean(1) - _eye_centre(face, side) / MM
        assert ((away * normals[ball & (side * corners[:, 0, 0] > 0)]).sum(1) > 0).all()
    # The head is star-shaped but for the folds of nose, lips and lids.
    away = corners.mean(1) - np.array([0, -0.02, 0.015])
    plain = (regions == making.SKIN).all(1) & (np.linalg.norm(corners.mean(1)[:, :2] - (0, -0.02), axis=1) > 0.03)
    assert ((away * normals).sum(1)[plain] > 0).mean() > 0.995
    # Neighbours never fold over each other on the skin.
    skin = np.flatnonzero((regions <= making.BROW).all(1))
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    vertex = np.zeros_like(face.vertices)
    np.add.at(vertex, face.triangles[skin].ravel(), np.repeat(normals[skin], 3, axis=0))
    vertex /= np.maximum(np.linalg.norm(vertex, axis=1, keepdims=True), 1e-12)
    assert (unit[skin, None] * vertex[face.triangles[skin]]).sum(2).min() > 0.3


def test_jaw_brows_and_nose_are_numbered_as_ibug_does(marks):
    assert marks[0, 0] < -60 and marks[16, 0] > 60
    assert (np.diff(marks[:17, 0]) > 0).all()
    assert np.argmin(marks[:17, 1]) == 8 and marks[8, 0] == 0
    assert (np.diff(marks[8:17, 1]) > 0).all() and (np.diff(marks[8:17, 2]) < 0).all()
    assert (np.diff(marks[17:27, 0]) > 0).all() and (marks[17:22, 0] < 0).all()
    assert (marks[17:27, 1] > marks[36:48, 1].max()).all()
    assert (
        (marks[27:31, 0] == 0).all() and (np.diff(marks[27:31, 1]) < 0).all() and (np.diff(marks[27:31, 2]) > 0).all()
    )
    assert (np.diff(marks[31:36, 0]) > 0).all() and (marks[31:36, 1] < marks[30, 1]).all()
    assert np.argmax(marks[:, 2]) == 30


def test_lid_landmarks_surround_the_eyes(face, marks):
    for eye, side, outer, inner in ((marks[RIGHT], -1, 0, 3), (marks[LEFT], 1, 3, 0)):
        centre = _eye_centre(face, side)
        upper, lower = eye[[1, 2]], eye[[4, 5]]
        assert (upper[:, 1] > centre[1] + 2).all() and (lower[:, 1] < centre[1] - 2).all()
        assert abs(eye[outer, 0]) > abs(centre[0]) + 10 and abs(eye[inner, 0]) < abs(centre[0]) - 10
        assert (np.diff(eye[:4, 0]) > 0).all() and (np.diff(eye[3:, 0]) < 0).all()
        gap = np.linalg.norm(eye - centre, axis=1) - EYE_RADIUS
        assert (gap > 0.5).all() and (gap[[1, 2, 4, 5]] < 2.5).all(), "the lids lie on the eyeball"


def test_skin_lies_outside_the_eyeballs(face):
    skin = face.regions <= making.BROW
    for side in (-1, 1):
        assert np.linalg.norm(face.vertices[skin] * MM - _eye_centre(face, side), axis=1).min() > EYE_RADIUS + 0.5


def test_mouth_is_a_closed_slit_of_doubled_vertices(face, marks):
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        assert face.landmarks[upper] != face.landmarks[lower]
        assert np.linalg.norm(marks[upper] - marks[lower]) < 0.01
    assert (np.diff(marks[48:55, 0]) > 0).all() and (np.diff(marks[54:60, 0]) < 0).all()
    assert (np.diff(marks[60:65, 0]) > 0).all() and marks[64, 0] < marks[54, 0] and marks[60, 0] > marks[48, 0]
    assert (marks[49:54, 1] > marks[62, 1]).all() and (marks[55:60, 1] < marks[62, 1]).all()
    assert marks[51, 1] < marks[50, 1] and marks[51, 1] < marks[52, 1], "Cupid's bow"


def test_upper_and_lower_lip_meet_only_at_the_corners(face):
    """Of the skin's and lips' triangles, those at the upper edge of the slit lie above it, at the lower edge below."""
    outside = (face.regions[face.triangles] <= making.BROW).all(1)
    for number, side in ((61, 1), (62, 1), (63, 1), (65, -1), (66, -1), (67, -1)):
        vertex = face.landmarks[number]
        around = np.unique(face.triangles[outside & (face.triangles == vertex).any(1)])
        assert (side * (face.vertices[around, 1] - face.vertices[vertex, 1]) * MM > -1.0).all()
    inside = face.vertices[face.regions == making.INNER_MOUTH] * MM
    assert (inside[:, 2] < face.vertices[face.landmarks[62], 2] * MM).all()
    assert face.vertices[face.landmarks[62], 2] * MM - inside[:, 2].min() > 8


@pytest.mark.parametrize(
    ("first", "second", "mean", "tolerance"),
    [
        (33, 62, 21, 2),  # upper lip height
        (62, 8, 45, 3),  # stomion-gnathion
        (39, 42, 32, 3),  # intercanthal breadth
        (42, 45, 30.5, 2),  # eye fissure
        (36, 45, 90, 3),  # biocular breadth
        (48, 54, 52, 3),  # mouth breadth
    ],
)
def test_distances_are_about_those_of_adults(marks, first, second, mean, tolerance):
    assert np.linalg.norm(marks[first] - marks[second]) == pytest.approx(mean, abs=tolerance)


def test_heights_from_the_sellion_are_about_those_of_adults(face, marks):
    """The sellion is the deepest point of the nose's root; landmark 27 lies beside it, a little lower."""
    middle = face.vertices[(face.vertices[:, 0] == 0) & (face.vertices[:, 1] > 0.01) & (face.vertices[:, 1] < 0.035)]
    sellion = middle[np.argmin(middle[:, 2])] * MM
    assert np.linalg.norm(sellion - marks[8]) == pytest.approx(118, abs=5)  # face height
    assert np.linalg.norm(sellion - marks[33]) == pytest.approx(51, abs=3)  # nose height
    assert sellion[2] == pytest.approx(100, abs=5)  # before the tragion
    assert np.linalg.norm(sellion - marks[27]) < 5


def test_breadths_and_depths_are_about_those_of_adults(face, marks):
    points = face.vertices * MM
    level = points[np.abs(points[:, 1]) < 6]
    assert 2 * level[:, 0].max() == pytest.approx(138, abs=8)  # bizygomatic to bitragion breadth
    assert 68 < points[:, 0].max() < 80
    pupils = _eye_centre(face, 1)[0] - _eye_centre(face, -1)[0]
    assert pupils == pytest.approx(63, abs=1)
    wings = points[(np.abs(points[:, 1] + 18) < 4) & (points[:, 2] > 100) & (np.abs(points[:, 0]) < 22)]
    assert 2 * wings[:, 0].max() == pytest.approx(34, abs=4)
    assert marks[30, 2] - marks[33, 2] == pytest.approx(20, abs=4)
    assert 5 <= marks[33, 2] - marks[8, 2] <= 18
    assert marks[8, 2] == pytest.approx(92, abs=6)


def test_flat_map_is_inside_the_unit_square_and_does_not_overlap(face):
    assert face.uv.min() >= 0 and face.uv.max() <= 1
    assert (_doubled_areas(face.uv, face.triangles) > 0).all()
    # All turn alike, so they overlap only if they cover less than their areas' sum. Count on a fine grid of points.
    covered = np.zeros((512, 512), int)
    corners = face.uv[face.triangles].astype(float) * 512
    for triangle in corners:
        low, high = np.floor(triangle.min(0)).astype(int), np.ceil(triangle.max(0)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        inside = np.ones(x.shape, bool)
        for k in range(3):
            (ax, ay), (bx, by) = triangle[k], triangle[(k + 1) % 3]
            inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 1e-9
        covered[low[1] : high[1], low[0] : high[0]] += inside
    assert covered.max() == 1
    assert covered.mean() > 0.5


def test_regions_are_where_they_belong(face, marks):
    points, regions = face.vertices * MM, face.regions
    assert set(np.unique(regions)) == {
        making.SKIN, making.LIPS, making.BROW, making.EYEBALL, making.INNER_MOUTH, making.NOSTRIL, making.LID_RIM
    }  # fmt: skip
    lips = points[regions == making.LIPS]
    assert lips[:, 1].max() <= marks[[50, 52], 1].max() + 0.5 and lips[:, 1].min() >= marks[57, 1] - 0.5
    assert (regions[face.landmarks[48:68]] == making.LIPS).all()
    assert (regions[face.landmarks[36:48]] == making.LID_RIM).all()
    assert (regions[face.landmarks[:17]] == making.SKIN).all()
    brows = points[regions == making.BROW]
    assert (brows[:, 1] > marks[[38, 43], 1].max()).all() and (np.abs(brows[:, 0]) > 8).all()
    nostrils = points[regions == making.NOSTRIL]
    assert (nostrils[:, 2] < marks[30, 2]).all() and (np.abs(nostrils[:, 0]) < 15).all()
