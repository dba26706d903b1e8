"""The demo's tools without ROS: what a user may type, frames of one size, one clear line for what cannot be read."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from radan_ros import fastdds
from radan_ros.astronaut import Astronaut
from radan_ros.tools import demo, play
from radan_ros.tools.sources import Clip, SourceError, letterbox, open_source


def _write_picture(path: Path, height: int, width: int, colour: tuple[int, int, int]) -> None:
    assert cv2.imwrite(str(path), np.full((height, width, 3), colour, np.uint8))


def test_a_folder_is_sorted_and_all_its_frames_have_the_size_of_the_first(tmp_path: Path) -> None:
    _write_picture(tmp_path / "b.png", 50, 100, (0, 255, 0))
    _write_picture(tmp_path / "a.png", 40, 60, (255, 0, 0))
    (tmp_path / "notes.txt").write_text("not a picture")
    _write_picture(tmp_path / ".a.9912.png", 9, 9, (0, 0, 0))  # hidden: half a file of a program that was ended
    source = open_source(str(tmp_path))
    first, second = source
    assert source.size == (40, 60) and source.count == 2
    assert first.shape == second.shape == (40, 60, 3)
    assert (first == (255, 0, 0)).all()
    # 100x50 into 60x40 is 60x30 with 5 black rows above and below: nothing is stretched.
    assert (second[:5] == 0).all() and (second[35:] == 0).all() and (second[5:35] == (0, 255, 0)).all()


def test_an_unreadable_picture_of_a_folder_is_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    (tmp_path / "1.jpg").write_bytes(b"")
    _write_picture(tmp_path / "2.jpg", 30, 30, (9, 9, 9))
    (tmp_path / "3.jpg").write_bytes(b"GIF89a")
    source = open_source(str(tmp_path))
    assert len(list(source)) == 1
    assert source.skipped == 3 and source.count == 1


def test_a_picture_with_orientation_and_one_with_transparency_become_bgr(tmp_path: Path) -> None:
    rgba = np.zeros((20, 10, 4), np.uint8)
    rgba[..., 2:] = 255
    cv2.imwrite(str(tmp_path / "x.png"), rgba)
    (frame,) = open_source(str(tmp_path / "x.png"))
    assert frame.shape == (20, 10, 3) and frame.dtype == np.uint8 and (frame == (0, 0, 255)).all()


def test_a_clip_can_be_played_twice_and_gives_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (64, 48))
    levels = [20, 90, 160, 230]
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    source = open_source(str(path))
    assert source.size == (48, 64) and source.fps == pytest.approx(12) and source.count == 4
    for _ in range(2):
        assert [round(float(frame.mean()), -1) for frame in source] == levels


def test_a_damaged_packet_costs_its_frame_and_not_those_behind_it(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="damages a packet that PyAV finds")
    sound, damaged = tmp_path / "sound.mp4", tmp_path / "damaged.mp4"
    _film(av, sound, range(40))
    with av.open(str(sound)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray(sound.read_bytes())
    at, size = packets[15]
    content[at : at + size] = bytes(size)
    damaged.write_bytes(content)
    clip = open_source(str(damaged))
    assert isinstance(clip, Clip)
    times = [time for time, _ in clip.timed()]
    assert len(packets) == 40 and len(times) == 39 and times[-1] == pytest.approx(39 / 25)
    assert clip.missing(times[-1]) == f"{damaged}: frames are missing in 1 place: damaged?"
    whole = open_source(str(sound))
    assert isinstance(whole, Clip)
    assert whole.missing([time for time, _ in whole.timed()][-1]) is None


def test_a_clip_that_starts_late_is_whole(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="how long a video should be tells PyAV")
    path = tmp_path / "late.mkv"
    _film(av, path, range(125, 165))  # from the fifth second on, as one that was cut
    clip = open_source(str(path))
    assert isinstance(clip, Clip)
    times = [time for time, _ in clip.timed()]
    assert len(times) == 40 and clip.missing(times[-1]) is None
    assert clip.missing(times[20]) is not None


def test_a_clip_may_have_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.avi"
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "a.avi").rename(path)
    clip = open_source(str(path))
    assert isinstance(clip, Clip)
    assert len(list(clip)) == 3 and clip.missing(2 / 12) is None


def _film(av: Any, path: Path, times: range) -> None:
    """Pictures of rising brightness at the given 25ths of a second, as H.264."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        noise = np.random.default_rng(0).integers(0, 60, (96, 128, 3), dtype=np.uint8)
        for time in times:
            frame = av.VideoFrame.from_ndarray(noise + np.uint8(2 * (time % 80)), format="bgr24")
            frame.pts, frame.time_base = 40 * time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_the_gif_and_the_clips_beside_the_checkout_open(shared: Path) -> None:
    gif = open_source(str(shared / "video" / "head-pose-face-detection-male.gif"))
    frames = list(gif)
    assert gif.size == (270, 480) and len(frames) == gif.count == 62
    assert 10 < gif.fps < 15
    # It moves, and no frame is a partial update that was not composed.
    assert all(np.abs(a.astype(int) - b).mean() < 40 for a, b in zip(frames, frames[1:], strict=False))
    assert np.abs(frames[0].astype(int) - frames[30]).mean() > 1
    clip = open_source(str(shared / "video" / "d20.mp4"))
    assert clip.size == (480, 480) and clip.fps == pytest.approx(25)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.mp4", None, "no such file"),
        ("text.mp4", b"hello", "cannot be read as a video"),
        ("empty.mp4", b"", "cannot be read as a video"),
        ("broken.png", b"\x89PNG\r\n\x1a\n", "cannot be read as a picture"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=says) as caught:
        open_source(str(path))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(SourceError, match="pipe.png: is a pipe"):
        open_source(str(tmp_path / "pipe.png"))


