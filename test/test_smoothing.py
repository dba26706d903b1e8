"""Smoothing: calm at rest, no lag in motion, on stamps; the shape is a mean; what comes out is one consistent face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from conftest import ASTRONAUT_BOX

from radan_ros import Model, Pipeline, open_detector
from radan_ros.boxes import square_from_landmarks
from radan_ros.face import Face
from radan_ros.face_models import FaceModel
from radan_ros.model import open_face_model
from radan_ros.pipeline import camera_in_network, transform
from radan_ros.pose import decompose_camera
from radan_ros.smoothing import FaceSmoother, Smoothing

RATE = 25.0
SIZE = 200.0  # pixels of a face, about
FRONTAL = np.diag([1.0, -1.0, -1.0])  # a head that faces the camera squarely

Make = Callable[..., Face]


@pytest.fixture(scope="module")
def face_model() -> FaceModel:
    return open_face_model("builtin")


@pytest.fixture(scope="module")
def make(face_model: FaceModel) -> Make:
    """Faces: turned about the camera's axes (radians), at a place (face sizes), of a relative size."""
    mean = face_model.landmark_points(np.zeros((1, 50)))[0].astype(np.float64)
    centre, unit = mean.mean(axis=0), SIZE / np.sqrt(np.prod(np.ptp(mean[:, :2], axis=0)))

    def make(
        turn: Sequence[float] = (0, 0, 0),
        place: Sequence[float] = (2, 1),
        scale: float = 1.0,
        coefficients: np.ndarray | None = None,
        stretch: np.ndarray | None = None,
    ) -> Face:
        rotation = cv2.Rodrigues(np.asarray(turn, np.float64))[0] @ FRONTAL
        linear = scale * unit * rotation @ (np.eye(3) if stretch is None else stretch)
        translation = np.array([*(SIZE * np.asarray(place)), 0.0]) - linear @ centre
        camera = np.column_stack([linear, translation]).astype(np.float32)
        q = np.zeros(50, np.float32) if coefficients is None else coefficients.astype(np.float32)
        landmarks = transform(camera[None], face_model.landmark_points(q[None]))[0]
        roi = square_from_landmarks(landmarks)
        return Face(roi, 1.5, np.concatenate([camera_in_network(camera, roi), q]), camera, landmarks, 0.75)

    return make


@pytest.fixture
def smoother(face_model: FaceModel) -> FaceSmoother:
    return FaceSmoother(face_model)


def run(smoother: FaceSmoother, faces: Sequence[Face], stamps: np.ndarray | None = None) -> list[Face]:
    times = np.arange(len(faces)) / RATE if stamps is None else stamps
    return [smoother(face, float(t)) for face, t in zip(faces, times, strict=True)]


def tracks(faces: Sequence[Face]) -> np.ndarray:
    """Landmarks in face sizes, (n, 68, 2)."""
    return np.stack([face.landmarks[:, :2] for face in faces]).astype(np.float64) / SIZE


def jitter(faces: Sequence[Face]) -> float:
    return float(np.sqrt(np.mean(np.diff(tracks(faces), 2, axis=0) ** 2)))


def noisy(make: Make, n: int, seed: int = 0, shape: float = 0.1, expression: float = 0.05) -> list[Face]:
    """A face at rest as a network answers it: about as uncertain as the built-in one is on the shared clips."""
    random = np.random.default_rng(seed)
    sigma = np.concatenate([np.full(40, shape), np.full(10, expression)])
    return [
        make(
            random.normal(0, 0.008, 3),
            (2, 1) + random.normal(0, 0.003, 2),
            np.exp(random.normal(0, 0.005)),
            random.normal(0, sigma),
        )
        for _ in range(n)
    ]


def assert_consistent(face: Face, face_model: FaceModel) -> None:
    """Camera, landmarks and parameters are of one face."""
    placed = Pipeline._camera(Pipeline.__new__(_Plain), face.parameters, face.roi)
    assert np.abs(placed[:, 3] - face.camera[:, 3]).max() < 1e-2, "the parameters' camera is the face's"
    assert np.abs(placed[:, :3] - face.camera[:, :3]).max() < 1e-5 * np.abs(face.camera[:, :3]).max()
    points = face_model.landmark_points(face.coefficients[None])
    assert np.abs(transform(face.camera[None], points)[0] - face.landmarks).max() < 1e-2
    for array in (face.parameters, face.camera, face.landmarks):
        assert array.dtype == np.float32 and array.flags.c_contiguous


