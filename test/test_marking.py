"""The network that marks points: geometry of its answers, what becomes of labels, and the program's complaints."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from radan_ros import Model  # noqa: E402
from radan_ros.tools import mark as program  # noqa: E402
from radan_ros.training.augmentation import MIRRORED  # noqa: E402
from radan_ros.training.marking import EYES_AND_MOUTH, Marker, as_input, corrected, mark, mark_pictures, marking_loss  # noqa: E402
from radan_ros.training.preparation import OPENING, LabelledPictures, label_pictures, read_labelled_pictures  # noqa: E402
from radan_ros.training.samples import WIDE_SIZE, Samples, write_samples  # noqa: E402


@pytest.fixture(scope="module")
def network() -> Marker:
    """A network that has learned nothing: its geometry is the same."""
    torch.manual_seed(0)
    return Marker().eval()


@pytest.fixture
def points(builtin: Model) -> np.ndarray:
    """68 points of a plausible face, (68, 2) image pixels."""
    face = builtin.face_model.mean[builtin.face_model.landmarks][:, :2]
    face = (face - face.mean(axis=0)) / np.ptp(face, axis=0).max()
    return np.asarray([220.0, 130.0] + face * [90, -90], np.float64)


def pictures_in(folder: Path, image: np.ndarray, labels: dict[str, np.ndarray]) -> LabelledPictures:
    (folder / "images").mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "a.png"), image)
    np.savez(folder / "labels.npz", names=np.array(["a.png"]), **labels)
    return read_labelled_pictures(folder)


def test_a_single_peak_is_answered_where_its_cell_lies() -> None:
    class Peaks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = torch.full((len(x), 68, *x.shape[2:]), -1e4)
            maps[:, :, 7, 20] = 0
            return maps

    marker = Marker().eval()
    marker.maps = Peaks()  # type: ignore[assignment]
    answer = marker(as_input(torch.zeros((1, 120, 120, 3), dtype=torch.uint8)))
    assert np.allclose(answer, [20 * 4 + 1.5, 7 * 4 + 1.5])  # the middle of 4 x 4 pixels


def test_mirrored_crops_are_marked_in_their_mirror_image(network: Marker, astronaut: np.ndarray) -> None:
    crop = np.ascontiguousarray(cv2.resize(astronaut[60:200, 150:290], (120, 120)))
    plain, mirrored = mark(network, np.stack([crop, crop[:, ::-1]]))
    assert np.ptp(plain, axis=0).max() > 0.1
    assert np.abs(mirrored[MIRRORED] * [-1, 1] + [119, 0] - plain).max() < 1e-3


def test_points_of_pictures_move_with_the_picture(
    network: Marker, astronaut: np.ndarray, points: np.ndarray, tmp_path: Path
) -> None:
    taught = np.column_stack([points, np.zeros(68)])
    answers = []
    for name, (dx, dy) in {"still": (0, 0), "moved": (10, 7)}.items():
        image = cv2.copyMakeBorder(astronaut, dy, 0, dx, 0, cv2.BORDER_REPLICATE)
        pictures = pictures_in(tmp_path / name, image, {"teacher_landmarks68_3d": (taught + [dx, dy, 0])[None]})
        [answer] = mark_pictures(network, pictures)
        answers.append(answer[0])
    assert np.abs(answers[1] - answers[0] - [10, 7]).max() < 0.05
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    assert np.abs(answers[0].mean(axis=0) - centre).max() < 10, "in the middle of the crop, by who knows nothing"


def test_pictures_without_any_known_point_are_left_as_they_are(
    network: Marker, astronaut: np.ndarray, tmp_path: Path
) -> None:
    unknown = np.full((1, 68, 3), np.nan)
    pictures = pictures_in(tmp_path / "a", astronaut, {"teacher_landmarks68_3d": unknown})
    [answer] = mark_pictures(network, pictures)
    assert np.isnan(answer).all()
    assert np.isnan(corrected(pictures, answer)["teacher_landmarks68_3d"]).all()


def test_of_a_teachers_points_eyes_and_mouth_become_the_networks(points: np.ndarray, tmp_path: Path) -> None:
    taught = np.column_stack([points, np.arange(68)])[None]
    pictures = LabelledPictures(tmp_path, np.array(["a"]), None, taught * [1, 1, -1], np.array([0.01]))
    labels = corrected(pictures, points[None] + [2, 3])
    moved = labels["teacher_landmarks68_3d"][0] - taught[0]
    assert np.allclose(moved[EYES_AND_MOUTH], [2, 3, 0]) and np.allclose(np.delete(moved, EYES_AND_MOUTH, 0), 0)
    assert labels["opening_weight"].tolist() == [1] and labels["teacher_spread"].tolist() == [0.01]


def test_marked_points_meet_the_networks_half_way_and_keep_what_all_are_off_by(
    points: np.ndarray, tmp_path: Path
) -> None:
    size = np.sqrt(np.prod(np.ptp(points, axis=0)))
    taught = np.column_stack([points, np.zeros(68)])[None]
    marked = points[None] + 0.02 * size  # all of a set lie off by that
    marked[0, 40] += [0, 4]
    marked[0, 50] = np.nan
    pictures = LabelledPictures(tmp_path, np.array(["a"]), marked, taught, None)
    moved = corrected(pictures, points[None])["landmarks68_2d"][0] - points
    assert np.isnan(moved[50]).all()
    assert np.abs(np.delete(moved, [40, 50], 0) - 0.02 * size).max() < 0.1
    assert moved[40, 1] - 0.02 * size == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("weight", "factor"), [(None, 0.3), (1.0, 1.0), (0.5, 0.5)])
def test_lids_and_lips_are_believed_as_far_as_the_labels_say(
    weight: float | None, factor: float, builtin: Model, points: np.ndarray, tmp_path: Path
) -> None:
    model = builtin.face_model
    depth = -model.mean[model.landmarks][:, 2] / np.ptp(model.mean[model.landmarks][:, 0]) * 75
    taught = np.column_stack([points, depth])[None]
    pictures = LabelledPictures(
        tmp_path, np.array(["a"]), None, taught, None, None if weight is None else np.array([weight])
    )
    weights = label_pictures(pictures, model).landmark_weights[0]
    inner = np.delete(weights, OPENING)
    assert inner.max() > 0.5 and np.allclose(weights[OPENING], factor * inner.max())


def test_the_loss_is_smooth_l1_of_points_and_openings_by_weight() -> None:
    rng = np.random.default_rng(0)
    points, labels = rng.normal(0, 3, (2, 2, 68, 2))
    weights = rng.uniform(size=(2, 68))

    def smooth(x: float) -> float:
        return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5

    pairs = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))
    off = points - labels
    each = np.mean([weights[i, p] * smooth(off[i, p, k]) for i in range(2) for p in range(68) for k in range(2)])
    apart = np.mean([
        weights[i, a] * smooth(off[i, a, k] - off[i, b, k]) for i in range(2) for a, b in pairs for k in range(2)
    ])  # fmt: skip
    loss = marking_loss(torch.tensor(points), torch.tensor(labels), torch.tensor(weights))
    assert float(loss) == pytest.approx(each + 2 * apart, rel=1e-9)


def test_what_is_wrong_is_said_in_one_line(
    builtin: Model, astronaut: np.ndarray, points: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    pictures_in(data, astronaut, {"landmarks": points[None]})
    cases = (
        ([data, "--learn", tmp_path / "none"], "none/crops.npy is missing"),
        ([tmp_path / "other", "--learn", tmp_path / "none"], "none"),
    )
    for arguments, words in cases:
        assert program.main([*map(str, arguments), "--out", str(tmp_path / "out")]) == 1
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and said[0].startswith("radan-mark: ") and words in said[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    none = np.zeros
    write_samples(
        empty,
        Samples(
            none((0, WIDE_SIZE, WIDE_SIZE, 3), np.uint8),
            none((0, 62), np.float32),
            none((0, 68, 2), np.float32),
            none((0, 68), np.float32),
            none(0, np.float32),
            none(0, "U1"),
        ),
        builtin.face_model,
    )
    assert program.main([str(data), "--learn", str(empty), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"radan-mark: {empty}: no samples in it\n"
    labels = dict(np.load(data / "labels.npz"))
    np.savez(data / "labels.npz", **labels, opening_weight=np.array([1.5]))
    with pytest.raises(ValueError, match="opening_weight is not 0 to 1"):
        read_labelled_pictures(data)
