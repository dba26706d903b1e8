"""Losses of the training: each against a computation of its own in NumPy, gradients included, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import frontal_parameters

from radan_ros.face_models import FaceModel
from radan_ros.model import Whitening
from radan_ros.pipeline import cameras_in_crop, transform

torch = pytest.importorskip("torch", reason="training needs torch")

from radan_ros.training import losses  # noqa: E402
from radan_ros.training.losses import Geometry, LossMix  # noqa: E402

BATCH = 5
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def whitening(small_face: FaceModel) -> Whitening:
    random = np.random.default_rng(1)
    mean = frontal_parameters(small_face)
    scale = mean[0]
    std = np.full(62, 0.7)
    std[:12] = [0.2 * scale, 0.3 * scale, 0.4 * scale, 5.0] * 3
    return Whitening(mean, (std * random.uniform(0.8, 1.2, 62)).astype(np.float32))


@pytest.fixture(scope="module")
def geometry(small_face: FaceModel, whitening: Whitening) -> Geometry:
    return Geometry(small_face, whitening).double()


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Whitened predictions and targets (5, 62), so far apart that Wing's and Smooth-L1's both branches are used."""
    random = np.random.default_rng(2)
    return random.normal(size=(BATCH, 62)) * np.array([[0.05], [0.3], [1], [2], [3]]), random.normal(size=(BATCH, 62))