class _Plain(Pipeline):
    """A pipeline without a model: how it places cameras."""

    compat = False


def test_a_face_at_rest_is_calmed(make: Make, smoother: FaceSmoother) -> None:
    faces = noisy(make, 150)
    smoothed = run(smoother, faces)
    assert jitter(smoothed[10:]) < 0.2 * jitter(faces[10:])
    # It stays where it is: the mean of what was seen.
    assert np.abs(tracks(smoothed[50:]).mean(axis=0) - tracks(faces[50:]).mean(axis=0)).max() < 0.003


@pytest.mark.parametrize("rate", [12.5, 30.0])
@pytest.mark.parametrize("speed", [0.05, 0.3, 1.0, 4.0])
def test_steady_motion_is_followed_without_lag(make: Make, smoother: FaceSmoother, speed: float, rate: float) -> None:
    """A move, a turn and an approach at once, from a standstill: at most an image of lag, at last none."""
    stamps = np.arange(round(3 * rate)) / rate
    gone = np.clip(stamps - 0.5, 0, None) * speed
    faces = [make((0, 0.5 * g, 0.2 * g), (2 + g, 1), np.exp(0.1 * g)) for g in gone]
    smoothed = run(smoother, faces, stamps)
    behind = tracks(faces)[:, 30, 0] - tracks(smoothed)[:, 30, 0]
    turned = [
        np.linalg.norm(cv2.Rodrigues(decompose_camera(f.camera).rotation @ decompose_camera(g.camera).rotation.T)[0])
        for f, g in zip(faces, smoothed, strict=True)
    ]
    assert np.abs(behind[stamps >= 1.5]).max() < speed / rate
    assert np.max(np.array(turned)[stamps >= 2]) < 0.54 * speed / rate, "0.54 radians for each face size"
    assert np.abs(behind[-1]) < 0.2 * speed / rate, "and in the end none"


@pytest.mark.parametrize("height", [0.02, 0.1, 0.5])
def test_a_sudden_move_is_there_at_once_and_not_much_overshot(
    make: Make, smoother: FaceSmoother, height: float
) -> None:
    faces = [make(place=(2 + height * (i >= 25), 1)) for i in range(75)]
    response = (tracks(run(smoother, faces))[:, 30, 0] - tracks(faces)[0, 30, 0]) / height
    assert response[24] == pytest.approx(0, abs=1e-3)
    assert response[25:31].max() > 0.9, "within six images"
    assert response.max() < 1.4
    assert response[25 + 25 :] == pytest.approx(np.ones(25), abs=0.1), "settled within a second"


def test_a_turn_is_a_rotation_however_far_it_goes(make: Make, smoother: FaceSmoother) -> None:
    """Twice around in the image plane at 180 degrees a second."""
    faces = [make((0, 0, np.pi * i / RATE)) for i in range(100)]
    for face, seen in zip(run(smoother, faces)[25:], faces[25:], strict=True):
        assert np.abs(face.landmarks[:, :2] - seen.landmarks[:, :2]).max() < 0.02 * SIZE
        assert decompose_camera(face.camera).scale == pytest.approx(decompose_camera(seen.camera).scale, rel=1e-3)


def test_dropped_images_and_varying_rates_follow_the_same_path(make: Make, face_model: FaceModel) -> None:
    """The same swaying head seen 30 times a second, and at a random third of those stamps."""
    random = np.random.default_rng(1)
    every = np.arange(300) / 30
    some = np.sort(random.choice(300, 150, replace=False))
    faces = [make((0, 0.4 * np.sin(2 * t), 0), (2 + 0.3 * np.sin(2 * t), 1)) for t in every]
    regular = tracks(run(FaceSmoother(face_model), faces, every))
    irregular = tracks(run(FaceSmoother(face_model), [faces[i] for i in some], every[some]))
    late = some > 60
    assert np.abs(irregular[late] - regular[some[late]]).max() < 0.02
    assert np.abs(irregular[late] - tracks(faces)[some[late]]).max() < 0.03


