"""Pictures: the inputs stay as they are, things are drawn where they are, and nothing odd breaks the drawing."""

from __future__ import annotations

import numpy as np
import pytest

from radan_ros import drawing
from radan_ros.camera import CameraModel
from radan_ros.normals import vertex_normals
from radan_ros.pose import FACING, rotation_from_euler

CAMERA = CameraModel((480, 640), np.array([[550, 0, 320], [0, 550, 240], [0, 0, 1.0]]), np.zeros(0))


def _sphere(rings: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere around the origin: vertices, and triangles counter-clockwise seen from outside."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], axis=-1)
    index = np.arange(points.size // 3).reshape(polar.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, c, b), (a, d, c))])
    return points.reshape(-1, 3), triangles


def _landmarks(centre: tuple[float, float] = (320, 240), size: float = 160) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, (68, 2)) * size + centre


def test_normals_of_a_sphere_are_its_radii_and_point_out() -> None:
    points, triangles = _sphere()
    normals = vertex_normals(points, triangles)
    inner = np.abs(points[:, 1]) < 0.95  # the poles' vertices are many at one place, some without area
    assert (np.sum(normals * points, axis=1)[inner] > 0.99).all()


def test_the_side_to_the_viewer_is_lit_and_the_back_is_not() -> None:
    points, triangles = _sphere()
    light = drawing.shade(points, triangles)
    assert light[points[:, 2] < -0.8].min() > 2 * light[points[:, 2] > 0.8].max()
    # The key light comes from above left.
    upper_left = (points[:, 0] < -0.3) & (points[:, 1] < -0.3) & (points[:, 2] < -0.5)
    lower_right = (points[:, 0] > 0.3) & (points[:, 1] > 0.3) & (points[:, 2] < -0.5)
    assert light[upper_left].mean() > light[lower_right].mean() + 0.2


def test_landmarks_are_drawn_where_they_are_and_the_image_is_left_alone() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    points = _landmarks()
    out = drawing.draw_landmarks(image, points)
    assert not image.any()
    for x, y in np.rint(points).astype(int):
        assert out[y, x].max() > 150
    changed = np.argwhere(out.any(axis=2))
    low, high = points.min(axis=0)[::-1] - 5, points.max(axis=0)[::-1] + 5
    assert (changed >= low).all() and (changed <= high).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e12])
def test_points_that_cannot_be_drawn_are_left_out(value: float) -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    points = _landmarks((50, 50), 60)
    points[36:42] = value
    assert drawing.draw_landmarks(image, points).any()
    assert not drawing.draw_landmarks(image, np.full((68, 2), value)).any()
    assert not drawing.draw_box(image, [value] * 4, "x").any()
    assert not drawing.draw_axes(image, np.eye(3), [0, value, 1], CAMERA).any()


def test_points_beyond_every_edge_draw_nothing_and_do_not_fail() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    for centre in ((-500, 50), (50, -500), (600, 50), (50, 600)):
        points = _landmarks(centre, 60)
        assert not drawing.draw_landmarks(image, points).any()


def test_axes_of_a_head_that_faces_the_camera_point_where_they_should() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    out = drawing.draw_axes(image, FACING, [0, 0, 0.6], CAMERA).astype(int)
    green = (out[:, :, 1] > 120) & (out[:, :, 2] < 120) & (out[:, :, 0] < 120)
    blue = (out[:, :, 0] > 150) & (out[:, :, 2] < 100)
    rows, columns = np.nonzero(green)
    # y: to the subject's left, which is the image's right; z: to the scalp, up in the image.
    assert columns.mean() > 340 and abs(rows.mean() - 240) < 4
    rows, columns = np.nonzero(blue)
    assert rows.mean() < 220 and abs(columns.mean() - 320) < 4
    assert not drawing.draw_axes(image, FACING, [0, 0, -0.6], CAMERA).any()


def test_the_pose_box_opens_towards_where_the_head_looks() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    colour = (255, 180, 80)
    out = drawing.draw_pose_box(image, FACING, [0, 0, 0.6], CAMERA, colour)
    assert not image.any()
    bright = (np.abs(out.astype(int) - colour) < 40).all(axis=2)  # the square in front
    rows, columns = np.nonzero(bright)
    side = 2 * 0.092 / (0.6 - 0.07) * 550
    assert abs(np.ptp(columns) - side) < 6 and abs(np.ptp(rows) - side) < 6, "nearer is larger"
    assert abs(columns.mean() - 320) < 3 and (out[:, ::-1][:, :-1] == out[:, 1:]).mean() > 0.99
    left = np.nonzero(
        (
            drawing.draw_pose_box(image, rotation_from_euler(0.5, 0, 0), [0, 0, 0.6], CAMERA, colour) - np.array(colour)
            == 0
        ).all(axis=2)
    )[1]
    assert left.mean() > 320 + 15, "turned to the subject's left, it moves to the viewer's right"
    wide = CameraModel((480, 640), CAMERA.matrix, np.array([-0.3, 0.05, 0, 0]))
    assert (
        drawing.draw_pose_box(image, FACING, [0.15, 0, 0.6], wide)
        != drawing.draw_pose_box(image, FACING, [0.15, 0, 0.6], CAMERA)
    ).any()
    for origin in ([0, 0, -0.6], [0, 0, 0.05], [np.nan, 0, 1]):
        assert not drawing.draw_pose_box(image, FACING, origin, CAMERA).any()
    drawing.draw_pose_box(image, FACING, [0, 0, 0.6], CAMERA, colour, in_place=True)
    assert (image == out).all()


