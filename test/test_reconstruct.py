"""`radan-reconstruct` as its users run it: which files come of what, what is in them, and what goes wrong how."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from radan_ros import CameraModel, Model, Pipeline, boxes, metric_face, open_detector, vertices_in_camera
from radan_ros.astronaut import Astronaut
from radan_ros.detectors.dlib_landmarks import DlibLandmarks
from radan_ros.face import Detection
from radan_ros.pictures import grey_depth, millimetres, read_picture, write_picture
from radan_ros.texture import unwrap
from radan_ros.tools import movies, reconstruct, sources, stills
from radan_ros.tools.ahead import WriteBehind, read_ahead
from radan_ros.tools.naming import distinct_names, results_among
from radan_ros.tools.sources import Clip, Webcam

BOX = "1\n0 181 79 273 171\n"  # as dlib finds her


def run(*arguments: object) -> int:
    return reconstruct.main([*map(str, arguments), "--device", "cpu"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def glb_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of a glTF in one file."""
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def read_points(path: Path) -> np.ndarray:
    """Landmarks of a .txt, (68, 3)."""
    return np.loadtxt(path).T


@pytest.fixture
def picture(astronaut: np.ndarray, tmp_path: Path) -> Path:
    """The astronaut with her box beside her: no detector has to run."""
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), astronaut)
    path.with_name("a.png.bbox").write_text(BOX)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of the built-in moving picture."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with movies.Movie(path, (480, 640), 30) as movie:
        for i in range(10):
            movie.add(Astronaut().frame(i), i / 30)
    return path


# ------------------------------------------------------------------------------------------------------ pictures