def test_a_slow_camera_is_calmed_by_seconds_not_by_images(make: Make, face_model: FaceModel) -> None:
    """The same disturbance lasts as long at 10 as at 40 images a second."""

    def decay(rate: float) -> float:
        n = round(2 * rate)
        faces = [make(place=(2 + 0.004 * (t < 1.0), 1)) for t in np.arange(2 * n) / rate]
        gone = tracks(run(FaceSmoother(face_model), faces, np.arange(2 * n) / rate))[:, 30, 0]
        after = gone[round(rate) :] - tracks(faces)[-1, 30, 0]
        return float(np.argmax(after < 0.002) / rate)

    assert decay(10.0) == pytest.approx(decay(40.0), abs=0.11)


def test_the_shape_is_the_mean_of_all_first_and_of_the_last_seconds_later(make: Make, smoother: FaceSmoother) -> None:
    random = np.random.default_rng(2)
    first, then = random.normal(0, 0.5, (2, 50))
    faces = [make(coefficients=first + random.normal(0, 0.2, 50)) for _ in range(20)]
    smoothed = run(smoother, faces)
    for n in (1, 2, 7, 20):
        expected = np.mean([f.coefficients[:40] for f in faces[:n]], axis=0)
        assert np.abs(smoothed[n - 1].coefficients[:40] - expected).max() < 1e-5
    time = smoother.smoothing.shape_time
    stamps = 1 + np.arange(round(5 * time * RATE)) / RATE
    last = run(smoother, [make(coefficients=then)] * len(stamps), stamps)[-1]
    assert np.abs(last.coefficients[:40] - then[:40]).max() < 0.02
    moves = [
        np.abs(np.diff([f.coefficients[k] for f in smoothed[10:]], axis=0)).mean() for k in (slice(40), slice(40, 50))
    ]
    assert moves[0] < moves[1], "the shape is the slowest"


def test_what_an_expression_in_the_shape_moves_is_not_lost(
    make: Make, face_model: FaceModel, smoother: FaceSmoother, benchmark: ModuleType
) -> None:
    """A network that puts a part of each blink into the shape: the eyes still close."""
    basis = {
        "shape": face_model.shape_basis[face_model.landmarks].astype(np.float64),
        "expression": face_model.expression_basis[face_model.landmarks].astype(np.float64),
    }
    eyes = slice(36, 48)
    heights = [basis[k][eyes, 1] for k in ("shape", "expression")]
    blink = np.zeros(50)
    # The shape that moves the lids as half of these two expressions would, as small as possible.
    names = [face_model.expression_names.index(f"eye_close_{side}") for side in ("left", "right")]
    wanted = heights[1][:, names].sum(axis=1)
    blink[:40] = np.linalg.solve(heights[0].T @ heights[0] + 1e-9 * np.eye(40), heights[0].T @ wanted) / 2
    blink[[40 + i for i in names]] = 0.5
    faces = [make(coefficients=blink if 50 <= i < 58 else None) for i in range(75)]
    open_, smoothed = (benchmark.opening(t, benchmark.LIDS) for t in (tracks(faces), tracks(run(smoother, faces))))
    closed = open_[49] - open_[57]
    assert closed > 0.01
    assert smoothed[49] - smoothed[57] > 0.8 * closed
    assert np.abs(smoothed[57] - open_[57]) < 0.3 * closed


def test_a_moving_mouth_leaves_the_brows_calm(make: Make, face_model: FaceModel, smoother: FaceSmoother) -> None:
    random = np.random.default_rng(3)
    jaw, brow = (40 + face_model.expression_names.index(name) for name in ("jaw_open", "brow_up"))
    faces = []
    for i in range(150):
        q = np.zeros(50)
        q[jaw], q[brow] = 1.5 + 1.5 * np.sin(2 * np.pi * 2 * i / RATE), random.normal(0, 0.05)
        faces.append(make(coefficients=q))
    smoothed = run(smoother, faces)
    before, after = (np.array([f.parameters[[12 + jaw, 12 + brow]] for f in part[20:]]) for part in (faces, smoothed))
    assert np.ptp(after[:, 0]) > 0.8 * np.ptp(before[:, 0]), "the jaw moves on"
    assert np.diff(after[:, 1], 2).std() < 0.4 * np.diff(before[:, 1], 2).std()


