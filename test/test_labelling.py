"""Labels from a model's own answers: where they lie, what they say of themselves, and what the program refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from radan_ros import Pipeline, open_detector, open_model
from radan_ros.tools import label
from radan_ros.training.labelling import label_picture
from radan_ros.training.preparation import read_labelled_pictures

# Pixels of the portrait, by hand: the middles of the subject's right and left eye, the nose tip, the mouth.
PLACES = {(36, 42): (202, 100), (42, 48): (245, 103), (30, 31): (225, 125), (48, 60): (223, 145)}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    pytest.importorskip("dlib", reason="finding faces needs dlib")
    return Pipeline(open_model(), open_detector("dlib_hog"))


def test_landmarks_lie_on_the_face_and_the_crops_agree(pipeline: Pipeline, astronaut: np.ndarray) -> None:
    answer = label_picture(pipeline, astronaut, np.random.default_rng(0))
    assert answer is not None
    landmarks, spread = answer
    assert landmarks.shape == (68, 3) and landmarks.dtype == np.float32
    for (first, last), place in PLACES.items():
        assert np.linalg.norm(landmarks[first:last, :2].mean(axis=0) - place) < 6, (first, last)
    assert abs(landmarks[:, 2].mean()) < 0.01
    assert landmarks[30, 2] < landmarks[[0, 16], 2].min(), "third away from the viewer: the nose is before the ears"
    assert 0 < spread < 0.03
    again = label_picture(pipeline, astronaut, np.random.default_rng(0))
    assert again is not None and np.array_equal(again[0], landmarks) and again[1] == spread


def test_a_picture_without_a_face_has_no_label(pipeline: Pipeline) -> None:
    assert label_picture(pipeline, np.full((200, 200, 3), 90, np.uint8), np.random.default_rng(0)) is None


def test_the_program_writes_what_the_preparation_reads(
    pipeline: Pipeline, astronaut: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a_wall.png"), np.full((200, 200, 3), 90, np.uint8))
    cv2.imwrite(str(images / "b_face.png"), astronaut)
    (images / "notes.txt").write_text("no picture")
    out = tmp_path / "made" / "labels.npz"
    assert label.main([str(tmp_path), str(out)]) == 0
    assert "1 of 2 pictures" in capsys.readouterr().out
    pictures = read_labelled_pictures(tmp_path, labels=out)
    # The second picture of the folder, and the first draw of its own generator.
    expected = label_picture(pipeline, astronaut, np.random.default_rng((0, 1)))
    assert expected is not None and pictures.teacher is not None and pictures.spread is None
    assert pictures.names.tolist() == ["b_face.png"] and pictures.marked is None
    assert np.array_equal(pictures.teacher[0], expected[0])


def test_unreadable_pictures_are_named_counted_and_left_out(
    pipeline: Pipeline, astronaut: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "labels.npz"
    images.mkdir()
    (images / "a_bad.png").write_bytes(b"hello")
    assert label.main([str(tmp_path), str(out)]) == 1 and not out.exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "a_bad.png" in lines[0] and "1 could not be read" in lines[1]
    cv2.imwrite(str(images / "b_face.png"), astronaut)
    assert label.main([str(tmp_path), str(out)]) == 0
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "a_bad.png" in said.err
    assert said.out.splitlines()[-1].endswith("1 could not be read")
    assert np.load(out)["names"].tolist() == ["b_face.png"]


@pytest.mark.parametrize("wrong", ["no folder", "no picture", "no face", "model", "out"])
def test_what_is_wrong_is_said_in_one_line(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    images, arguments = tmp_path / "images", [str(tmp_path), str(tmp_path / "labels.npz")]
    if wrong != "no folder":
        images.mkdir()
    if wrong not in ("no folder", "no picture"):
        cv2.imwrite(str(images / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    arguments += ["--model", str(tmp_path / "none")] if wrong == "model" else []
    if wrong == "out":
        arguments[1] = str(tmp_path)
    assert label.main(arguments) == 1
    said = capsys.readouterr()
    names = {"no folder": "holds images/", "model": "none", "out": "is a folder"}
    assert len(said.err.splitlines()) == 1 and said.err.startswith("radan-label: ")
    assert names.get(wrong, str(images)) in said.err and said.out == ""
    assert not (tmp_path / "labels.npz").exists()


@pytest.mark.parametrize("seed", ["-1", "half"])
def test_a_seed_is_a_whole_number(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        label.main([str(tmp_path), str(tmp_path / "labels.npz"), "--seed", seed])
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"argument --seed: {seed} is not a whole number from 0")
