"""Textures: the map is one to one, what is seen keeps its colour, what is hidden gets that of the other side."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from radan_ros import Model, Pipeline, open_detector
from radan_ros import texture as texture_module
from radan_ros.face_models import FaceModel, read_3ddfa, read_3ddfa_v2
from radan_ros.pose import HEAD_IN_MODEL, rotation_from_euler
from radan_ros.rendering import render
from radan_ros.texture import Texture, flatten_to_texels, mirror_uv, sample_texture, unwrap

SIZE = 512
MAGENTA = (255, 0, 255)
Coloured = Callable[[FaceModel], np.ndarray]


def doubled_areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the signed areas of flat triangles."""
    a, b, c = (points[triangles[:, k]].astype(float) for k in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def check_map(face: FaceModel) -> None:
    """The map is one to one, upright, not mirrored, and its mirror map leads to the other side."""
    uv = unwrap(face)
    assert uv.shape == (len(face.mean), 2) and uv.dtype == np.float32 and uv.min() >= 0 and uv.max() <= 1
    areas = doubled_areas(uv, face.triangles)
    assert (areas > 0).all()
    # Turned the same way everywhere, and no texel in two triangles: their areas add up to what they cover.
    texels = flatten_to_texels(uv, face.triangles, SIZE)
    assert abs(len(texels.row) / SIZE**2 - areas.sum() / 2) < 0.005
    assert uv[face.landmarks[8], 1] < uv[face.landmarks[57], 1] < uv[face.landmarks[30], 1] < uv[face.landmarks[27], 1]
    assert uv[face.landmarks[36], 0] < uv[face.landmarks[45], 0]
    assert unwrap(face) is uv, "made once"
    mirrored = mirror_uv(face)
    pairs = [(36, 45), (48, 54), (0, 16), (31, 35), (17, 26), (30, 30)]
    right, left = face.landmarks[np.array(pairs).T]
    assert np.abs(mirrored[right] - uv[left]).max() < 0.02 and np.abs(mirrored[left] - uv[right]).max() < 0.02


def test_the_built_in_face_has_a_map(builtin: Model) -> None:
    check_map(builtin.face_model)


def test_a_face_model_without_texture_coordinates_is_laid_flat(builtin: Model) -> None:
    """Several pieces and holes: the head with its eye openings, and two eyeballs."""
    check_map(replace(builtin.face_model, uv=None))


def test_the_models_of_3ddfa_are_laid_flat(dense_models) -> None:  # type: ignore[no-untyped-def]
    check_map(read_3ddfa(dense_models / "3ddfa_v1"))
    check_map(read_3ddfa_v2(dense_models / "3ddfa_v2" / "configs" / "bfm_noneck_v3.pkl"))


def test_a_piece_of_one_triangle_is_laid_flat(small_face: FaceModel) -> None:
    for corners in ([0, 1, 30], [1, 26, 25], [400, 401, 426]):
        uv = unwrap(replace(small_face, triangles=np.array([corners], np.int32)))
        assert doubled_areas(uv, np.array([corners]))[0] > 0.05


def test_a_mesh_that_cannot_be_laid_flat_is_refused(small_face: FaceModel) -> None:
    triangles = np.array([[0, 2, 1], [0, 1, 30], [1, 2, 30], [2, 0, 30]], np.int32)  # a closed pyramid
    with pytest.raises(ValueError, match=r"half_ellipsoid cannot be laid flat: .*closed"):
        unwrap(replace(small_face, triangles=triangles))
    with pytest.raises(ValueError, match="touch"):
        unwrap(replace(small_face, triangles=np.array([[0, 1, 30], [30, 60, 61]], np.int32)))


def test_texels_know_their_place_in_the_mesh(small_face: FaceModel) -> None:
    uv = unwrap(small_face)
    texels = flatten_to_texels(uv, small_face.triangles, (100, 200))
    assert np.allclose(texels.weights.sum(axis=1), 1, atol=1e-5) and texels.weights.min() > -0.01
    places = np.einsum("nk,nkj->nj", texels.weights, uv[small_face.triangles[texels.triangle]])
    assert np.allclose(places[:, 0] * 200 - 0.5, texels.column, atol=1e-3)
    assert np.allclose((1 - places[:, 1]) * 100 - 0.5, texels.row, atol=1e-3)
    assert len(np.unique(texels.row * 200 + texels.column)) == len(texels.row)


def placed(face: FaceModel, yaw: float, size: int = 360, pitch: float = 0.0) -> np.ndarray:
    """The mean face in a picture of `size` pixels, turned to the subject's left: x, y in pixels, third away."""
    rotation = rotation_from_euler(np.radians(yaw), np.radians(pitch), 0) @ HEAD_IN_MODEL.T
    points = (face.mean - face.mean.mean(axis=0)) @ rotation.T
    scale = 0.8 * size / np.ptp(face.mean[:, 1])
    return (points * scale + [size / 2, size / 2, 500]).astype(np.float32)


def skin(face: FaceModel) -> np.ndarray:
    """A colour for each vertex, BGR, the same on both sides: waves that differ from place to place."""
    x, y, z = (face.mean.astype(float) * face.unit * 1e3).T
    waves = [np.sin(abs(x) / 9), np.sin(y / 11), np.sin(z / 13)]
    return np.stack([110 + 30 * waves[0], 150 + 30 * waves[1], 190 + 30 * waves[2]], axis=1)


def picture_of(vertices: np.ndarray, face: FaceModel, colours: np.ndarray, size: int = 360) -> np.ndarray:
    """The face before a magenta wall."""
    rendering = render([vertices], face.triangles, colours, (size, size))
    return np.where(np.isfinite(rendering.depth)[..., None], rendering.colour, np.array(MAGENTA, np.uint8))


def compared(texture: Texture, face: FaceModel, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest difference of a texture and the true one over the channels, at the N texels of the mesh; whether seen."""
    texels = flatten_to_texels(unwrap(face), face.triangles, len(texture.picture))
    truth = np.einsum("nk,nkj->nj", texels.weights, colours[face.triangles[texels.triangle]])
    difference = np.abs(texture.picture[texels.row, texels.column] - truth).max(axis=1)
    return difference, texture.visible[texels.row, texels.column]


@pytest.mark.parametrize("yaw", [0, 40, -60])
def test_the_true_texture_comes_back_from_a_picture(builtin: Model, yaw: int) -> None:
    face = builtin.face_model
    colours, vertices = skin(face), placed(face, yaw)
    image = picture_of(vertices, face, colours)
    before = image.copy()
    texture = sample_texture(image, vertices, face.triangles, unwrap(face), SIZE, mirror_uv(face))
    assert np.array_equal(image, before) and texture.picture.shape == (SIZE, SIZE, 3)
    difference, seen = compared(texture, face, colours)
    assert 0.35 < seen.mean() < 0.9
    assert np.percentile(difference[seen], 98) < 8, "colours of what is seen"
    # On the far side of a turned head lies what the near side shows.
    limit = {0: 30, 40: 12, -60: 8}[yaw]
    assert difference[~seen].mean() < limit
    # Magenta is far from the skin: its green is 0, that of the skin at least 120.
    assert texture.picture[..., 1].min() > 80, "no smear of the background"
    without = sample_texture(image, vertices, face.triangles, unwrap(face), SIZE)
    assert np.array_equal(without.visible, texture.visible) and without.picture[..., 1].min() > 80
    if yaw:
        assert difference[~seen].mean() < 0.5 * compared(without, face, colours)[0][~seen].mean(), "mirroring helps"


def flat_square() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square before the camera, from pixel 10 to pixel 70 both ways: vertices, triangles, texture coordinates."""
    corners = np.float32([[10, 10, 500], [70, 10, 500], [10, 70, 500], [70, 70, 500]])
    return corners, np.array([[0, 2, 1], [1, 2, 3]]), np.float32([[0, 1], [1, 1], [0, 0], [1, 0]])


def test_a_texel_takes_its_colour_from_its_place_to_a_fifth_of_a_pixel() -> None:
    vertices, triangles, uv = flat_square()
    image = np.zeros((80, 80, 3), np.uint8)
    image[..., 0], image[..., 1] = 3 * np.arange(80), 3 * np.arange(80)[:, None]  # three levels a pixel
    texture = sample_texture(image, vertices, triangles, uv, 32)
    place = 10 + 60 * (np.arange(32) + 0.5) / 32
    expected = np.stack([*np.meshgrid(place, place)], axis=-1)
    assert texture.visible.mean() > 0.7
    error = (texture.picture[..., :2] / 3 - expected)[texture.visible]
    assert np.abs(error.mean(axis=0)).max() < 0.05 and np.abs(error).max() < 0.2


def test_what_is_hidden_comes_from_its_very_place_on_the_other_side() -> None:
    """Waves that are the same on both sides; something nearer hides a part of one."""
    vertices, triangles, uv = flat_square()
    x, y = np.meshgrid(np.arange(80.0), np.arange(80.0))
    waves = 128 + 50 * np.cos((x - 40) * 2 * np.pi / 16) + 50 * np.cos(y * 2 * np.pi / 16)
    image = np.repeat(np.rint(waves)[..., None], 3, axis=2).astype(np.uint8)
    depth = np.where((x >= 10) & (x <= 70) & (y >= 10) & (y <= 70), np.float32(500), np.float32(np.nan))
    hidden = (x > 46) & (x < 58) & (y > 26) & (y < 54)
    depth[hidden] = 100
    image[hidden] = MAGENTA
    mirror = uv * [-1, 1] + [1, 0]
    texture = sample_texture(image, vertices, triangles, uv, 32, mirror, depth=depth)
    place = 10 + 60 * (np.arange(32) + 0.5) / 32
    across, down = np.meshgrid(place, place)
    truth = 128 + 50 * np.cos((across - 40) * 2 * np.pi / 16) + 50 * np.cos(down * 2 * np.pi / 16)
    filled = ~texture.visible & (across > 46) & (across < 58) & (down > 26) & (down < 54)
    assert filled.sum() > 60
    # The steepest of the waves is 28 levels a pixel, and interpolation takes a little off their crests.
    assert np.abs(texture.picture[..., 0] - truth)[filled].max() < 10


def test_threads_that_ask_at_the_same_time_lay_a_face_flat_once(
    builtin: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    face, made = replace(builtin.face_model, uv=None), []
    lay_flat = texture_module._laid_flat

    def counted(face_model: FaceModel) -> np.ndarray:
        made.append(face_model)
        return lay_flat(face_model)

    monkeypatch.setattr(texture_module, "_laid_flat", counted)
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: (unwrap(face), mirror_uv(face)), range(4))
    assert len(made) == 1 and all(one[0] is first[0] and one[1] is first[1] for one in others)


def test_there_is_no_seam_where_the_light_differs(builtin: Model) -> None:
    """The far side is lit otherwise than the near one: what is filled in takes the light of its own side."""
    face = builtin.face_model
    vertices = placed(face, 40)
    shade = np.clip(0.8 + 4 * face.mean[:, :1] * face.unit, 0.6, 1)  # darker on the subject's right
    plain = np.full((len(face.mean), 3), (110.0, 150.0, 190.0))
    texture = sample_texture(
        picture_of(vertices, face, plain * shade), vertices, face.triangles, unwrap(face), SIZE, mirror_uv(face)
    )
    inside = np.zeros((SIZE, SIZE), np.uint8)
    texels = flatten_to_texels(unwrap(face), face.triangles, SIZE)
    inside[texels.row, texels.column] = 1
    border = cv2.morphologyEx(texture.visible.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    steps = np.abs(np.diff(texture.picture.astype(int), axis=1)).max(axis=2)
    across = border[:, 1:] & border[:, :-1] & (inside[:, 1:] & inside[:, :-1] > 0)
    assert across.sum() > 500 and np.percentile(steps[across], 99) <= 6


def test_what_the_image_does_not_hold_is_filled_in(builtin: Model) -> None:
    face = builtin.face_model
    colours, vertices = skin(face), placed(face, 0)
    vertices[:, 0] -= 190  # the subject's right half is beyond the left edge
    image = picture_of(vertices, face, colours)
    texture = sample_texture(image, vertices, face.triangles, unwrap(face), SIZE, mirror_uv(face))
    difference, seen = compared(texture, face, colours)
    assert 0.15 < seen.mean() < 0.45 and difference.mean() < 25 and texture.picture[..., 1].min() > 80
    away = sample_texture(image, vertices - [900, 0, 0], face.triangles, unwrap(face), SIZE, mirror_uv(face))
    assert not away.visible.any() and np.ptp(away.picture) == 0


def test_a_face_behind_another_does_not_take_its_colours(builtin: Model) -> None:
    face = builtin.face_model
    colours, behind = skin(face), placed(face, 0)
    before = behind + np.array([90, 0, -400], np.float32)
    green = np.full_like(colours, (0, 255, 0))
    image = picture_of(behind, face, colours)
    front = render([before], face.triangles, green, image.shape[:2])
    image = np.where(np.isfinite(front.depth)[..., None], front.colour, image)
    depth = render([behind, before], face.triangles, colours, image.shape[:2]).depth
    texture = sample_texture(image, behind, face.triangles, unwrap(face), SIZE, mirror_uv(face), depth=depth)
    assert texture.picture[..., 1].max() < 230, "no green of the other face"
    assert 0.1 < compared(texture, face, colours)[1].mean() < 0.5
    alone = sample_texture(image, behind, face.triangles, unwrap(face), SIZE, mirror_uv(face))
    assert alone.picture[..., 1].max() > 250


def test_metres_and_pixels_of_depth_give_the_same_texture(builtin: Model) -> None:
    face = builtin.face_model
    vertices = placed(face, 30)
    image = picture_of(vertices, face, skin(face))
    scaled = vertices * np.array([1, 1, 1e-3], np.float32)
    one, other = (sample_texture(image, v, face.triangles, unwrap(face), 256) for v in (vertices, scaled))
    assert (one.visible != other.visible).mean() < 1e-3
    some = vertices.copy()
    some[face.mean[:, 1].argsort()[:500]] = np.nan  # behind the camera
    part = sample_texture(image, some, face.triangles, unwrap(face), 256)
    assert 0.3 < (part.visible & one.visible).sum() / one.visible.sum() < 1


def test_the_wall_behind_a_photographed_face_is_not_in_its_texture(astronaut: np.ndarray, builtin: Model) -> None:
    """Everything outside the outline of the mesh is painted over: the texture stays as it was."""
    pipeline = Pipeline(builtin, open_detector("dlib_hog"))
    face = builtin.face_model
    (found,) = pipeline(astronaut)
    (vertices,) = pipeline.vertices([found])
    drawn = render([vertices], face.triangles, skin(face), astronaut.shape[:2], colour=False)
    outline = cv2.dilate(np.isfinite(drawn.depth).astype(np.uint8), np.ones((3, 3))) > 0
    painted = np.where(outline[..., None], astronaut, np.array(MAGENTA, np.uint8))
    textures = [
        sample_texture(image, vertices, face.triangles, unwrap(face), SIZE, mirror_uv(face))
        for image in (astronaut, painted)
    ]
    assert 0.3 < textures[0].visible.mean() < 0.8
    assert np.array_equal(textures[0].visible, textures[1].visible)
    assert np.abs(textures[0].picture.astype(int) - textures[1].picture).max() <= 1  # rounding