def test_unasked_come_the_files_of_3ddfa_and_gltf(picture: Path, tmp_path: Path, builtin: Model) -> None:
    out = tmp_path / "out"
    assert run("-f", picture, "--out", out) == 0
    assert names(out) == {
        "a_0.ply", "a_0.obj", "a_0.glb", "a_0.txt", "a_pose.jpg", "a_depth.png", "a_pncc.png", "a_landmarks.jpg",
    }  # fmt: skip
    document, binary = glb_parts(out / "a_0.glb")
    [material] = document["materials"]
    assert material["pbrMetallicRoughness"]["baseColorTexture"]["index"] == 0, "what viewers show"
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    content = np.frombuffer(binary, np.uint8)[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    texture = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert texture.shape == (512, 512, 3) and texture.std() > 20
    [face] = Pipeline(builtin)(read_picture(picture), [(181, 79, 273, 171)])
    assert np.abs(read_points(out / "a_0.txt") * [1, 1, -1] - face.landmarks).max() < 0.001
    depth = cv2.imread(str(out / "a_depth.png"), cv2.IMREAD_UNCHANGED)
    assert ((depth > 0) == cv2.imread(str(out / "a_pncc.png")).any(axis=2)).mean() > 0.999
    x, y = np.rint(face.landmarks[30, :2]).astype(int)
    assert depth[y, x] > 230 > depth[depth > 0].mean(), "the tip of the nose is nearest"
    for name in ("pose", "landmarks"):
        drawn = read_picture(out / f"a_{name}.jpg")
        assert 0.01 < (cv2.absdiff(drawn, read_picture(picture)).max(axis=2) > 40).mean() < 0.3, name


def test_meshes_are_in_metres_and_upright(picture: Path, tmp_path: Path, builtin: Model) -> None:
    trimesh = pytest.importorskip("trimesh", reason="reading meshes back needs trimesh")
    assert run("-f", picture, "--out", tmp_path, "--only", "ply", "obj", "glb", "--field-of-view", 25) == 0
    camera = CameraModel.from_field_of_view((512, 512), np.radians(25))
    [face] = Pipeline(builtin)(read_picture(picture), [(181, 79, 273, 171)])
    [expected] = vertices_in_camera([metric_face(face, builtin.face_model, camera)], builtin.face_model)
    for kind in ("ply", "obj", "glb"):
        mesh = trimesh.load(tmp_path / f"a_0.{kind}", process=False, force="mesh")
        assert np.allclose(mesh.vertices, expected * [1, -1, -1], atol=1e-5), kind
        marks = mesh.vertices[builtin.face_model.landmarks]
        assert marks[27, 1] > marks[8, 1] and marks[30, 2] > marks[0, 2], "chin down, nose to the viewer"
        assert 1 < -marks[27, 2] < 1.6, "metres, of a portrait"


def test_everything_can_be_asked_for(picture: Path, tmp_path: Path, builtin: Model) -> None:
    assert run("-f", picture, "--out", tmp_path, "--uv", "--paf", "--crop", "--mat", "--roibox", "--depth-mm") == 0
    made = names(tmp_path) - {"in"}
    assert made == {
        "a_0.ply", "a_0.obj", "a_0.mtl", "a_0.glb", "a_0.txt", "a_0.mat", "a_0.roibox", "a_0_paf.jpg", "a_0_crop.jpg",
        "a_0_texture.png", "a_0_visible.png", "a_pose.jpg", "a_depth.png", "a_depth_mm.png", "a_pncc.png",
        "a_landmarks.jpg",
    }  # fmt: skip
    assert read_picture(tmp_path / "a_0_paf.jpg").shape == (192, 192, 3)
    visible = cv2.imread(str(tmp_path / "a_0_visible.png"), cv2.IMREAD_UNCHANGED)
    places = unwrap(builtin.face_model)[builtin.face_model.landmarks[[27, 30, 39, 42]]]
    columns, rows = (places * [1, -1] * 1024 + [0, 1024]).astype(int).T
    assert (visible[rows, columns] == 255).all() and not visible[:8].any(), "white is what the picture shows: her nose"
    millimetre = cv2.imread(str(tmp_path / "a_depth_mm.png"), cv2.IMREAD_UNCHANGED)
    assert millimetre.dtype == np.uint16 and 300 < millimetre[millimetre > 0].min() < millimetre.max() < 1500


def test_switches_and_only_choose(picture: Path, tmp_path: Path) -> None:
    assert run("-f", picture, "--out", tmp_path / "x", "--only", "txt", "pncc", "--no-pncc", "--roibox") == 0
    assert names(tmp_path / "x") == {"a_0.txt", "a_0.roibox"}
    with pytest.raises(SystemExit) as usage:
        run("-f", picture, "--only", "nothing")
    assert usage.value.code == 2


def test_batches_answer_as_one_picture_after_the_other(
    astronaut: np.ndarray, couple: np.ndarray, builtin: Model
) -> None:
    pipeline = Pipeline(builtin, open_detector())
    images = [astronaut, couple, np.zeros((90, 70, 3), np.uint8), astronaut[:300]]
    single = [pipeline(image, two_step=True) for image in images]
    many = pipeline.many(images, [pipeline.detections(image) for image in images], two_step=True)
    assert [len(faces) for faces in many] == [len(faces) for faces in single] == [1, 2, 0, 1]
    for one, other in zip(sum(single, []), sum(many, []), strict=True):
        assert np.abs(one.landmarks - other.landmarks).max() < 0.01 and one.score == other.score


def test_more_faces_than_a_run_of_the_network_takes(astronaut: np.ndarray, builtin: Model) -> None:
    pipeline = Pipeline(builtin)
    shifted = [[(181 + i, 79, 273 + i, 171)] for i in range(-40, 40)]
    together = pipeline.many([astronaut], [[Detection(np.float32(box[0])) for box in shifted]])[0]
    assert len(together) == 80
    for i in (0, 63, 64, 79):
        assert np.abs(together[i].landmarks - pipeline(astronaut, shifted[i])[0].landmarks).max() < 0.01


def test_max_faces_keeps_the_surest(couple: np.ndarray, tmp_path: Path, builtin: Model) -> None:
    for name, image in (("two.png", couple), ("mirrored.png", np.ascontiguousarray(couple[:, ::-1]))):
        cv2.imwrite(str(tmp_path / name), image)
        assert run("-f", tmp_path / name, "--out", tmp_path / name[0], "--only", "txt", "--max-faces", 1) == 0
        [made] = (tmp_path / name[0]).iterdir()
        detections = open_detector(smallest_part=12)(image)
        assert detections[0].score > detections[1].score
        [surest] = Pipeline(builtin)(image, [detections[0].box])
        assert np.abs(read_points(made)[:, :2] - surest.landmarks[:, :2]).max() < 0.01


def test_a_second_crop_lies_around_the_first_answer(picture: Path, tmp_path: Path, builtin: Model) -> None:
    assert run("-f", picture, "--out", tmp_path, "--only", "roibox", "--bbox-init", "two") == 0
    [face] = Pipeline(builtin)(read_picture(picture), [(181, 79, 273, 171)])
    written = np.loadtxt(tmp_path / "a_0.roibox").ravel()
    assert np.abs(written - boxes.square_from_landmarks(face.landmarks)).max() < 0.01


def test_small_faces_of_a_group_are_found_unasked(astronaut: np.ndarray, tmp_path: Path) -> None:
    """A face of a ninth of the height: the node's default, a sixth, misses it."""
    small = cv2.resize(astronaut, (400, 400), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "group.png"), cv2.copyMakeBorder(small, 0, 250, 0, 150, cv2.BORDER_REPLICATE))
    assert not open_detector()(read_picture(tmp_path / "group.png"))
    assert run("-f", tmp_path / "group.png", "--out", tmp_path / "o", "--only", "txt") == 0
    assert names(tmp_path / "o") == {"group_0.txt"}


