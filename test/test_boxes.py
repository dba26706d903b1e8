"""Boxes and the map between crop and image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radan_ros import boxes


@pytest.mark.parametrize("roi", [(10, 20, 130, 140), (-30.5, 12.25, 210.75, 253.5), (3, 4, 63, 64)])
def test_a_crop_samples_the_image_where_the_map_says(roi: tuple[float, ...]) -> None:
    y, x = np.mgrid[0:300, 0:300].astype(np.float32)
    ramp = np.stack([x / 300 * 250, y / 300 * 250, x * 0], axis=-1).round().astype(np.uint8)
    crop = boxes.crop(ramp, roi)
    u, v = np.mgrid[0:120, 0:120][::-1]
    mapped = boxes.crop_to_image(roi) @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    inside = ((mapped[:2] > 0) & (mapped[:2] < 299)).all(axis=0)
    for channel in (0, 1):
        expected = mapped[channel] / 300 * 250
        assert np.abs(crop[..., channel].ravel() - expected)[inside].max() < 1.1
    outside = ((mapped[:2] < -1) | (mapped[:2] > 300)).any(axis=0)
    assert (crop.reshape(-1, 3)[outside] == 0).all()


def test_crop_map_brings_corner_to_corner() -> None:
    edges = boxes.crop_to_image((10, 20, 250, 260)) @ np.array([[-0.5, 119.5], [-0.5, 119.5], [1, 1]])
    assert np.allclose(edges[:2], [[9.5, 249.5], [19.5, 259.5]])


def test_crop_equals_a_plain_resize_on_whole_pixel_boxes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    ours, plain = boxes.crop(image, (40, 30, 220, 210)), boxes.crop_reference(image, (40, 30, 220, 210))
    # warpAffine rounds the sampling position to 1/32 pixel: noise of a few grey levels on white noise.
    assert np.abs(ours.astype(int) - plain).mean() < 1.5


def test_squares_have_equal_sides_and_follow_translation() -> None:
    a, b = boxes.square_from_detection((10, 20, 110, 140)), boxes.square_from_detection((15, 27, 115, 147))
    assert a[2] - a[0] == a[3] - a[1] and np.allclose(b - a, [5, 7, 5, 7])
    points = np.random.default_rng(1).uniform(0, 100, (68, 2))
    square = boxes.square_from_landmarks(points)
    assert np.isclose(square[2] - square[0], np.ptp(points, axis=0).max() * np.sqrt(2), rtol=1e-5)
    middle = boxes.crop_to_image(square) @ [59.5, 59.5, 1]
    assert np.allclose(middle[:2], (points.min(0) + points.max(0)) / 2, atol=1e-4), (
        "the crop's middle is the points' middle"
    )


@pytest.mark.parametrize(
    "roi",
    [(np.nan, 0, 10, 10), (0, 0, 3, 3), (700, 0, 800, 100), (0, -200, 100, -50), (0, 0, 1e6, 1e6), (50, 50, 10, 10)],
)
def test_boxes_that_cannot_be_cropped_are_told(roi: tuple[float, ...]) -> None:
    assert not boxes.usable(roi, (480, 640))
    assert boxes.usable((-20, -20, 60, 60), (480, 640))


def test_iou_of_known_boxes() -> None:
    assert boxes.iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert boxes.iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert boxes.iou((0, 0, 10, 10), (20, 0, 30, 10)) == 0 == boxes.iou((0, 0, 0, 0), (0, 0, 0, 0))


def test_bbox_files_read_and_damage_is_named(tmp_path: Path, shared: Path) -> None:
    found = boxes.read_bbox_file(str(shared / "images" / "emma_input.jpg.bbox"))
    assert [list(box) for box in found][0] == [317, 382, 815, 1036] and len(found) == 3
    for text, words in (
        ("1\n1 2 3\n", "line 2"),
        ("1\n1 a b c d\n", "line 2"),
    ):
        (tmp_path / "x.bbox").write_text(text)
        with pytest.raises(ValueError, match=f"x.bbox.*{words}"):
            boxes.read_bbox_file(str(tmp_path / "x.bbox"))