@pytest.fixture(scope="module")
def vertices(geometry: Geometry) -> torch.Tensor:
    return geometry.draw_vertices(132, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def labelled(small_face: FaceModel, whitening: Whitening, pair: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted landmarks, labels (5, 68, 2) and weights (5, 68)."""
    random = np.random.default_rng(4)
    pixels = random.uniform(0, 120, (BATCH, 68, 2))
    labels = pixels + random.normal(size=pixels.shape) * np.geomspace(0.1, 30, BATCH)[:, None, None]
    return pixels, labels, random.choice([0.0, 0.3, 1.0], (BATCH, 68))


# --- the same in plain NumPy, sample by sample -------------------------------------------------------------------


def points(model: FaceModel, whitening: Whitening, whitened: np.ndarray, rows: np.ndarray) -> np.ndarray:
    p = whitened * whitening.std.astype(np.float64) + whitening.mean
    shape = model.mean + model.shape_basis.astype(np.float64) @ p[12:52] + model.expression_basis @ p[52:]
    return (p[:12].reshape(3, 4) @ np.column_stack([shape, np.ones(len(shape))]).T).T[rows]


def wing(x: float, w: float = 10.0, epsilon: float = 2.0) -> float:
    if abs(x) < w:
        return float(w * np.log(1 + abs(x) / epsilon))
    return abs(x) - (w - w * float(np.log(1 + w / epsilon)))


def vertex_errors(model: FaceModel, whitening: Whitening, a: np.ndarray, b: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Errors of points, the predicted z offset replaced by the target's."""
    a = a.copy()
    a[11] = b[11]
    return points(model, whitening, a, rows) - points(model, whitening, b, rows)


def wpdc_importance(model: FaceModel, whitening: Whitening, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Importance of each parameter of one sample, from how the mean face's vertices move in pixels."""
    mean = model.mean.astype(np.float64)
    camera = (b * whitening.std + whitening.mean)[:12].reshape(3, 4)
    scale = np.sqrt((np.linalg.norm(camera[0, :3]) ** 2 + np.linalg.norm(camera[1, :3]) ** 2) / 2)
    basis = np.concatenate([model.shape_basis, model.expression_basis], axis=2).astype(np.float64)
    out = np.zeros(62)
    for k in range(62):
        error = abs(a[k] - b[k]) * whitening.std[k]
        if k == 11:
            continue
        if k >= 12:
            out[k] = error * scale * np.sqrt((basis[:, :, k - 12] ** 2).sum())
        elif k % 4 == 3:
            out[k] = error * np.sqrt(len(mean))
        else:
            out[k] = error * np.sqrt((mean[:, k % 4] ** 2).sum())
    return out / out.max()


def central_differences(loss: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(at)
    for k in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[k] += step
        down[k] -= step
        gradient[k] = (loss(up) - loss(down)) / (2 * step)
    return gradient


def check(
    loss: Callable[[torch.Tensor], torch.Tensor], expected: Callable[[np.ndarray], float], at: np.ndarray
) -> None:
    """Value and gradient of a loss against those of a NumPy function."""
    given = torch.tensor(at, requires_grad=True)
    value = loss(given)
    value.backward()
    assert value.item() == pytest.approx(expected(at), rel=1e-6)
    wanted = central_differences(expected, at)
    assert np.abs(given.grad.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()


# --- tests -----------------------------------------------------------------------------------------------------


def test_pdc_is_the_mean_squared_parameter_error(pair: tuple) -> None:
    a, b = pair
    given = torch.tensor(a, requires_grad=True)
    value = losses.pdc(given, torch.tensor(b), torch.tensor(WEIGHTS))
    value.backward()
    assert value.item() == pytest.approx(float(np.mean(WEIGHTS * ((a - b) ** 2).mean(axis=1))))
    np.testing.assert_allclose(given.grad.numpy(), 2 * WEIGHTS[:, None] * (a - b) / (BATCH * 62), atol=1e-12)


def test_vdc_is_the_mean_squared_vertex_distance_without_the_z_offset(
    small_face: FaceModel, whitening: Whitening, geometry: Geometry, pair: tuple, vertices: torch.Tensor
) -> None:
    a, b = pair

    def expected(prediction: np.ndarray) -> float:
        errors = [
            vertex_errors(small_face, whitening, p, t, vertices.numpy()) for p, t in zip(prediction, b, strict=True)
        ]
        return float(np.mean(WEIGHTS * [np.mean(e**2) for e in errors]))

    def loss(prediction: torch.Tensor) -> torch.Tensor:
        errors = losses.vertex_errors(prediction, torch.tensor(b), geometry, vertices)
        return losses.vdc(errors, torch.tensor(WEIGHTS))

    check(loss, expected, a)


def test_wing_of_vertices(
    small_face: FaceModel, whitening: Whitening, geometry: Geometry, pair: tuple, vertices: torch.Tensor
) -> None:
    a, b = pair
    sizes = []

    def expected(prediction: np.ndarray) -> float:
        total = 0.0
        for p, t, weight in zip(prediction, b, WEIGHTS, strict=True):
            errors = vertex_errors(small_face, whitening, p, t, vertices.numpy())
            sizes.append(np.abs(errors))
            total += weight * float(np.mean([wing(x) for x in errors.ravel()]))
        return total / BATCH

    def loss(prediction: torch.Tensor) -> torch.Tensor:
        errors = losses.vertex_errors(prediction, torch.tensor(b), geometry, vertices)
        return losses.vertex_wing(errors, torch.tensor(WEIGHTS))

    # The whole gradient takes 620 evaluations: of one sample with small errors and one with large ones it is enough.
    value = loss(torch.tensor(a))
    assert value.item() == pytest.approx(expected(a), rel=1e-6)
    assert min(s.min() for s in sizes) < 10 < max(s.max() for s in sizes)
    rows = [0, 3]
    given = torch.tensor(a, requires_grad=True)
    loss(given).backward()
    for row in rows:
        for k in range(0, 62, 5):
            up, down = a.copy(), a.copy()
            up[row, k] += 1e-6
            down[row, k] -= 1e-6
            slope = (expected(up) - expected(down)) / 2e-6
            assert float(given.grad[row, k]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_the_z_offset_of_a_prediction_has_no_say_in_vertex_losses(
    geometry: Geometry, pair: tuple, vertices: torch.Tensor
) -> None:
    given = torch.tensor(pair[0], requires_grad=True)
    losses.vdc(
        losses.vertex_errors(given, torch.tensor(pair[1]), geometry, vertices), torch.ones(BATCH).double()
    ).backward()
    assert (given.grad[:, 11] == 0).all() and (given.grad[:, 10] != 0).all()


def test_wpdc_weighs_parameters_by_how_far_their_errors_move_the_face_and_learns_nothing_from_the_weights(
    small_face: FaceModel, whitening: Whitening, geometry: Geometry, pair: tuple
) -> None:
    a, b = pair
    importance = np.stack([wpdc_importance(small_face, whitening, p, t) for p, t in zip(a, b, strict=True)])
    given = torch.tensor(a, requires_grad=True)
    value = losses.wpdc(given, torch.tensor(b), geometry, torch.tensor(WEIGHTS))
    value.backward()
    assert value.item() == pytest.approx(float(np.mean(WEIGHTS * (importance * (a - b) ** 2).mean(axis=1))), rel=1e-5)
    # With the importance held fast, the gradient is this and nothing more.
    wanted = 2 * WEIGHTS[:, None] * importance * (a - b) / (BATCH * 62)
    np.testing.assert_allclose(given.grad.numpy(), wanted, rtol=1e-4, atol=1e-10)
    assert (importance.max(axis=1) == 1).all() and (importance[:, 11] == 0).all()


def test_wpdc_of_a_perfect_answer_is_zero(geometry: Geometry, pair: tuple) -> None:
    given = torch.tensor(pair[1], requires_grad=True)
    value = losses.wpdc(given, torch.tensor(pair[1]), geometry, torch.ones(BATCH).double())
    value.backward()
    assert value.item() == 0 and (given.grad == 0).all()


def test_wpdc_does_not_depend_on_the_unit_of_the_face_model(
    small_face: FaceModel, whitening: Whitening, pair: tuple
) -> None:
    metres = FaceModel(
        name="metres",
        mean=small_face.mean / 1000,
        shape_basis=small_face.shape_basis / 1000,
        expression_basis=small_face.expression_basis / 1000,
        triangles=small_face.triangles,
        landmarks=small_face.landmarks,
        codes=small_face.codes,
        unit=1.0,
    )
    per_unit = np.ones(62, np.float32)
    per_unit[[0, 1, 2, 4, 5, 6, 8, 9, 10]] = 1000
    scaled = Whitening(whitening.mean * per_unit, whitening.std * per_unit)
    a, b = (torch.tensor(x) for x in pair)
    weights = torch.ones(BATCH).double()
    values = [
        float(losses.wpdc(a, b, Geometry(model, w).double(), weights))
        for model, w in ((small_face, whitening), (metres, scaled))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("kind", ["wing", "smooth_l1"])
def test_landmark_loss(kind: str, labelled: tuple) -> None:
    pixels, labels, weights = labelled
    mix = LossMix(landmark_loss=kind, landmark_width=5.0, landmark_curvature=1.5)

    def penalty(x: float) -> float:
        if kind == "wing":
            return wing(x, 5.0, 1.5)
        return x * x / 10 if abs(x) < 5 else abs(x) - 2.5

    def expected(predicted: np.ndarray) -> float:
        total = 0.0
        for i in range(BATCH):
            for k in range(68):
                x, y = predicted[i, k] - labels[i, k]
                total += weights[i, k] * (penalty(x) + penalty(y)) / 2
        return total / (BATCH * 68)

    check(lambda p: losses.landmark_loss(p, torch.tensor(labels), torch.tensor(weights), mix), expected, pixels)


def test_opening_loss_sees_the_vectors_between_lids_and_between_lips(labelled: tuple) -> None:
    pixels, labels, weights = labelled
    pairs = [(37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65)]

    def expected(predicted: np.ndarray) -> float:
        total = 0.0
        for i in range(BATCH):
            for upper, lower in pairs:
                x, y = (predicted[i, upper] - predicted[i, lower]) - (labels[i, upper] - labels[i, lower])
                total += min(weights[i, upper], weights[i, lower]) * (wing(x) + wing(y)) / 2
        return total / (BATCH * len(pairs))

    def loss(predicted: torch.Tensor) -> torch.Tensor:
        return losses.opening_loss(predicted, torch.tensor(labels), torch.tensor(weights), LossMix())

    check(loss, expected, pixels)
    # A face that is moved as a whole is as open as before.
    moved = loss(torch.tensor(labels + [3.0, -2.0]))
    assert float(moved) < 1e-12


def test_points_of_parameters_fall_where_the_pipeline_puts_them(
    small_face: FaceModel, geometry: Geometry, pair: tuple
) -> None:
    parameters = geometry.parameters_of(torch.tensor(pair[1]))
    given = parameters.numpy().astype(np.float32)
    expected = transform(cameras_in_crop(given), small_face.landmark_points(given[:, 12:]))
    assert np.abs(geometry.landmark_pixels(parameters).numpy() - expected[..., :2]).max() < 1e-3
    assert float((geometry.parameters_of(geometry.whiten(parameters)) - parameters).abs().max()) < 1e-12


def test_what_is_not_labelled_may_hold_anything(geometry: Geometry, whitening: Whitening, pair: tuple) -> None:
    """NaN where weights are 0 changes neither the losses nor the gradients of the others."""
    mix = LossMix(pdc=1, vdc=1, wpdc=1, wing=1, landmarks=1, openings=1)
    labels = torch.full((BATCH, 68, 2), 60.0).double()
    weights, certain = torch.ones(BATCH, 68).double(), torch.tensor(WEIGHTS)
    weights[1, 37] = weights[3] = 0
    parameters = geometry.parameters_of(torch.tensor(pair[1]))
    holed, holed_labels = parameters.clone(), labels.clone()
    holed[WEIGHTS == 0] = float("nan")
    holed_labels[weights == 0] = float("nan")
    results = []
    for p, x in ((parameters, labels), (holed, holed_labels)):
        given = torch.tensor(pair[0], requires_grad=True)
        parts = losses.total_loss(given, p, x, weights, certain, geometry, mix, torch.Generator().manual_seed(0))
        parts["loss"].backward()
        results.append((parts, given.grad))
    assert set(results[0][0]) == {"loss", "pdc", "vdc", "wpdc", "wing", "landmarks", "openings"}
    for name, value in results[0][0].items():
        assert value.item() == results[1][0][name].item() > 0
    assert torch.equal(results[0][1], results[1][1]) and bool(results[0][1].isfinite().all())


def test_the_mix_of_radan_is_half_wpdc_and_wing_on_200_vertices(geometry: Geometry, pair: tuple) -> None:
    a, b = (torch.tensor(x) for x in pair)
    nothing = torch.zeros(BATCH, 68, 2).double()
    weights = torch.ones(BATCH).double()
    parts = losses.total_loss(
        a, geometry.parameters_of(b), nothing, nothing[..., 0], weights, geometry, LossMix(),
        torch.Generator().manual_seed(5),
    )  # fmt: skip
    vertices = geometry.draw_vertices(132, torch.Generator().manual_seed(5))
    assert len(vertices) == 200 and torch.equal(vertices[:68], geometry.landmarks)
    errors = losses.vertex_errors(a, b, geometry, vertices)
    expected = 0.5 * losses.wpdc(a, b, geometry, weights) + losses.vertex_wing(errors, weights)
    assert set(parts) == {"loss", "wpdc", "wing"}
    assert parts["loss"].item() == pytest.approx(float(expected), rel=1e-9)


def test_a_face_model_of_other_modes_is_refused(small_face: FaceModel, whitening: Whitening) -> None:
    other = FaceModel(
        name="few",
        mean=small_face.mean,
        shape_basis=small_face.shape_basis[..., :30],
        expression_basis=small_face.expression_basis,
        triangles=small_face.triangles,
        landmarks=small_face.landmarks,
        codes=small_face.codes,
        unit=1e-3,
    )
    with pytest.raises(ValueError, match="few has 40 modes"):
        Geometry(other, whitening)


@pytest.mark.parametrize(
    "changes", [{"wing": -1.0}, {"wing_width": 0.0}, {"wpdc": 0.0, "wing": 0.0}, {"landmarks": float("nan")}]
)
def test_mixes_without_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        LossMix(**changes)


def test_rigidity_is_nothing_for_scaled_rotations_and_grows_with_the_stretch() -> None:
    random = np.random.default_rng(5)
    rotations = np.linalg.qr(random.standard_normal((4, 3, 3)))[0]
    cameras = np.concatenate([random.uniform(1, 900, (4, 1, 1)) * rotations, random.normal(0, 50, (4, 3, 1))], axis=2)
    parameters = np.concatenate([cameras.reshape(4, 12), random.standard_normal((4, 50))], axis=1)
    assert losses.rigidity(torch.tensor(parameters)) < 1e-20
    stretched = parameters.copy()
    stretched[:, 4:8] *= 1.2
    # Rows of lengths 1, 1.2 and 1: their mean square is s^2 = 1.22.
    expected = sum((length / 1.22 - 1) ** 2 for length in (1, 1.44, 1))
    assert np.isclose(losses.rigidity(torch.tensor(stretched)), expected)


def test_the_gradient_of_rigidity_is_that_of_finite_differences() -> None:
    parameters = torch.tensor(np.random.default_rng(6).standard_normal((3, 62)), requires_grad=True)
    assert torch.autograd.gradcheck(losses.rigidity, (parameters,))
