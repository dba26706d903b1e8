"""Compressed images: JPEG and PNG with the formats that compressed_image_transport writes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs ROS")
from sensor_msgs.msg import CompressedImage

from radan_ros.ros.images import compressed_to_bgr


def compressed(form: str, suffix: str, pixels: np.ndarray) -> CompressedImage:
    return CompressedImage(format=form, data=cv2.imencode(suffix, pixels)[1].tobytes())


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    return np.dstack([4 * x, 5 * y, 2 * x + y]).astype(np.uint8)


@pytest.mark.parametrize(
    "form", ["png", "bgr8; png compressed bgr8", "rgb8; png compressed bgr8", "bgra8; png compressed bgr8"]
)
def test_a_png_gives_every_pixel_back(form: str, picture: np.ndarray) -> None:
    assert np.array_equal(compressed_to_bgr(compressed(form, ".png", picture)), picture)


@pytest.mark.parametrize("form", ["jpeg", "bgr8; jpeg compressed bgr8", "rgb8; jpeg compressed bgr8"])
def test_a_jpeg_gives_about_every_pixel_back(form: str, picture: np.ndarray) -> None:
    read = compressed_to_bgr(compressed(form, ".jpg", picture))
    assert np.abs(read.astype(int) - picture).mean() < 3


def test_colours_that_were_compressed_in_the_order_of_rgb_are_turned(picture: np.ndarray) -> None:
    for form in ("rgb8; png compressed rgb8", "rgb8; png compressed "):
        read = compressed_to_bgr(compressed(form, ".png", picture[..., ::-1]))
        assert np.array_equal(read, picture) and read.flags.c_contiguous


def test_alpha_is_left_out_and_grey_is_three_times_grey(picture: np.ndarray) -> None:
    with_alpha = np.dstack([picture, picture[..., :1]])
    assert np.array_equal(compressed_to_bgr(compressed("bgra8; png compressed bgra8", ".png", with_alpha)), picture)
    grey = compressed_to_bgr(compressed("mono8; png compressed ", ".png", picture[..., 0]))
    assert (grey == picture[..., :1]).all()


@pytest.mark.parametrize("form", ["mono16; png compressed ", "bgr16; png compressed bgr16"])
def test_sixteen_bits_keep_their_upper_half(form: str, picture: np.ndarray) -> None:
    wide = (picture if "bgr" in form else picture[..., 0]).astype(np.uint16) * 256 + 77
    expected = picture if "bgr" in form else np.repeat(picture[..., :1], 3, axis=2)
    assert np.array_equal(compressed_to_bgr(compressed(form, ".png", wide)), expected)


def test_a_bayer_pattern_becomes_colours(picture: np.ndarray) -> None:
    pattern = picture[..., 1].copy()  # rggb
    pattern[::2, ::2], pattern[1::2, 1::2] = picture[::2, ::2, 2], picture[1::2, 1::2, 0]
    read = compressed_to_bgr(compressed("bayer_rggb8; png compressed ", ".png", pattern))
    assert np.abs(read.astype(int) - picture)[2:-2, 2:-2].mean() < 4


def test_a_turned_jpeg_is_not_turned_back(picture: np.ndarray) -> None:
    message = compressed("jpeg", ".jpg", picture)
    orientation = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    data = bytes(message.data)
    message.data = data[:2] + b"\xff\xe1" + (len(orientation) + 2).to_bytes(2, "big") + orientation + data[2:]
    assert cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3), "it is one"
    assert compressed_to_bgr(message).shape == picture.shape, "CameraInfo knows the image as it was taken"


def test_what_cannot_be_read_is_said(picture: np.ndarray) -> None:
    good = compressed("png", ".png", picture)
    for message, words in [
        (CompressedImage(format="jpeg", data=b"nonsense"), "8 bytes of format 'jpeg' are no JPEG or PNG"),
        (CompressedImage(format="jpeg"), "0 bytes"),
        (CompressedImage(format="png", data=bytes(good.data)[:40]), "40 bytes"),
        (CompressedImage(format="16UC1; compressedDepth", data=good.data), "depth"),
        (
            compressed("bayer_rggb8; png compressed bgra8", ".png", np.dstack([picture, picture[..., 0]])),
            "does not fit",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            compressed_to_bgr(message)