def test_strength_0_is_off_and_more_is_calmer(make: Make, face_model: FaceModel) -> None:
    faces = noisy(make, 100)
    off = FaceSmoother(face_model, Smoothing(0.0))
    assert all(out is face for out, face in zip(run(off, faces), faces, strict=True))
    left = [jitter(run(FaceSmoother(face_model, Smoothing(s)), faces)[10:]) for s in (0.25, 1.0, 4.0)]
    assert left[0] > 1.3 * left[1] > 1.3**2 * left[2]


def test_camera_landmarks_and_parameters_are_of_one_face(
    make: Make, face_model: FaceModel, smoother: FaceSmoother
) -> None:
    for i, face in enumerate(noisy(make, 20)):
        moved = replace(face, roi=face.roi + np.float32(3 * (i % 4)))  # whichever square it was seen in
        out = smoother(moved, i / RATE)
        assert_consistent(out, face_model)
        assert out.roi is moved.roi and (out.score, out.confidence) == (1.5, 0.75)


def test_the_first_answer_of_the_network_is_given_back(builtin: Model, astronaut: np.ndarray) -> None:
    """And the parameters of a camera in the image are those that it came from."""
    [face] = Pipeline(builtin)(astronaut, [ASTRONAUT_BOX])
    scale = np.abs(face.parameters[:12]).reshape(3, 4).max(axis=0)
    back = camera_in_network(face.camera, face.roi).reshape(3, 4)
    assert np.abs((back - face.parameters[:12].reshape(3, 4)) / scale).max() < 1e-5
    out = FaceSmoother(builtin.face_model)(face, 12.0)
    assert np.abs(out.landmarks - face.landmarks).max() < 0.01
    assert np.abs(out.coefficients - face.coefficients).max() < 1e-5


def test_a_camera_that_is_no_scaled_rotation_stays_what_it_is(make: Make, smoother: FaceSmoother) -> None:
    """As other networks of the family answer: nothing is made of it that they did not say."""
    stretch = np.array([[1.03, 0.02, 0.0], [-0.01, 0.98, 0.03], [0.02, 0.0, 0.9]])
    face = make((0.3, 0.2, 0.1), stretch=stretch)
    out = run(smoother, [face] * 10)[-1]
    assert np.abs(out.camera - face.camera).max() < 1e-5 * np.abs(face.camera).max()


@pytest.mark.parametrize(
    "stamp", [1.0, 0.5, -7.0, 2.5, np.nan], ids=["repeated", "back", "looped", "gap", "not a number"]
)
def test_without_a_known_time_the_motion_starts_again_and_the_shape_goes_on(
    make: Make, face_model: FaceModel, smoother: FaceSmoother, stamp: float
) -> None:
    known = np.full(50, 0.3)
    run(
        smoother,
        [make(place=(2 + 0.5 * t, 1), coefficients=known) for t in np.linspace(0, 1, 26)],
        np.linspace(0, 1, 26),
    )
    moved = make((0, 0.2, 0), (2.3, 1.1), coefficients=known)
    out = smoother(moved, stamp)
    assert np.abs(out.landmarks - moved.landmarks).max() < 0.01 * SIZE, "as it is seen"
    other = make(coefficients=-known)
    after = smoother(other, 3.0 if np.isnan(stamp) else stamp + 0.04)
    assert np.abs(after.coefficients[:40] - 0.3).max() < 0.1, "a person's shape does not depend on the clock"
    standing = [smoother(moved, (4.0 if np.isnan(stamp) else stamp) + 0.08 + i / RATE) for i in range(3)]
    assert_consistent(standing[-1], face_model)


def test_a_jump_is_not_taken_for_a_motion(make: Make, smoother: FaceSmoother) -> None:
    run(smoother, [make()] * 10)
    for jumped in (make(place=(4, 1)), make((0, 1.5, 0))):
        outs = [smoother(jumped, 1 + i / RATE) for i in range(3)]
        for out in outs:
            assert np.abs(out.landmarks - jumped.landmarks).max() < 0.01 * SIZE, "there at once, without a swing"
        smoother.reset()
        run(smoother, [make()] * 10)