def test_trouble_is_a_line_and_the_rest_goes_on(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = picture.parent
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "nobody.png"), np.full((120, 160, 3), 90, np.uint8))
    shutil.copy(picture, folder / "boxed.png")
    (folder / "boxed.png.bbox").write_text("1\n0 1 2\n")
    (folder / "clip.mp4").write_bytes(b"nothing of a video")
    missing = tmp_path / "missing.jpg"
    assert run("-f", missing, folder, folder / "clip.mp4", "--out", tmp_path / "o", "--only", "txt") == 1
    lines = capsys.readouterr().err.splitlines()
    for name in ("missing.jpg", "broken.jpg", "empty.png", "nobody.png: no face", "boxed.png.bbox: line 2", "clip.mp4"):
        assert sum(name in line for line in lines) == 1, name
    assert len(lines) == 6
    assert names(tmp_path / "o") == {"a_0.txt"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1 is not the number of boxes"),
        ("faces\n0 181 79 273 171\n", "line 1 is not the number of boxes"),
        ("2\n0 181 79 273 171\n", "line 1 says 2 boxes, and 1 follow"),
        ("1\n0 600 79 692 171\n", r"box 0 cannot be used \(600, 79, 692, 171; the picture is 512x512\)"),
    ],
)
def test_boxes_that_are_no_good_are_named(
    content: str, says: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture.with_name("a.png.bbox").write_text(content)
    assert run("-f", picture, "--out", tmp_path / "o", "--only", "txt") == 1
    assert re.fullmatch(rf"radan-reconstruct: .*a\.png\.bbox: {says}\n", capsys.readouterr().err)
    assert not names(tmp_path / "o")


def test_a_box_keeps_its_number_where_another_is_no_good(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "2 9 9 11 11\n3 50 50 10 90\n4 9 9 9 9\n5 0 0 nan 90\n6 0 0 1e300 90\n"
    picture.with_name("a.png.bbox").write_text(f"7\n0 600 79 692 171\n1 181 79 273 171\n{bad}")
    assert run("-f", picture, "--out", tmp_path / "o", "--only", "txt") == 1
    assert names(tmp_path / "o") == {"a_1.txt"}
    said = capsys.readouterr().err.splitlines()
    assert [re.findall(r"box (\d) cannot", line) for line in said] == [[str(i)] for i in (0, 2, 3, 4, 5, 6)]


def test_pictures_of_other_formats_and_pipes_are_not_passed_over_in_silence(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.heic", "c.AVIF", "d.avif", "notes.txt"):
        picture.with_name(name).touch()
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert run("-f", picture.parent, pipe, "--out", tmp_path / "o", "--only", "txt") == 1
    folder = picture.parent
    assert capsys.readouterr().err.splitlines() == [
        f"radan-reconstruct: {folder}: 3 pictures left out, of formats that are not read here: .avif, .heic",
        f"radan-reconstruct: {pipe}: is a pipe, not a file",
    ]
    assert names(tmp_path / "o") == {"a_0.txt"}


def test_a_link_to_nothing_and_an_empty_name_are_said_and_the_rest_goes_on(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = picture.with_name("b.jpg")
    gone.symlink_to("nowhere")
    monkeypatch.chdir(picture.parent)  # which an empty name would be
    assert run("-f", picture.parent, "", "--out", tmp_path / "o", "--only", "txt") == 1
    said = sorted(capsys.readouterr().err.splitlines())
    assert len(said) == 2 and "an empty name" in said[1] and f"{gone}: No such file" in said[0]
    assert names(tmp_path / "o") == {"a_0.txt"}


def test_a_name_that_is_no_utf_8_goes_through_all_files(picture: Path, tmp_path: Path) -> None:
    odd = picture.rename(picture.with_name("\udcff é.png"))
    picture.with_name("a.png.bbox").rename(odd.with_name(f"{odd.name}.bbox"))
    assert run("-f", odd, "--out", tmp_path / "o", "--only", "obj", "--uv") == 0
    stem = f"{odd.stem}_0"
    assert names(tmp_path / "o") == {f"{stem}{end}" for end in (".obj", ".mtl", "_texture.png", "_visible.png")}
    assert b"\xff \xc3\xa9_0_texture.png\n" in (tmp_path / "o" / f"{stem}.mtl").read_bytes()
    assert b"mtllib \xff \xc3\xa9_0.mtl\n" in (tmp_path / "o" / f"{stem}.obj").read_bytes()


def test_a_full_standard_output_is_said_and_costs_no_result(picture: Path, tmp_path: Path) -> None:
    second = picture.with_name("b.png")
    second.symlink_to(picture)
    second.with_name("b.png.bbox").write_text(BOX)
    command = [sys.executable, "-m", "radan_ros.tools.reconstruct", "-f", picture, second, "--batch", "1"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*command, "--only", "txt", "--out", tmp_path / "o"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr == "radan-reconstruct: standard output: No space left on device\n"
    assert names(tmp_path / "o") == {"a_0.txt", "b_0.txt"}


def test_a_picture_that_the_network_fails_on_does_not_take_its_batch_along(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(picture.with_name("b.png")), read_picture(picture)[:400])
    shutil.copy(picture, picture.with_name("c.png"))
    for name in ("b", "c"):
        picture.with_name(f"{name}.png.bbox").write_text(BOX)
    many = Pipeline.many

    def short_of_memory(self: Pipeline, images: list[np.ndarray], *rest: object, **more: object) -> object:
        if any(len(image) == 400 for image in images):
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
        return many(self, images, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "many", short_of_memory)
    assert run("-f", picture.parent, "--out", tmp_path / "o", "--only", "txt") == 1
    assert names(tmp_path / "o") == {"a_0.txt", "c_0.txt"}
    assert re.fullmatch(
        r"radan-reconstruct: .*b\.png: CUDA out of memory\. Tried to allocate 2 GiB\n", capsys.readouterr().err
    )


def test_no_more_pictures_are_in_memory_than_its_pixels_allow(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        picture.with_name(f"p{i}.png").symlink_to(picture)
        picture.with_name(f"p{i}.png.bbox").write_text(BOX)
    held, most, lock = 0, 0, threading.Lock()
    read, write = stills.read_picture, stills._write

    def begin(path: Path) -> np.ndarray:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return read(path)

    def end(*arguments: Any) -> object:
        nonlocal held
        try:
            return write(*arguments)
        finally:
            with lock:
                held -= 1

    monkeypatch.setattr(stills, "read_picture", begin)
    monkeypatch.setattr(stills, "_write", end)
    monkeypatch.setattr(stills, "_MOST_PIXELS", 3 * 512 * 512)
    assert run("-f", picture.parent, "--out", tmp_path / "o", "--only", "landmarks") == 0
    assert len(names(tmp_path / "o")) == 13 and most == 3


def test_what_cannot_be_is_a_wrong_command_line(
    picture: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [
        ("--start", "inf"), ("--start", "2.7"), ("--start", "-1"), ("--paf-size", 121), ("--paf-size", 4),
        ("--threshold", "nan"), ("--frames", 0), ("--detector", "nope"), ("--device", "gpu"), ("--device", "cuda:x"),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(SystemExit) as usage:
            run("-f", picture, "--out", tmp_path / "o", *arguments)
        assert usage.value.code == 2 and f"argument {arguments[0]}" in capsys.readouterr().err
    assert run("-f", picture, "--out", tmp_path / "o", "--only", "csv") == 2
    assert "nothing is asked for of" in capsys.readouterr().err
    assert run("-f", clip, "--out", tmp_path / "o", "--only", "csv", "--no-csv") == 2
    assert run("-f", "rtsp://camera/1", "--out", tmp_path / "o") == 1
    assert "rtsp://camera/1: streams are not read" in capsys.readouterr().err


def test_a_folder_for_the_results_may_be_in_ones_home(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run("-f", picture, "--out", "~/o", "--only", "txt") == 0
    assert names(tmp_path / "home" / "o") == {"a_0.txt"} and not (tmp_path / "~").exists()


def test_inputs_of_one_name_are_named_apart(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for copy in (picture.with_name("a.bmp"), tmp_path / "other" / "a.png", picture.with_name("b.png")):
        cv2.imwrite(str(copy), read_picture(picture))
        copy.with_name(copy.name + ".bbox").write_text(BOX)
    assert run("-f", picture.parent, tmp_path / "other", picture, "--out", tmp_path / "o", "--only", "txt") == 0
    assert names(tmp_path / "o") == {"a_bmp_0.txt", "in_a_png_0.txt", "other_a_png_0.txt", "b_0.txt"}


def test_names_are_stems_where_that_tells_them_apart() -> None:
    paths = [Path("/x/a.jpg"), Path("/y/a.jpg"), Path("/x/a.png"), Path("/x/b.jpg"), Path("/z/x/a.jpg")]
    assert distinct_names(paths) == ["x_a_jpg", "y_a_jpg", "a_png", "b", "z_x_a_jpg"]
    assert len(set(distinct_names([Path("/a_b/c.d"), Path("/a/b_c.d"), Path("/a/b/c.d"), Path("/c.d")]))) == 4


def test_one_file_is_one_input_however_it_is_named(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(picture.parent)
    shutil.copy(picture, picture.parents[1] / "a.png")
    (picture.parents[1] / "a.png.bbox").write_text(BOX)
    assert run("-f", "a.png", picture, "../in/a.png", "../a.png", "--out", "o", "--only", "txt") == 0
    parent = picture.parents[1].name
    assert names(Path("o")) == {"in_a_png_0.txt", f"{parent}_a_png_0.txt"}


def test_results_of_an_earlier_run_are_known_by_the_names_that_it_gave() -> None:
    kinds = {"a_pose.jpg": "pose", "a_0_crop.jpg": "crop", "a_depth_mm.png": "depth-mm", "a_12_texture.png": "texture"}
    others = ["a.jpg", "b_pose.jpg", "a_pose.png", "b_0_paf.jpg", "c_jpg.png", "a_0_pose.jpg"]
    files = [Path("/x", name) for name in [*kinds, *others]]
    assert results_among(files, Path("/x/../x")) == {Path("/x", name): kind for name, kind in kinds.items()}
    assert results_among(files, Path("/x/out")) == {}, "what lies elsewhere is no result of ours"
    two = [Path("/x", name) for name in ("a.jpg", "a.png", "a_jpg_pose.jpg", "a_png_0_crop.jpg", "a_pose.jpg")]
    assert [*results_among(two, Path("/x"))] == two[2:4]
    video = [Path("/x/clip.mp4"), Path("/x/clip_000012_pose.jpg"), Path("/x/clip_000012_3_crop.jpg")]
    assert [*results_among(video, Path("/x"))] == video[1:]
    assert not results_among(video[1:], Path("/x"))


def test_a_second_run_in_the_folder_of_the_pictures_takes_no_results_and_writes_over_nothing_unasked(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = picture.parent
    shutil.copy(picture, picture.with_name("a.bmp"))
    picture.with_name("a.bmp.bbox").write_text(BOX)
    command = ("-f", folder, "--out", folder, "--only", "pose", "crop")
    assert run(*command) == 0
    made = {"a_png_pose.jpg", "a_png_0_crop.jpg", "a_bmp_pose.jpg", "a_bmp_0_crop.jpg"}
    assert names(folder) == made | {"a.png", "a.png.bbox", "a.bmp", "a.bmp.bbox"}
    own = folder / "a_png_pose.jpg"
    own.write_bytes(before := picture.read_bytes())
    capsys.readouterr()
    assert run(*command) == 2 and own.read_bytes() == before
    assert re.search(r"4 pictures in .* named as results \(a_bmp_0_crop\.jpg\): --overwrite", capsys.readouterr().err)
    assert run(*command[:-3], "--only", "txt") == 0
    out = capsys.readouterr().out
    assert out.count("left out: 4 pictures") == 1 and {p.name for p in folder.glob("*.txt")} == {
        "a_png_0.txt",
        "a_bmp_0.txt",
    }
    assert run(*command, "--overwrite") == 0 and own.read_bytes() != before
    assert names(folder) == made | {p.name for p in folder.glob("a.*")} | {"a_png_0.txt", "a_bmp_0.txt"}
    assert run("-f", folder, "--out", tmp_path / "o", "--only", "txt") == 0
    assert len(names(tmp_path / "o")) == 6, "elsewhere they are pictures"


def test_an_input_is_never_written_over(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pose = picture.with_name("a_pose.jpg")
    shutil.copy(picture, pose)
    before = pose.read_bytes()
    assert run("-f", picture, pose, "--out", picture.parent, "--only", "pose") == 1
    assert pose.read_bytes() == before
    assert "a_pose.jpg: is one of the inputs" in capsys.readouterr().err


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that takes no file of more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_is_a_line_a_picture_and_leaves_no_half_file(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(picture, picture.with_name("b.png"))
    shutil.copy(picture.with_name("a.png.bbox"), picture.with_name("b.png.bbox"))
    with largest_file(100_000):
        assert run("-f", picture.parent, "--out", tmp_path / "o", "--only", "ply", "txt") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(re.search(r"[ab]_0\.ply: File too large", line) for line in lines)
    assert names(tmp_path / "o") == set()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_whole_files_only(
    number: signal.Signals, status: int, picture: Path, tmp_path: Path
) -> None:
    for i in range(300):
        copy = picture.with_name(f"p{i:03d}.png")
        copy.symlink_to(picture)
        copy.with_name(copy.name + ".bbox").write_text(BOX)
    command = [sys.executable, "-u", "-m", "radan_ros.tools.reconstruct", "-f", picture.parent]
    with subprocess.Popen(
        [*command, "--out", tmp_path / "o", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        while process.poll() is None:  # as of a user in a hurry
            process.send_signal(number)
            time.sleep(0.01)
        assert process.wait(30) == status
        assert process.stderr.read() == b""
    made = names(tmp_path / "o")
    assert 0 < len(made) < 8 * 301 and not any(name.startswith(".") for name in made)


# --------------------------------------------------------------------------------------- where the first crop lies


@pytest.fixture(scope="module")
def predictor(astronaut: np.ndarray, builtin: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dlib shape predictor in the format that users bring: trained on one face, whose landmarks it gives back."""
    import dlib

    [face] = Pipeline(builtin)(astronaut, [(181, 79, 273, 171)], two_step=True)
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.tree_depth, options.num_trees_per_cascade_level = 2, 1, 5
    options.feature_pool_size, options.oversampling_amount, options.num_test_splits = 20, 2, 2
    box = dlib.rectangle(181, 79, 272, 170)
    points = [dlib.point(*np.rint(xy).astype(int).tolist()) for xy in face.landmarks[:, :2]]
    image = np.ascontiguousarray(astronaut[..., ::-1])
    path = tmp_path_factory.mktemp("dlib") / "landmarks.dat"
    dlib.train_shape_predictor([image], [[dlib.full_object_detection(box, points)]], options).save(str(path))
    return path


def test_the_first_crop_lies_around_dlibs_landmarks(
    predictor: Path, picture: Path, tmp_path: Path, astronaut: np.ndarray, builtin: Model
) -> None:
    assert run("-f", picture, "--out", tmp_path, "--only", "roibox", "--dlib-landmark", predictor) == 0
    points = DlibLandmarks(predictor)(astronaut, np.float32([181, 79, 273, 171]))
    [face] = Pipeline(builtin)(astronaut, [(181, 79, 273, 171)], two_step=True)
    assert np.abs(points - face.landmarks[:, :2]).mean() < 3
    written = np.loadtxt(tmp_path / "a_0.roibox").ravel()
    assert np.abs(written - boxes.square_from_landmarks(points)).max() < 0.01
    assert np.abs(written - boxes.square_from_detection([181, 79, 273, 171])).max() > 2


def test_a_file_that_is_no_predictor_is_named(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.dat").write_bytes(b"nothing of dlib's" * 9)
    for name in ("bad.dat", "missing.dat"):
        assert run("-f", picture, "--out", tmp_path, "--dlib-landmark", tmp_path / name) == 1
        assert name in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- compat


@pytest.fixture(scope="module")
def trained_3ddfa(shared: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3DDFA's folder as its users have it, with the trained network that made the expected numbers."""
    folder = tmp_path_factory.mktemp("trained") / "3ddfa"
    shutil.copytree(model_folder, folder)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "mb05.pth").symlink_to(shared / "models" / "3ddfa_v2" / "weights" / "mb05_120x120.pth")
    whitening = folder / "train.configs" / "param_whitening.pkl"
    whitening.unlink(missing_ok=True)
    shutil.copyfile(shared / "models" / "3ddfa_v2" / "configs" / "param_mean_std_62d_120x120.pkl", whitening)
    return folder


def test_compat_writes_the_numbers_of_3ddfas_code(shared: Path, trained_3ddfa: Path, tmp_path: Path) -> None:
    from scipy.io import loadmat

    picture, out = tmp_path / "test1.jpg", tmp_path / "out"
    shutil.copyfile(shared / "images" / "test1.jpg", picture)
    with np.load(shared / "expected" / "3ddfa_v1_test1.npz") as file:
        expected = dict(file)
    given = [f"{i} " + " ".join(map(str, expected[f"face{i}_box"])) for i in range(2)]
    picture.with_name("test1.jpg.bbox").write_text("\n".join(["2", *given]))
    extra = ["--compat", "--mat", "--roibox", "--paf", "--crop"]
    assert run("-f", picture, "--out", out, "--model", trained_3ddfa, "--no-obj", "--no-glb", *extra) == 0
    for i in range(2):
        assert np.abs(read_points(out / f"test1_{i}.txt") - expected[f"face{i}_landmarks68"].T).max() < 0.1
        assert np.abs(np.loadtxt(out / f"test1_{i}.roibox").ravel() - expected[f"face{i}_roi"]).max() < 1e-3
        vertices = expected[f"face{i}_vertices"]
        assert np.abs(loadmat(out / f"test1_{i}.mat")["vertex"] - vertices).max() < 0.1
        lines = (out / f"test1_{i}.ply").read_text().split("end_header\n")[1].splitlines()
        assert np.abs(np.loadtxt(lines[: vertices.shape[1]]) - vertices.T).max() < 0.1
        for name in ("crop", "paf"):
            written = read_picture(out / f"test1_{i}_{name}.jpg")
            assert np.abs(written.astype(float) - expected[f"face{i}_{name}"]).mean() < 5, "but for JPEG"
    depth = cv2.imread(str(out / "test1_depth.png"), cv2.IMREAD_UNCHANGED)
    assert (np.abs(depth - np.rint(expected["depth_image"])) <= 1).mean() > 0.999
    pncc, rounded = cv2.imread(str(out / "test1_pncc.png"))[..., ::-1], np.rint(expected["pncc_image"])
    assert (np.abs(pncc - rounded) <= 1).mean() > 0.999
    assert (pncc == rounded)[rounded.any(axis=2)].mean() > 0.999


def test_compat_hands_given_boxes_to_dlib_as_3ddfa_does(
    predictor: Path, picture: Path, tmp_path: Path, astronaut: np.ndarray
) -> None:
    import dlib

    arguments = ("--only", "roibox", "--dlib-landmark", predictor, "--compat")
    assert run("-f", picture, "--out", tmp_path, *arguments) == 0
    found = dlib.shape_predictor(str(predictor))(astronaut[..., ::-1].copy(), dlib.rectangle(181, 79, 273, 171))
    points = np.float32([(point.x, point.y) for point in found.parts()])
    square = boxes.square_from_landmarks(points) - 0.5  # 3DDFA takes pixel centres for edges
    written = np.loadtxt(tmp_path / "a_0.roibox").ravel()
    assert np.abs(written - square).max() < 0.01
    other = DlibLandmarks(predictor)(astronaut, np.float32([181, 79, 273, 171]))
    assert np.abs(points - other).max() >= 1, "which is not what a box of ours gives"


def test_compat_is_for_pictures_alone(
    picture: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-f", picture, clip, "--out", tmp_path / "o", "--compat") == 2
    assert re.search(r"clip\.mp4: --compat is for pictures", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


# -------------------------------------------------------------------------------------------------------- videos


def test_a_video_gives_an_overlay_and_tables(clip: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    assert run("-f", clip, "--out", tmp_path) == 0
    assert names(tmp_path) == {"clip_overlay.mp4", "clip.csv", "clip.parquet"}
    table = parquet.read_table(tmp_path / "clip.parquet").to_pydict()
    assert table["frame"] == list(range(10)) and set(table["face"]) == {0}
    assert np.allclose(table["time_s"], np.arange(10) / 30, atol=1e-3)
    nose = np.column_stack([table["x30_px"], table["y30_px"]])
    truth = [Astronaut.motion(i) @ [223, 127.5, 1] for i in range(10)]
    assert np.abs(nose - truth).max() < 8, "her nose, marked by hand, in a face of 150 pixels"
    overlay = Clip(tmp_path / "clip_overlay.mp4")
    assert overlay.size == (480, 640) and overlay.fps == 30
    for drawn, plain in zip(overlay, Clip(clip), strict=True):
        assert 0.02 < (cv2.absdiff(drawn, plain).max(axis=2) > 40).mean() < 0.4


def test_of_a_video_frames_and_files_are_taken_as_asked(clip: Path, tmp_path: Path) -> None:
    assert run("-f", clip, "--out", tmp_path, "--only", "csv", "--txt", "--every", 3, "--frames", 2, "--start", 4) == 0
    assert names(tmp_path) == {"clip.csv", "clip_000004_0.txt", "clip_000007_0.txt"}
    lines = (tmp_path / "clip.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["frame", "4", "7"]
    assert run("-f", clip, "--out", tmp_path / "uv", "--only", "csv", "--uv", "--frames", 1) == 0
    assert names(tmp_path / "uv") == {"clip.csv", "clip_000000_0_texture.png", "clip_000000_0_visible.png"}
    assert run("-f", clip, "--out", tmp_path / "none", "--start", 99) == 1 and not names(tmp_path / "none")


def test_of_a_damaged_video_what_can_be_read_is_taken_and_the_rest_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="how long a video should be tells PyAV")
    path = tmp_path / "clip.mp4"
    with movies.Movie(path, (240, 320), 4) as movie:
        for i in range(12):
            movie.add(cv2.resize(Astronaut().frame(5 * i), (320, 240)), i / 4)
    for whole in (["--frames", 1], ["--every", 7]):
        assert run("-f", path, "--out", tmp_path / "o", "--only", "csv", *whole) == 0
    content = path.read_bytes()
    left = content[: 2 * len(content) // 3]
    for damaged in (left, left + bytes(len(content) - len(left))):
        path.write_bytes(damaged)
        capsys.readouterr()
        assert run("-f", path, "--out", tmp_path / "o", "--only", "csv") == 1
        assert re.search(r"clip\.mp4: ends at [12]\.\d s of 3\.0 s: damaged\?\n$", capsys.readouterr().err)
        assert 4 < len((tmp_path / "o" / "clip.csv").read_text().splitlines()) < 12


def test_smoothing_stills_a_face_that_is_still(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    with movies.Movie(tmp_path / "still.mp4", (480, 640), 30) as movie:
        for i in range(16):
            noisy = Astronaut().frame(0) + random.normal(0, 25, (480, 640, 3))
            movie.add(np.clip(noisy, 0, 255).astype(np.uint8), i / 30)

    def trembling(*switches: str) -> float:
        assert run("-f", tmp_path / "still.mp4", "--out", tmp_path, "--only", "csv", *switches) == 0
        table = np.genfromtxt(tmp_path / "still.csv", delimiter=",", names=True)
        return float(np.mean([table[f"x{i}_px"][4:].std() for i in range(68)]))

    assert trembling("--smooth") < 0.6 * trembling()


@pytest.mark.parametrize("codec", ["PyAV", "OpenCV"])
def test_a_video_that_the_disk_does_not_take_is_not_there(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if codec == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        pytest.importorskip("av", reason="this way of writing needs PyAV")
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)

    def write() -> None:
        with movies.Movie(tmp_path / "m.mp4", (240, 320), 25) as movie:
            for i in range(20):
                movie.add(np.roll(noise, 7 * i, axis=0), i / 25)

    with pytest.raises(OSError, match="m.mp4"), largest_file(100_000):
        write()
    assert names(tmp_path) == set()
    write()
    assert names(tmp_path) == {"m.mp4"} and len(list(Clip(tmp_path / "m.mp4"))) == 20


def test_an_overlay_keeps_the_time_of_frames_that_come_unsteadily(tmp_path: Path) -> None:
    levels = (20, 120, 220)
    with movies.Movie(tmp_path / "m.mp4", (64, 65), 10) as movie:
        for level, time in zip(levels, (5.0, 5.4, 5.5), strict=True):
            movie.add(np.full((64, 65, 3), level, np.uint8), time)
    frames = [int(frame.mean()) for frame in Clip(tmp_path / "m.mp4")]
    assert np.allclose(frames, [20, 20, 20, 20, 120, 220], atol=6)


class Interrupted:
    """Frames of the built-in moving picture, and Ctrl-C after the fifth."""

    name, size, fps, count = "interrupted", (480, 640), 30.0, None

    def __init__(self, _: object) -> None:
        pass

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        for i in range(5):
            yield i / 30, Astronaut().frame(i)
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [Clip, Webcam])
def test_ctrl_c_ends_a_webcam_whole_and_a_clip_with_nothing(
    kind: type, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no file is called 0
    source = type("Interrupted", (Interrupted, kind), {})
    monkeypatch.setattr(sources, kind.__name__, source)
    status = run("-f", clip if kind is Clip else 0, "--out", tmp_path / "o", "--no-parquet")
    if kind is Clip:
        assert status == 130 and names(tmp_path / "o") == set()
    else:
        assert status == 0 and names(tmp_path / "o") == {"webcam0.csv", "webcam0_overlay.mp4"}
        assert len(list(Clip(tmp_path / "o" / "webcam0_overlay.mp4"))) == 5


def test_a_video_without_a_face_says_so_and_gives_empty_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with movies.Movie(tmp_path / "grey.mp4", (96, 128), 25) as movie:
        for i in range(3):
            movie.add(np.full((96, 128, 3), 90, np.uint8), i / 25)
    assert run("-f", tmp_path / "grey.mp4", "--out", tmp_path / "o") == 1
    assert "grey.mp4: no face found in 3 frames" in capsys.readouterr().err
    assert {"grey.csv", "grey_overlay.mp4"} <= names(tmp_path / "o")
    assert len((tmp_path / "o" / "grey.csv").read_text().splitlines()) == 1


# ------------------------------------------------------------------------------------------------ smaller pieces


def test_depth_in_grey_and_in_millimetres() -> None:
    depth = np.float32([[np.nan, 1.0], [1.5, 70.0]])
    assert millimetres(depth).tolist() == [[0, 1000], [1500, 0]]
    assert grey_depth(depth[:, :1]).tolist() == [[0], [255]]
    assert grey_depth(np.float32([[1, 1.5, 2]])).tolist() == [[255, 128, 1]]


def test_a_picture_with_16_bits_comes_back(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000
    write_picture(tmp_path / "p.png", values)
    assert (cv2.imread(str(tmp_path / "p.png"), cv2.IMREAD_UNCHANGED) == values).all()


def test_reading_ahead_keeps_order_and_raises_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("unplugged")

    got = []
    with pytest.raises(OSError, match="unplugged"):
        for item in read_ahead(items(), 2):
            got.append(item)
    assert got == list(range(5))


def test_writing_behind_keeps_order_and_tells_what_failed() -> None:
    done: list[int] = []
    with WriteBehind(2) as behind:
        for i in range(20):
            behind(done.append, i)
    assert done == list(range(20))
    with pytest.raises(ZeroDivisionError), WriteBehind(2) as behind:
        behind(divmod, 1, 0)