def test_an_empty_folder_and_a_webcam_that_is_not_there_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match="webcam 97"):
        open_source("97")


class OneAtATime:
    """Stands in for cv2.VideoCapture of a webcam, which this machine may not have: only one can hold the device."""

    holder: OneAtATime | None = None
    left = 0  # frames until it is unplugged

    def __init__(self, device: int | str) -> None:
        assert device == 0
        if OneAtATime.holder is None and OneAtATime.left:
            OneAtATime.holder = self

    def isOpened(self) -> bool:
        return OneAtATime.holder is self

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.isOpened() or not OneAtATime.left:
            return False, None
        OneAtATime.left -= 1
        return True, np.full((48, 64, 3), OneAtATime.left, np.uint8)

    def get(self, what: int) -> float:
        assert what == cv2.CAP_PROP_FPS
        return 25.0

    def release(self) -> None:
        if self.isOpened():
            OneAtATime.holder = None


def test_a_webcam_is_held_only_while_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", OneAtATime)
    monkeypatch.setattr(OneAtATime, "left", 10)
    first, second = open_source("0"), open_source("0")  # the demo looks at it, then its player opens it
    assert OneAtATime.holder is None
    assert (first.size, first.fps, first.count, first.name) == ((48, 64), 25.0, None, "webcam 0")
    frames = iter(second)
    assert next(frames).shape == (48, 64, 3) and OneAtATime.holder is not None
    with pytest.raises(SourceError, match="webcam 0: cannot be opened"):
        next(iter(first))
    del frames  # abandoned in the middle
    assert OneAtATime.holder is None
    assert len(list(first)) == 7  # until it is unplugged
    with pytest.raises(SourceError, match="webcam 0"):
        next(iter(first))
    assert OneAtATime.holder is None


def test_a_loop_goes_on_until_its_source_dries_up(tmp_path: Path) -> None:
    _write_picture(tmp_path / "a.png", 4, 6, (1, 2, 3))
    source = open_source(str(tmp_path))
    assert len(list(play.frames(source, loop=True, limit=5))) == 5
    assert len(list(play.frames(source, loop=False, limit=5))) == 1
    endless = play.frames(source, loop=True, limit=None)
    assert next(endless).shape == next(endless).shape == (4, 6, 3)
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match="no frame"):
        next(endless)


@pytest.mark.parametrize("number", ["-1", "0", "1.5", "ten", "99999999999999999999"])
def test_a_number_of_images_is_positive_and_whole(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    for parser in (play._parser(), demo._parser()):
        with pytest.raises(SystemExit):
            parser.parse_args(["--frames", number])
        assert f"{number} is not a positive whole number" in capsys.readouterr().err
        assert parser.parse_args(["--frames", "12"]).frames == 12


@pytest.mark.parametrize("rate", ["-1", "0", "nan", "inf", "fast"])
def test_a_rate_is_positive(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        play._parser().parse_args(["--rate", rate])
    assert f"{rate} is not a " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("rolling", "FASTDDS_DEFAULT_PROFILES_FILE"),
        (None, "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_a_dds_profile_goes_into_the_variable_of_the_distribution(
    distribution: str | None, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    if distribution is not None:
        monkeypatch.setenv("ROS_DISTRO", distribution)
    assert fastdds.profile_variable() == variable


@pytest.mark.parametrize("variable", fastdds.PROFILE_VARIABLES)
def test_a_dds_profile_of_the_user_is_known_by_either_name_and_empty_is_none(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in fastdds.PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not fastdds.user_has_profile()
    monkeypatch.setenv(variable, "")
    assert not fastdds.user_has_profile()
    monkeypatch.setenv(variable, "profile.xml")
    assert fastdds.user_has_profile()


def test_letterbox_keeps_a_frame_of_the_right_size() -> None:
    frame = np.zeros((10, 20, 3), np.uint8)
    assert letterbox(frame, (10, 20)) is frame


def test_the_built_in_motion_is_smooth_repeatable_and_closed() -> None:
    pytest.importorskip("skimage", reason="the built-in picture comes with scikit-image")
    source = Astronaut()
    frames = list(source)
    assert len(frames) == source.count == 180
    assert all(frame.shape == (480, 640, 3) for frame in frames)
    assert (frames[7] == Astronaut().frame(7)).all()
    # The face's place: no step of more than 6 pixels, also from the last frame to the first; and it does go places.
    centre = np.array([*Astronaut._FACE, 1.0])
    path = np.array([Astronaut.motion(index % 180) @ centre for index in range(181)])
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 6
    assert np.ptp(path, axis=0).min() > 30
    # Its neighbourhood stays in the picture, and no border is black.
    assert path.min(axis=0)[0] > 150 and path.max(axis=0)[0] < 490
    edges = np.stack([np.concatenate([f[0], f[-1], f[:, 0], f[:, -1]]) for f in frames[::20]])
    assert (edges[:, : 2 * 640].max(axis=2) == 0).mean() < 0.05