def test_the_pose_box_of_the_reference_has_its_corners() -> None:
    """Corners worked out by hand: a head turned by 30 degrees, landmarks over 120 x 120 pixels around (200, 150)."""
    image = np.zeros((300, 400, 3), np.uint8)
    points = np.tile([[140.0, 90.0], [260.0, 210.0]], (34, 1))
    points[:27] = 200, 150
    cosine, sine = np.cos(np.pi / 6), 0.5
    camera = 3.7 * np.array(
        [[cosine, 0, sine, 9], [0, 1, 0, 9], [-sine, 0, cosine, 9]]
    )  # neither scale nor shift count
    out = drawing.draw_reference_pose_box(image, camera, points)
    half = 120 * np.sqrt(2) / 3  # 56.57; in front 75, and 75 before it
    for x, y in ((200 - cosine * half, 150 + half), (200 + cosine * half, 150 - half)):
        assert out[int(y), int(x), 1] == 255
    for x, y in ((200 - cosine * 75 + sine * 75, 150 + 75), (200 + cosine * 75 + sine * 75, 150 - 75)):
        assert out[int(y), int(x), 1] == 255
    rows, columns = np.nonzero(out.any(axis=2))
    assert rows.min() > 70 and rows.max() < 230 and columns.max() < 200 + 0.5 * 75 + cosine * 75 + 5
    assert tuple(out[150 + 56, 200]) == (40, 255, 0) and not image.any()


def test_a_mesh_tints_its_pixels_and_no_others() -> None:
    image = np.full((240, 320, 3), 100, np.uint8)
    points, triangles = _sphere()
    placed = points * [60, 60, 0.1] + [160, 120, 0.6]  # the third axis in metres
    before = placed.copy()
    out = drawing.draw_mesh(image, placed, triangles, (255, 0, 0), opacity=0.5)
    rows, columns = np.mgrid[:240, :320]
    distance = np.hypot(columns - 160, rows - 120)
    changed = (out != image).any(axis=2)
    assert changed[distance < 57].all() and not changed[distance > 63].any()
    assert (out[distance < 50][:, 0] > out[distance < 50][:, 2]).all()
    assert (placed == before).all() and (image == 100).all()
    assert (drawing.draw_mesh(image, np.full((3, 3), np.nan), [[0, 1, 2]]) == image).all()


def test_the_shaded_mesh_fills_its_picture_and_turns() -> None:
    points, triangles = _sphere()
    nose = points.copy()
    nose[points[:, 2] < -0.97, 2] -= 1  # a nose towards the viewer
    front, side = (drawing.shaded_mesh(nose, triangles, (200, 200), np.radians(yaw)) for yaw in (0, 90))
    assert front.shape == side.shape == (200, 200, 3)
    ground = drawing.shaded_mesh(np.zeros((3, 3)), [[0, 1, 2]], (200, 200)).astype(int)
    seen = np.abs(front - ground).max(axis=2) > 3
    rows, columns = np.nonzero(seen)
    assert 170 <= np.ptp(rows) <= 180 and 170 <= np.ptp(columns) <= 180
    # Turned to the viewer's right, the nose is at the right: thin there, thick at the left.
    thickness = (np.abs(side - ground).max(axis=2) > 3).sum(axis=0)
    columns = np.nonzero(thickness)[0]
    assert thickness[columns.max() - 20] < 40 < 80 < thickness[columns.min() + 20]
    views = drawing.mesh_views(nose, triangles, (120, 100))
    assert views.shape == (120, 300, 3)


def test_depth_colours_go_from_red_near_to_blue_far_and_leave_holes_dark() -> None:
    depth = np.full((100, 200), np.nan, np.float32)
    depth[20:80, 50:150] = np.linspace(0.5, 0.7, 100, dtype=np.float32)
    picture = drawing.colour_depth(depth)
    assert picture.shape[0] == 100 and picture.shape[1] > 200
    assert (picture[:20, :200] == picture[0, 0]).all() and picture[0, 0].max() < 60
    near, far = picture[50, 51].astype(int), picture[50, 148].astype(int)
    assert near[2] > near[0] + 80 and far[0] > far[2] + 80


def test_depth_without_a_face_and_depth_of_one_value_are_pictures_too() -> None:
    empty = drawing.colour_depth(np.full((60, 80), np.nan))
    assert empty.shape[0] == 60
    flat = drawing.colour_depth(np.full((60, 80), 0.5))
    assert flat.shape == empty.shape
    assert drawing.colour_depth(np.full((60, 80), 0.5), limits=(0.4, 0.9)).shape == empty.shape


def test_the_overlay_shows_near_faces_over_far_ones() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    points, triangles = _sphere()
    placed = points * [50, 50, 0.1] + [160, 120, 0]
    corner = np.full((68, 2), 5.0)
    near = drawing.DrawnFace(corner, number=0, origin=(0, 0, 0.5), vertices=placed)
    far = drawing.DrawnFace(corner, number=1, origin=(0, 0, 1.5), vertices=placed)
    one = drawing.overlay(image, [near, far], triangles=triangles)
    other = drawing.overlay(image, [far, near], triangles=triangles)
    assert (one == other).all()
    assert one[120, 160, 0] > one[120, 160, 2]  # the first colour of the palette is blue
    assert not image.any()


def test_a_label_stays_inside_the_picture() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    for at in ((-50, -50), (500, 5), (5, 500)):
        assert drawing.draw_label(image, "face 12", at).any()
    assert drawing.draw_label(np.zeros((8, 8, 3), np.uint8), "wider than the picture", (0, 0)).shape == (8, 8, 3)