def test_a_short_loss_is_no_restart(make: Make, smoother: FaceSmoother) -> None:
    """Within the gap a face that went on steadily is expected where it is."""
    times = [*np.arange(25) / RATE, 1.5]
    faces = [make(place=(2 + 0.5 * t, 1)) for t in times]
    out = run(smoother, faces, np.array(times))[-1]
    assert np.abs(out.landmarks - faces[-1].landmarks)[:, :2].max() < 0.02 * SIZE


def test_a_restart_begins_from_the_face_as_it_is_seen_and_keeps_the_shape(make: Make, smoother: FaceSmoother) -> None:
    shape = np.full(50, 0.3)
    shape[40:] = 0
    run(smoother, [make(place=(2 + 0.05 * k, 1), coefficients=shape) for k in range(20)])
    smoother.restart()
    face = make(place=(2.7, 1))
    out = smoother(face, 20 / RATE)
    assert np.abs(out.coefficients[:40] - 0.3).max() < 0.05
    assert abs(tracks([out])[0].mean(axis=0)[0] - tracks([face])[0].mean(axis=0)[0]) < 0.02
    out = smoother(face, 21 / RATE)
    assert abs(tracks([out])[0].mean(axis=0)[0] - tracks([face])[0].mean(axis=0)[0]) < 0.02, "without a speed"


def test_reset_forgets_the_person(make: Make, smoother: FaceSmoother) -> None:
    run(smoother, [make(coefficients=np.full(50, 0.3))] * 10)
    smoother.reset()
    face = make(place=(2.1, 1), coefficients=np.full(50, -0.3))
    out = smoother(face, 0.4)
    assert np.abs(out.landmarks - face.landmarks).max() < 0.01
    assert np.abs(out.coefficients - face.coefficients).max() < 1e-5


@pytest.mark.parametrize("name", [f.name for f in fields(Smoothing)])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_settings_out_of_their_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"smoothing: {name} is {value}"):
        Smoothing(**{name: value})


def test_the_measures_see_jitter_and_lag(benchmark: ModuleType) -> None:
    """Tracks made with known ones: white noise on a still face, a moving face that comes 0.7 images late."""
    random = np.random.default_rng(4)
    still = np.tile(random.uniform(0, 1, (1, 68, 2)), (200, 1, 1))
    noise = random.normal(0, 0.003, still.shape)
    assert benchmark.resting(still + noise, RATE).mean() > 0.95
    assert benchmark.jitter(still + noise) == pytest.approx(0.003 * np.sqrt(6 * 2), rel=0.03)
    sway = np.sin(np.arange(200) / 8)[:, None, None] * [0.3, 0.1]
    late = np.sin((np.arange(200) - 0.7) / 8)[:, None, None] * [0.3, 0.1]
    assert not benchmark.resting(still + sway + noise, RATE)[:, 30].all()
    assert benchmark.lag(still + sway + noise, still + late, RATE, 0.05) == pytest.approx(0.7, abs=0.051)
    wave = 0.1 + 0.1 * np.sin(np.arange(200) / 3)
    assert benchmark.kept(wave, 0.05 + 0.08 * np.sin((np.arange(200) - 1) / 3), 0.03) == pytest.approx(80, abs=3)


def test_on_real_heads_jitter_falls_by_60_percent_with_an_image_of_lag(
    shared: Path, builtin: Model, benchmark: ModuleType
) -> None:
    results = []
    for clip in ("d12.mp4", "d20.mp4"):
        images, rate = benchmark.read_clip(shared / "video" / clip)
        faces = benchmark.follow(Pipeline(builtin, open_detector("dlib_hog")), images)
        smoothed = benchmark.smooth(faces, rate, builtin, Smoothing())
        results.append(benchmark.measure(benchmark.landmarks(faces), benchmark.landmarks(smoothed), rate))
    for name, least, most in (
        ("falls", 60, 100),
        ("lag_slow", -1, 1),
        ("lag_fast", -1, 1),
        ("mouth", 75, 150),
        ("eyes", 75, 150),
    ):
        values = [getattr(result, name) for result in results]
        measured = [value for value in values if not np.isnan(value)]  # not every head moves in every way
        assert measured and all(least < value <= most for value in measured), (name, values)
