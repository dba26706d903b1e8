"""Training: configuration, batches, the loop with its checkpoints, several processes, interrupts, and what it exports.

The data are renderings of a small face model, so every label is exact.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import multiprocessing
import os
import pickle
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from conftest import frontal_parameters

from radan_ros import Pipeline, open_model
from radan_ros.drawing import draw_mesh
from radan_ros.face_models import FaceModel, write_face_model
from radan_ros.model import read_whitening
from radan_ros.networks import NetworkSpec, load_checkpoint, network_state, open_network, state_shapes
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.pose import HEAD_IN_MODEL, rotation_from_euler
from radan_ros.training.samples import MARGIN, WIDE_SIZE, Samples, read_samples, write_samples

torch = pytest.importorskip("torch", reason="training needs torch")

from radan_ros.tools import mark as mark_program  # noqa: E402
from radan_ros.tools.train import main  # noqa: E402
from radan_ros.training import loop  # noqa: E402
from radan_ros.training.augmentation import AugmentationSettings, inner_crop  # noqa: E402
from radan_ros.training.batches import Batches, open_batches  # noqa: E402
from radan_ros.training.config import Config, Schedule, as_mapping, read_config  # noqa: E402
from radan_ros.training.datasets import project_landmarks  # noqa: E402
from radan_ros.training.evaluation import nme  # noqa: E402
from radan_ros.training.marking import _mixed, learn, mark  # noqa: E402
from radan_ros.training.pictures import prediction_grid  # noqa: E402
from radan_ros.training.preparation import OPENING, read_labelled_pictures  # noqa: E402

TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
ALONE = loop.Process(0, 1, torch.device("cpu"))
CONFIGS = Path(__file__).resolve().parents[1] / "config" / "training"


def rendered(face_model: FaceModel, count: int, seed: int) -> Samples:
    """Crops of the face in random poses, grey on a background of noise, with the true labels."""
    random = np.random.default_rng(seed)
    parameters = np.repeat(frontal_parameters(face_model)[None], count, axis=0)
    angles = random.uniform(-1, 1, (count, 3)) * [1.2, 0.4, 0.3]
    for row, (yaw, pitch, roll) in zip(parameters, angles, strict=True):
        # Camera axes are x right, y down, z forward; the network's frame has y up and z towards the viewer.
        turn = np.diag([1, -1, -1]) @ rotation_from_euler(yaw, pitch, roll) @ HEAD_IN_MODEL.T
        row[:12] = np.column_stack([turn * row[0], row[[3, 7, 11]]]).ravel()
    parameters[:, 12:] = random.normal(size=(count, 50))
    meshes = transform(cameras_in_crop(parameters), face_model.vertices(parameters[:, 12:])) + [MARGIN, MARGIN, 0]
    crops = random.integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    pictures = [
        draw_mesh(cv2.resize(c, (WIDE_SIZE, WIDE_SIZE)), mesh, face_model.triangles, opacity=1.0)
        for c, mesh in zip(crops, meshes, strict=True)
    ]
    return Samples(
        np.stack(pictures),
        parameters,
        project_landmarks(parameters, face_model),
        np.ones((count, 68), np.float32),
        np.ones(count, np.float32),
        np.array([f"face {i}" for i in range(count)]),
    )


@pytest.fixture(scope="module")
def data(small_face: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with face_model.npz and the samples train/ and val/."""
    folder = tmp_path_factory.mktemp("training")
    write_face_model(folder / "face_model.npz", small_face)
    write_samples(folder / "train", rendered(small_face, 24, 0), small_face)
    write_samples(folder / "val", rendered(small_face, 9, 1), small_face)
    config = config_of(folder, settings(folder, folder, tile_swaps=False))
    whitening = loop.measure_whitening(open_batches(config, small_face), 100)
    np.savez(folder / "whitening.npz", mean=whitening.mean, std=whitening.std)
    return folder


# Every augmentation off; the crops as they are.
PLAIN: dict[str, Any] = {"jitter_boxes": False, "rotation_std": 0.0} | {
    f"{name}_share": 0.0
    for name in "large_rotation mirror light occlusion colour grey blur low_resolution noise jpeg".split()
}


def settings(data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """A short training on the small data, in one thread so that its arithmetic is the same each time."""
    return {
        "output": str(output),
        "network": {"name": "mobilenet_v1", "width": 0.25},
        "face_model": str(data / "face_model.npz"),
        "train": [{"samples": str(data / "train")}],
        "validation": {"sets": {"val": str(data / "val")}, "interval": 4, "pictures": 3},
        "augmentation": {"mirror_share": 0.0},  # the small face is not symmetric
        "losses": {"wpdc": 0.5, "wing": 1.0, "landmarks": 0.5, "openings": 0.2},
        "optimiser": {"kind": "adamw", "rate": 2e-3, "weight_decay": 0.01, "decay_norms": False},
        "schedule": {"kind": "cosine", "warm_up": 2},
        "max_steps": 4,
        "batch": 6,
        "ema": 0.9,
        "whitening": str(data / "whitening.npz"),
        "workers": 0,
        "threads": 1,
        "device": "cpu",
        **changes,
    }


def config_of(folder: Path, content: dict[str, Any], *overrides: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_config(path, overrides)


def weights(path: Path) -> dict[str, np.ndarray]:
    return load_checkpoint(path).state


def metrics(folder: Path, group: str, name: str) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(int(r["step"]), float(r["value"])) for r in rows if r["set"] == group and r["name"] == name]


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_configuration_survives_writing_and_reading(data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, settings(data, tmp_path / "out"))
    assert config_of(tmp_path, as_mapping(config)) == config
    assert config.network == NetworkSpec("mobilenet_v1", 0.25) and config.optimiser.rate == 2e-3


def test_overrides_go_into_sections_and_lists(data: Path, tmp_path: Path) -> None:
    config = config_of(
        tmp_path, settings(data, tmp_path), "optimiser.rate=1e-5", "train.0.share=3", "network.width=0.5",
        "augmentation.noise_share=0", "max_steps=null", "epochs=2",
    )  # fmt: skip
    assert (config.optimiser.rate, config.train[0].share, config.network.width) == (1e-5, 3.0, 0.5)
    assert config.augmentation == AugmentationSettings(mirror_share=0.0, noise_share=0.0)
    assert config.epochs == 2 and config.max_steps is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batsch=3", "batsch: unknown"),
        ("optimiser.speed=3", "optimiser.speed: unknown"),
        ("batch=many", "batch: 'many' is not a whole number"),
        ("batch=true", "batch: True is not a whole number"),
        ("batch=1", "batch: 1 is not at least 2"),
        ("batch=2.5", "batch: 2.5 is not a whole number"),
        ("optimiser.rate=-1", "optimiser.rate: -1.0 is not more than 0"),
        ("optimiser.rate=.nan", "optimiser.rate: nan is not finite"),
        ("optimiser.kind=adam", "optimiser.kind: 'adam' is none of sgd, adamw"),
        ("precision=fp8", "precision: 'fp8' is none of"),
        ("network.width=0.3", "network.mobilenet_v1: width 0.3"),
        ("network={name: foo}", "network.name: 'foo' is unknown ("),
        ("network=3", "network: 3 is not a list of key: value"),
        ("losses.wing=-1", "losses.wing: -1.0 is not 0 or more"),
        ("train=[]", "train: there is nothing"),
        ("train.0.list=a", "train.0: exactly one of samples, list and synthetic"),
        ("train.4.share=1", "train is a list of 1"),
        ("train.0={list: a, crops: b}", "train.0.parameters: is missing beside list"),
        ("train.0.share=0", "train.0.share: 0.0 is not more than 0"),
        ("schedule.epochs=[3, 2]", "schedule.epochs:"),
        ("epochs=3", "exactly one of epochs and max_steps"),
        ("ema=1", "ema: 1.0 is not less than 1"),
        ("tile_swaps=1", "tile_swaps: 1 is not true or false"),
        ("output=3", "output: 3 is not text"),
        ("output", "is not key=value"),
        ("train=[{synthetic: {}}]", "epoch_crops: is needed"),
    ],
)
def test_wrong_entries_are_named(override: str, message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        config_of(tmp_path, settings(data, tmp_path), override)
    assert message in str(caught.value)
    assert "config.yaml" in str(caught.value) or override in str(caught.value)


def test_missing_entries_and_files_that_are_no_configuration_are_named(tmp_path: Path) -> None:
    for text, message in (("output: x\n", "train: is missing"), ("- 3\n", "not a list"), ("a: [", "not a YAML file")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_config(tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match=r"none\.yaml: no such configuration file"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="a folder, not a configuration file"):
        read_config(tmp_path)


def test_rates_follow_the_schedules() -> None:
    radan = Schedule()  # times 0.2 after the epochs 15, 25 and 30
    rates = [radan.rate(step, 400, 10) for step in (0, 149, 150, 249, 250, 300, 399)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.008, 0.008])
    cosine = Schedule(kind="cosine", warm_up=10, final=0.1)
    rates = [cosine.rate(step, 110, 1) for step in range(111)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize(
    "name", ["radan", "radan_mobile", "radan_mobile_fine", "radan_mobile_clean1", "radan_mobile_clean2", "smoke"]
)
def test_the_configurations_of_the_repository_are_read(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    assert config.network.name == ("radan" if name == "radan" else "radan_mobile")
    if name == "radan":
        assert (config.batch, config.epochs, config.tile_swaps, config.precision) == (128, 40, True, "fp32")
        assert (config.losses.wpdc, config.losses.wing, config.losses.landmarks) == (0.5, 1.0, 0.0)
    if "mobile" in name:
        assert config.export == "last"  # nothing is chosen on the photographs that the model is judged on


def test_the_stages_of_the_clean_chain_follow_on_each_other_and_never_see_the_teacher() -> None:
    first, second = (read_config(CONFIGS / f"radan_mobile_clean{stage}.yaml") for stage in (1, 2))
    assert second.init == f"{first.output}/last.pth"
    assert {Path(str(s.samples)).name for s in first.train} == {"synthetic", "synthetic_more"}
    assert {Path(str(s.samples)).name for s in second.train} == {"synthetic", "synthetic_more", "congress_clean"}


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_doubled_by_its_copy_with_tiles_swapped(data: Path, small_face: FaceModel, tmp_path: Path) -> None:
    config = config_of(tmp_path, settings(data, tmp_path))
    batch = open_batches(config, small_face)[3]
    crops = batch["crops"].numpy()
    assert crops.shape == (12, 120, 120, 3) and crops.dtype == np.uint8
    changed = (crops[:6] != crops[6:]).any(axis=-1).reshape(6, 4, 30, 4, 30).any(axis=(2, 4)).sum(axis=(1, 2))
    assert ((changed >= 2) & (changed <= 5)).all()
    for name in ("parameters", "landmarks", "landmark_weights", "parameter_weights"):
        assert torch.equal(batch[name][:6], batch[name][6:])


def test_processes_share_each_batch_and_every_epoch_has_each_crop_once(
    data: Path, small_face: FaceModel, tmp_path: Path
) -> None:
    config = config_of(
        tmp_path, settings(data, tmp_path), "tile_swaps=false",
        "augmentation={jitter_boxes: false, rotation_std: 0, large_rotation_share: 0, mirror_share: 0}",
    )  # fmt: skip
    whole = open_batches(config, small_face)
    halves = [open_batches(config, small_face, process, 2) for process in (0, 1)]
    labels = read_samples(data / "train").landmarks
    for epoch in (0, 1):
        seen = []
        for step in range(4 * epoch, 4 * epoch + 4):
            given = whole[step]["landmarks"].numpy()
            parts = np.concatenate([half[step]["landmarks"].numpy() for half in halves])
            assert np.array_equal(np.sort(given.ravel()), np.sort(parts.ravel()))
            seen.append(given)
        order = [int(np.abs(labels - row).mean(axis=(1, 2)).argmin()) for row in np.concatenate(seen)]
        assert sorted(order) == list(range(24))
    with pytest.raises(ValueError, match="6 crops cannot be parted equally over 4 processes"):
        open_batches(config, small_face, 0, 4)


def test_whitening_is_mean_and_deviation_of_the_crops_trained_on(
    data: Path, small_face: FaceModel, tmp_path: Path
) -> None:
    whitening = read_whitening(data / "whitening.npz")
    batches = open_batches(config_of(tmp_path, settings(data, tmp_path)), small_face)
    values = np.concatenate([batches[step]["parameters"].numpy() for step in range(500, 600)])
    whitened = (values - whitening.mean) / whitening.std
    varied = np.arange(62) != 11  # nothing moves the third offset here
    assert whitening.std[11] == 1
    assert np.abs(whitened[:, varied].mean(axis=0)).max() < 0.15
    assert np.abs(whitened[:, varied].std(axis=0) - 1).max() < 0.15


def test_that_nothing_can_be_mirrored_is_said_once(
    data: Path, small_face: FaceModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, settings(data, tmp_path), "augmentation.mirror_share=0.5")
    for process in (0, 1):
        open_batches(config, small_face, process, 2)
    open_batches(replace(config, augmentation=AugmentationSettings(mirror_share=0.0)), small_face)
    said = capsys.readouterr().err
    assert said.count("nothing is mirrored") == 1 and said.count("half_ellipsoid is not mirror symmetric") == 1


# --- the loop --------------------------------------------------------------------------------------------------------


def test_training_lowers_loss_and_error_and_exports_a_model_that_opens(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    content = settings(data, output, augmentation=PLAIN, max_steps=60, tile_swaps=False)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert main([str(tmp_path / "config.yaml"), "--set", "validation.interval=30", "--set", "optimiser.rate=1e-2"]) == 0
    losses = [value for _, value in metrics(output, "train", "loss")]
    errors = [value for _, value in metrics(output, "val", "mean")]
    assert losses[-1] < 0.75 * losses[0] and len(errors) == 2
    assert {"yaw 0-30", "yaw 30-60", "median"} <= {
        row["name"] for row in csv.DictReader((output / "metrics.csv").open()) if row["set"] == "val"
    }
    picture = cv2.imread(str(output / "pictures" / "val_0000060.jpg"))
    assert picture.shape == (240, 4 * 480, 3)
    if TENSORBOARD:
        assert len(list((output / "tensorboard").iterdir())) == 1

    model = open_model(output / "model", device="cpu")
    assert model.name == "mobilenet_v1"
    seen = loop.seen_by_detector(read_samples(data / "val"))
    exported = model.whitening.undo(model.network(seen.crops))
    network = loop.torch_module(*network_state(load_checkpoint(output / "best.pth"))).eval()
    expected = loop.predict(network, seen.crops, read_whitening(output / "whitening.npz"), torch.device("cpu"))
    a, b = (project_landmarks(p, model.face_model) for p in (exported, expected))
    assert np.abs(a - b).max() < 0.2  # pixels; half precision
    assert loop.measure(expected, seen, model.face_model)["mean"] == pytest.approx(min(errors), rel=1e-3)
    crop = np.ascontiguousarray(read_samples(data / "val").crops[0, MARGIN:-MARGIN, MARGIN:-MARGIN])
    assert len(Pipeline(model).regress(crop, [[0, 0, 120, 120]])) == 1
    graph = loop.export_model(output, tmp_path / "graph", graph=True)
    same = open_model(graph, device="cpu").network(seen.crops)
    assert np.abs(same - open_network(output / "best.pth", device="cpu")(seen.crops)).max() < 1e-4


# Interrupted between two validations, and where one is due.
@pytest.mark.parametrize(("kind", "interval"), [("sgd", 4), ("adamw", 2)])
def test_a_resumed_training_ends_as_one_that_was_never_interrupted(
    kind: str, interval: int, data: Path, tmp_path: Path
) -> None:
    sets = {"sets": {"val": str(data / "val")}, "interval": interval, "pictures": 0}
    whole, parted = (settings(data, tmp_path / name, workers=1, validation=sets) for name in ("whole", "parted"))
    for content in (whole, parted):
        content["optimiser"] |= {"kind": kind}
    assert loop.train(config_of(tmp_path, whole))
    first = config_of(tmp_path, parted)
    interrupt_after(first, 2)
    assert loop.train(first, resume=True)
    straight, resumed = (weights(tmp_path / name / "last.pth") for name in ("whole", "parted"))
    assert list(straight) == list(resumed)
    for name, value in straight.items():
        assert np.array_equal(value, resumed[name]), name
    a, b = (torch.load(tmp_path / n / "last.pth", weights_only=True)["training"] for n in ("whole", "parted"))
    assert a["step"] == b["step"] == 4 and a["best"] == b["best"]
    for name, value in a["weights"].items():
        assert torch.equal(value, b["weights"][name]), name
    assert metrics(tmp_path / "whole", "val", "mean") == metrics(tmp_path / "parted", "val", "mean")
    assert len(metrics(tmp_path / "whole", "val", "mean")) == 4 // interval


def interrupt_after(config: Config, steps: int) -> None:
    """Train until a step is done in which Ctrl-C came."""

    class Interrupted(loop.Training):
        def _train_step(self, batch: Any, stop: bool) -> Any:
            if self.step == steps - 1:
                signal.raise_signal(signal.SIGINT)
                stop = True
            return super()._train_step(batch, stop)

    assert not Interrupted(config, ALONE).run()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    states = []
    for name, seed, workers in (("a", 1, 0), ("b", 1, 2), ("c", 2, 0)):
        content = settings(data, tmp_path / name, seed=seed, workers=workers, max_steps=2)
        assert loop.train(config_of(tmp_path, content))
        states.append(weights(tmp_path / name / "last.pth"))
    assert all(np.array_equal(value, states[1][name]) for name, value in states[0].items())
    assert not np.array_equal(states[0]["fc.weight"], states[2]["fc.weight"])


def test_the_running_mean_of_the_weights_is_what_is_kept(data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, settings(data, tmp_path / "out", max_steps=3))
    seen = []

    class Watched(loop.Training):
        def _average(self) -> None:
            super()._average()
            seen.append(self.network.fc.weight.detach().numpy().copy())

    training = Watched(config, ALONE)
    mean = training.network.fc.weight.detach().numpy().copy()
    assert training.run()
    for step, value in enumerate(seen):
        keep = min(0.9, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * value
    np.testing.assert_allclose(weights(tmp_path / "out" / "last.pth")["fc.weight"], mean, atol=1e-6)


def test_a_training_starts_from_a_checkpoint_and_its_whitening(data: Path, tmp_path: Path) -> None:
    assert loop.train(config_of(tmp_path, settings(data, tmp_path / "first", max_steps=1)))
    start = tmp_path / "first" / "last.pth"
    config = config_of(tmp_path, settings(data, tmp_path / "second", init=str(start), seed=9))
    training = loop.Training(config, ALONE)
    for name, value in weights(start).items():
        assert np.array_equal(value, training.network.state_dict()[name].numpy())
    assert np.array_equal(training.whitening.std, read_whitening(tmp_path / "first" / "whitening.npz").std)
    other = settings(data, tmp_path / "third", init=str(start), network={"name": "mobilenet_v1", "width": 0.5})
    with pytest.raises(ValueError, match="mobilenet_v1 x0.25, not a mobilenet_v1 x0.5"):
        loop.train(config_of(tmp_path, other))


def test_a_head_for_presence_is_left_out_of_a_training(data: Path, tmp_path: Path) -> None:
    mobile = NetworkSpec("radan_mobile")
    shapes = state_shapes(mobile, presence=True)
    start = {name: torch.zeros(shape, dtype=torch.int64 if not shape else None) for name, shape in shapes.items()}
    torch.save(start, tmp_path / "start.pth")
    content = settings(data, tmp_path / "out", init=str(tmp_path / "start.pth"), network={"name": "radan_mobile"})
    training = loop.Training(config_of(tmp_path, content), ALONE)
    assert list(training.network.state_dict()) == list(state_shapes(mobile))


def test_bfloat16_trains_too(data: Path, tmp_path: Path) -> None:
    content = settings(
        data, tmp_path / "out", precision="bf16", max_steps=20, augmentation=PLAIN, validation={"interval": 10}
    )
    assert loop.train(config_of(tmp_path, content))
    losses = [value for _, value in metrics(tmp_path / "out", "train", "loss")]
    assert losses[-1] < losses[0] and not (tmp_path / "out" / "best.pth").exists()
    assert weights(tmp_path / "out" / "last.pth")["fc.weight"].dtype == np.float32


def test_a_step_without_a_finite_loss_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = []

    class Spoilt(loop.Training):
        def _train_step(self, batch: Any, stop: bool) -> Any:
            if self.step == 2:
                batch["landmarks"][0, 0] = math.inf
            answer = super()._train_step(batch, stop)
            states.append(self.network.fc.weight.detach().clone())
            return answer

    assert Spoilt(config_of(tmp_path, settings(data, tmp_path / "out")), ALONE).run()
    assert capsys.readouterr().err.count("step 2 is left out") == 1
    assert [bool((a != b).any()) for a, b in zip(states, states[1:], strict=False)] == [True, False, True]
    assert all(np.isfinite(value).all() for value in weights(tmp_path / "out" / "last.pth").values())


def test_a_training_that_diverges_ends_and_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(data, tmp_path / "out", max_steps=40)))
    # Weights of 1e30 and more
    assert main([str(tmp_path / "c.yaml"), "--set", "optimiser={kind: sgd, rate: 1e+30}"]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert "diverged" in said[-1] and "optimiser.rate" in said[-1]


def test_a_training_that_diverges_leaves_a_checkpoint_that_it_can_go_on_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Spoilt(loop.Training):
        def _train_step(self, batch: Any, stop: bool) -> Any:
            answer = super()._train_step(batch, stop)
            if self.step == 2:  # a loss that is finite, of weights that are not any more
                self.network.fc.weight.data[0] = math.nan
            return answer

    content = settings(data, tmp_path / "out", max_steps=3, validation={"interval": 1}, ema=0.0)
    with pytest.raises(ValueError, match="step 3: a weight is not finite: the training diverged; .*last.pth is from"):
        Spoilt(config_of(tmp_path, content), ALONE).run()
    assert torch.load(tmp_path / "out" / "last.pth", weights_only=True)["training"]["step"] == 2
    assert loop.train(config_of(tmp_path, content), resume=True)


def test_a_training_of_which_no_step_counted_makes_no_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    never = loop.total_loss

    def infinite(*arguments: Any, **options: Any) -> Any:
        return {name: value * math.inf for name, value in never(*arguments, **options).items()}

    monkeypatch.setattr(loop, "total_loss", infinite)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(data, tmp_path / "out")))
    assert main([str(tmp_path / "c.yaml")]) == 1
    assert "no step of 4 had a finite loss" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / "model").exists() and not (tmp_path / "out" / "last.pth").exists()


def test_full_radan_trains_and_its_checkpoint_has_the_authors_names(
    small_face: FaceModel, data: Path, tmp_path: Path
) -> None:
    content = settings(data, tmp_path / "out", network={"name": "radan"}, batch=2, max_steps=4, ema=0.0, seed=1)
    content["tile_swaps"] = False
    content["train"] = [{"samples": str(tmp_path / "two")}]
    content |= {"validation": {}, "losses": {}, "optimiser": {"kind": "sgd", "rate": 5e-4}, "threads": 2}
    content["schedule"] = {"kind": "steps"}
    content["augmentation"] = PLAIN
    write_samples(tmp_path / "two", read_samples(data / "train").take(slice(0, 2)), small_face)
    losses = []

    class Watched(loop.Training):
        def _train_step(self, batch: Any, stop: bool) -> Any:
            values, stop = super()._train_step(batch, stop)
            losses.append(values["loss"])
            return values, stop

    assert Watched(config_of(tmp_path, content), ALONE).run()
    assert losses[-1] < 0.95 * losses[0]
    file = torch.load(tmp_path / "out" / "last.pth", weights_only=True)
    assert list(file["state_dict"]) == [f"module.{name}" for name in state_shapes(NetworkSpec("radan"))]
    network = open_network(tmp_path / "out" / "last.pth", device="cpu")
    assert network.name == "radan"
    assert np.isfinite(network(np.zeros((1, 120, 120, 3), np.uint8))).all()


# --- as a program ---------------------------------------------------------------------------------------------------


def program(*arguments: str | Path, processes: int = 1) -> subprocess.Popen[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return subprocess.Popen(
        [*start, "radan_ros.tools.train", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_two_processes_train_one_network_and_one_of_them_writes(data: Path, tmp_path: Path) -> None:
    content = settings(data, tmp_path / "out", max_steps=30, augmentation=PLAIN, validation={"interval": 15})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    both = program(tmp_path / "c.yaml", processes=2)
    out, err = both.communicate(timeout=300)
    assert both.returncode == 0, err
    losses = [value for _, value in metrics(tmp_path / "out", "train", "loss")]
    assert [step for step, _ in metrics(tmp_path / "out", "train", "loss")] == [15, 20, 30]
    assert losses[-1] < 0.98 * losses[0]
    assert out.count("the trained model") == 1
    if TENSORBOARD:
        assert len(list((tmp_path / "out" / "tensorboard").iterdir())) == 1


def test_ctrl_c_saves_says_how_to_go_on_and_resume_goes_on(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    content = settings(data, output, max_steps=2000, workers=2, validation={"interval": 10})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    running = program(tmp_path / "c.yaml")
    deadline = time.monotonic() + 120
    while not (output / "last.pth").is_file() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in err, err
    again = shlex.split(err.splitlines()[-1].partition("go on with: ")[2])
    assert again == ["radan-train", "--resume", str(output / "config.yaml")]
    step = torch.load(output / "last.pth", weights_only=True)["training"]["step"]
    assert 10 <= step < 2000
    assert main([*again[1:], "--set", f"max_steps={step + 2}"]) == 0
    assert torch.load(output / "last.pth", weights_only=True)["training"]["step"] == step + 2


def test_ctrl_c_before_the_first_step_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(data, tmp_path / "out", whitening=None)))
    # As a shell that starts the tests in the background leaves it, Ctrl-C is ignored: ask for Python's own handler.
    monkeypatch.setattr(loop, "measure_whitening", lambda *_: signal.default_int_handler(signal.SIGINT, None))
    assert main([str(tmp_path / "c.yaml")]) == 130
    assert capsys.readouterr().err.splitlines() == ["measuring the whitening ...", "interrupted before the first step"]


def test_more_workers_than_processors_are_taken_without_a_warning(
    data: Path, small_face: FaceModel, tmp_path: Path
) -> None:
    batches = open_batches(config_of(tmp_path, settings(data, tmp_path)), small_face)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="This DataLoader will create")
        assert len(list(loop.loader(batches, 0, 1, len(os.sched_getaffinity(0)) + 1))) == 1


def test_a_time_limit_ends_a_training_as_an_interrupt_does(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = settings(data, tmp_path / "out", max_steps=10000, time_limit_minutes=0.01)
    assert not loop.train(config_of(tmp_path, content))
    assert "time is up after step" in capsys.readouterr().err and (tmp_path / "out" / "last.pth").is_file()


def test_the_model_is_the_best_or_the_last_as_configured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = settings(data, tmp_path, max_steps=2, validation={"sets": {"val": str(data / "val")}, "interval": 1})
    config_of(tmp_path, content)
    monkeypatch.chdir(tmp_path)  # a folder may be called 2024, too
    assert main(["config.yaml", "--output", "2024", "--set", "optimiser.rate=3e-2", "--set", "name='a: 1'"]) == 0
    assert open_model(tmp_path / "2024" / "model", device="cpu").name == "a: 1"
    best, last = (weights(tmp_path / "2024" / f"{name}.pth")["fc.bias"] for name in ("best", "last"))
    (tmp_path / "2024" / "best.pth").write_bytes((tmp_path / "2024" / "last.pth").read_bytes())
    assert np.array_equal(weights(tmp_path / "2024" / "model" / "network.pth")["fc.bias"], best)
    changed = torch.load(tmp_path / "2024" / "last.pth", weights_only=True)
    changed["state_dict"]["module.fc.bias"] += 1
    torch.save(changed, tmp_path / "2024" / "last.pth")
    for export, expected in (("best", last), ("last", last + 1)):
        (tmp_path / "2024" / "config.yaml").write_text(yaml.safe_dump(content | {"export": export}))
        loop.export_model(tmp_path / "2024", tmp_path / export)
        assert np.array_equal(weights(tmp_path / export / "network.pth")["fc.bias"], expected)


def test_what_is_another_when_resuming_is_said_and_holds(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = settings(data, tmp_path / "out", max_steps=1, validation={})
    assert loop.train(config_of(tmp_path, content))
    assert loop.train(config_of(tmp_path, content), resume=True)
    assert "goes on with" not in capsys.readouterr().err
    changed = config_of(tmp_path, content, "max_steps=2", "optimiser.weight_decay=0.5", "optimiser.momentum=0.8")
    training = loop.Training(changed, ALONE, resume=True)
    assert "goes on with another optimiser, max_steps than before" in capsys.readouterr().err
    first, norms = training.optimiser.param_groups
    assert (first["weight_decay"], norms["weight_decay"], first["betas"][0]) == (0.5, 0.0, 0.8)
    assert len(training.optimiser.state) == len(list(training.network.parameters()))
    training.step = 2
    training._write(loop.LAST)
    with pytest.raises(ValueError, match=r"last.pth: is at step 2 already, and 1 are configured.*out/config.yaml"):
        loop.Training(replace(changed, max_steps=1), ALONE, resume=True)
    assert read_config(tmp_path / "out" / "config.yaml") == changed
    with pytest.raises(ValueError, match="last.pth: was trained with another optimiser.decay_norms"):
        loop.Training(config_of(tmp_path, content, "max_steps=2", "optimiser.decay_norms=true"), ALONE, resume=True)


def test_a_full_disk_is_said_in_one_line_and_costs_no_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings(data, tmp_path / "out", max_steps=1, validation={})))
    assert main([str(path)]) == 0
    before = (tmp_path / "out" / "last.pth").read_bytes()
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes; no file can be larger
    try:
        assert main([str(path), "--resume", "--set", "max_steps=2"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("radan-train: ") and "last.pth: cannot be written" in said[-1]
    assert len(said) == 2 and "goes on with another max_steps" in said[0]
    assert (tmp_path / "out" / "last.pth").read_bytes() == before
    assert not list((tmp_path / "out").glob(".last*"))


def test_a_worker_that_dies_ends_the_training_with_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill_one() -> None:
        while not (workers := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(int(workers[0].pid or 0), signal.SIGKILL)  # as the kernel does where memory is short

    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings(data, tmp_path / "out", workers=1, max_steps=100_000, validation={})))
    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert main([str(path)]) == 1
    killer.join()
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("radan-train: workers: DataLoader worker") and "fewer" in said[0]


DAMAGES = (
    "another size", "cut off", "labels cut off", "not pixels", "a point", "nothing", "not finite", "no landmarks",
    "another face",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_samples_are_named_in_one_line(
    damage: str, small_face: FaceModel, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = tmp_path / "bad", read_samples(data / "train")
    made_for = replace(small_face, mean=2 * small_face.mean) if damage == "another face" else small_face
    write_samples(bad, good.take(slice(0, 0)) if damage == "nothing" else good, made_for)
    if damage == "another size":
        np.save(bad / "crops.npy", good.crops[:, :160, :160])
    elif damage == "cut off":
        os.truncate(bad / "crops.npy", 1_000_000)
    elif damage == "labels cut off":
        os.truncate(bad / "labels.npz", 5_000)
    elif damage == "not pixels":
        np.save(bad / "crops.npy", good.crops / np.float32(255))
    elif damage == "a point":
        flat = replace(good, landmarks=good.landmarks * (np.arange(24) != 7)[:, None, None])
        write_samples(bad, flat, small_face)
    elif damage in ("not finite", "no landmarks"):
        with np.load(bad / "labels.npz") as file:
            labels = dict(file)
        labels["landmarks"][5, 3] = np.nan
        np.savez(
            bad / "labels.npz",
            **{name: a for name, a in labels.items() if damage == "not finite" or name != "landmarks"},
        )
    for entry in ("train.0.samples", "validation.sets.val"):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(data, tmp_path / "out")))
        assert main([str(tmp_path / "c.yaml"), "--set", f"{entry}={bad}"]) == 1
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and said[0].startswith(f"radan-train: {bad}"), said
    assert damage != "a point" or "face 7" in said[0]
    assert damage != "not finite" or "landmarks is not finite, of sample 5" in said[0]
    assert damage != "no landmarks" or said[0].endswith("labels.npz: has no landmarks")
    assert damage != "another face" or "prepared for another face model than" in said[0]
    assert damage != "nothing" or "no samples in it" in said[0]
    if damage.endswith("cut off"):
        name = "labels.npz" if damage.startswith("labels") else "crops.npy"
        assert said[0] == f"radan-train: {bad / name}: damaged or incomplete: prepare it again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["output=/dev/null/out"], "/dev/null/out"),
        (["output=OUT", "train.0.samples=/nowhere"], "/nowhere/crops.npy is missing"),
        (["face_model=/nowhere.npz"], "/nowhere.npz: no such face model (builtin"),
        (["face_model=/nowhere.pkl"], "/nowhere.pkl: no such face model"),
        (["face_model=/dev/null"], "/dev/null: no such face model"),
        (["validation.sets={val: /nowhere}"], "/nowhere/crops.npy is missing"),
        (["augmentation={nosie_share: 1}"], "c.yaml: augmentation.nosie_share: unknown; known here: jitter_boxes"),
        (["train.0={synthetic: {yaww: 1}}", "epoch_crops=60"], "c.yaml: train.0.synthetic.yaww: unknown"),
        (["train.0={}"], "c.yaml: train.0: exactly one of samples, list and synthetic is needed"),
        (["network={name: radan, width: 0.5}"], "c.yaml: network: radan has no width multiplier"),
        (["output="], "c.yaml: output:"),
        (["output=' '"], "output: is empty"),
        (["="], "--set =: is not key=value"),
        (["augmentation={noise_share: 2}"], "augmentation.noise_share: 2.0 is not a number from 0 to 1"),
        (["train.0={list: /nowhere, parameters: a, crops: b}"], "/nowhere"),
        (["init=/nowhere.pth"], "/nowhere.pth"),
        (["batch=100"], "batch: 100"),
        (["precision=fp16"], "precision: fp16 is for CUDA"),
        (["device=cuda"], "device: torch finds no CUDA device"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    changes: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if changes == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(data, tmp_path / "out")))
    options = [word for change in changes for word in ("--set", change.replace("OUT", str(tmp_path / "out")))]
    assert main([str(tmp_path / "c.yaml"), *options]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("radan-train: ") and message in said[0]


def threeddfa(data: Path, folder: Path, count: int) -> dict[str, str]:
    """3DDFA's training format with so many pictures listed; their folder is empty."""
    (folder / "list.txt").write_text("".join(f"a/{i}.jpg\n" for i in range(count)))
    with (folder / "parameters.pkl").open("wb") as file:
        pickle.dump(read_samples(data / "train").parameters[:count], file)
    (folder / "crops" / "a").mkdir(parents=True)
    source = {"list": "list.txt", "parameters": "parameters.pkl", "crops": "crops"}
    return {key: str(folder / name) for key, name in source.items()}


def test_a_picture_that_a_worker_cannot_read_is_named_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = threeddfa(data, tmp_path, 8)
    for i in range(8):
        (tmp_path / "crops" / "a" / f"{i}.jpg").touch()
    content = settings(data, tmp_path / "out", train=[source], workers=1)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    assert main([str(tmp_path / "c.yaml")]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith(f"radan-train: {tmp_path / 'crops'}/") and "cannot be read" in said[0]
    assert not multiprocessing.active_children()  # ended at once, not when somebody collects the garbage


@pytest.mark.parametrize("count", [0, 8])
def test_a_list_without_its_pictures_is_refused_before_the_training(
    count: int, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = threeddfa(data, tmp_path, count)
    for i in range(count - 2):
        (tmp_path / "crops" / "a" / f"{i}.jpg").touch()
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(data, tmp_path / "out", train=[source])))
    assert main([str(tmp_path / "c.yaml")]) == 1
    wrong = f"2 of 8 pictures are not in {tmp_path / 'crops'}: a/6.jpg" if count else "lists no pictures"
    assert capsys.readouterr().err == f"radan-train: {tmp_path / 'list.txt'}: {wrong}\n"


def test_an_earlier_training_is_not_written_over_and_another_is_not_resumed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings(data, tmp_path / "out", max_steps=1, validation={})))
    assert main([str(path), "--resume"]) == 1
    assert main([str(path)]) == 0
    assert main([str(path)]) == 1
    assert main([str(path), "--resume", "--set", "network.width=0.5"]) == 1
    (tmp_path / "out" / "last.pth").write_bytes(b"not a checkpoint")
    assert main([str(path), "--resume"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("radan-train: ")]
    expected = ("nothing to resume", "a training is there already", "trained with network", "not a checkpoint")
    assert len(said) == 4 and all(message in line for message, line in zip(expected, said, strict=True))


def test_without_tensorboard_curves_are_written_all_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where it is not installed
    assert loop.train(config_of(tmp_path, settings(data, tmp_path / "out")))
    assert "no TensorBoard" in capsys.readouterr().err
    assert len(metrics(tmp_path / "out", "train", "loss")) == 1 and not (tmp_path / "out" / "tensorboard").exists()


# --- pictures -----------------------------------------------------------------------------------------------------


def test_pictures_show_given_and_predicted_landmarks_where_they_are(small_face: FaceModel) -> None:
    parameters = frontal_parameters(small_face)[None]
    landmarks = project_landmarks(parameters, small_face)
    black = np.zeros((1, 120, 120, 3), np.uint8)
    picture = prediction_grid(black, landmarks, parameters, small_face, columns=1)
    assert picture.shape == (240, 480, 3)
    for side in (picture[:, :240], picture[:, 240:]):
        for x, y in landmarks[0] * 2 + 0.5:
            assert side[round(float(y)), round(float(x))].max() > 100
    grid = prediction_grid(
        np.repeat(black, 5, axis=0), np.repeat(landmarks, 5, axis=0), np.repeat(parameters, 5, axis=0), small_face
    )
    assert grid.shape == (480, 1920, 3) and (grid[240:, 480:] == 0).all()
    assert math.isclose(float(np.abs(grid[:240, :480].astype(int) - picture).max()), 0)


# --- the network that marks points -----------------------------------------------------------------------------------


def test_the_marking_network_learns_and_the_same_seed_gives_the_same_one(data: Path) -> None:
    train, val = read_samples(data / "train"), read_samples(data / "val")
    crops = np.stack([inner_crop(crop) for crop in val.crops])
    first, last, again = (learn([train], [train], steps, batch=12, workers=0) for steps in (1, 40, 1))
    before, after, repeated = (mark(network, crops) for network in (first, last, again))
    assert np.array_equal(before, repeated)
    assert nme(after, val.landmarks).mean() < 0.6 * nme(before, val.landmarks).mean()


def test_a_batch_of_the_marking_network_has_no_lids_of_a_teacher(data: Path) -> None:
    train = read_samples(data / "train")
    for marked, taught, lids in (([train], [], 1.0), ([], [train], 0.0)):
        batch = Batches(_mixed(marked, taught, 12, 0), 12, tile_swaps=False)[0]
        weights = batch["landmark_weights"].numpy()
        assert (weights[:, OPENING] == lids).all() and (np.delete(weights, OPENING, 1) == 1).all()


def test_radan_mark_writes_labels_that_radan_prepare_reads(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = read_samples(data / "val")
    (tmp_path / "taught" / "images").mkdir(parents=True)
    names = np.array([f"{i}.png" for i in range(len(val))])
    for name, crop in zip(names, val.crops, strict=True):
        cv2.imwrite(str(tmp_path / "taught" / "images" / name), crop)
    points = np.dstack([val.landmarks + MARGIN, np.zeros((len(val), 68, 1))])
    np.savez(tmp_path / "taught" / "labels.npz", names=names, teacher_landmarks68_3d=points)
    arguments = [tmp_path / "taught", "--learn", data / "train", "--out", tmp_path / "out", "--steps", 2, "--batch", 6]
    assert mark_program.main([*map(str, arguments)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'taught.npz'}: {len(val)} pictures\n"
    labelled = read_labelled_pictures(tmp_path / "taught", labels=tmp_path / "out" / "taught.npz")
    assert labelled.teacher is not None and labelled.opening_weight is not None
    assert labelled.names.tolist() == names.tolist() and (labelled.opening_weight == 1).all()
    moved = np.linalg.norm(labelled.teacher - points, axis=2)
    assert (moved[:, :36] < 1e-4).all() and (moved[:, 36:] > 0.1).mean() > 0.9
