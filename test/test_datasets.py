"""Training sets: the same batch from the same seed, epoch and indices; shares, permutations, formats, bad files."""

from __future__ import annotations

import dataclasses
import os
import pickle
import resource
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest

from radan_ros.face_models import FaceModel
from radan_ros.model import Whitening
from radan_ros.training.augmentation import MIRRORED, AugmentationSettings, inner_crop
from radan_ros.training.datasets import (
    Batch,
    MixedSet,
    SampleSet,
    SyntheticSet,
    ThreeDDFASet,
    project_landmarks,
)
from radan_ros.training.samples import Samples, read_samples, write_samples

SETTINGS = AugmentationSettings()


def _samples(count: int, value: int = 0) -> Samples:
    """Samples whose crops are of one grey level each: value + index."""
    random = np.random.default_rng(count)
    levels = (value + np.arange(count)).astype(np.uint8)
    parameters = np.zeros((count, 62), np.float32)
    parameters[:, :12] = [60, 0, 0, 60, 0, 60, 0, 60, 0, 0, 60, 0]
    return Samples(
        np.broadcast_to(levels[:, None, None, None], (count, 184, 184, 3)).copy(),
        parameters,
        random.uniform(20, 100, (count, 68, 2)).astype(np.float32),
        np.tile(np.arange(68, dtype=np.float32), (count, 1)),
        np.arange(count, dtype=np.float32),
        np.array([f"sample {i}" for i in range(count)]),
    )


def _same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Batch.__dataclass_fields__)


class Faces:
    """A renderer whose faces are random numbers of the generator that it is given."""

    def render_face(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        crop = np.full((184, 184, 3), rng.integers(256), np.uint8)
        parameters = np.zeros(62, np.float32)
        parameters[:12] = [60, 0, 0, 60, 0, 60, 0, 60, 0, 0, 60, 0]
        return crop, parameters, rng.uniform(20, 100, (68, 2)).astype(np.float32)


def test_without_settings_a_set_gives_its_samples(small_face: FaceModel, tmp_path: Path) -> None:
    samples = _samples(5)
    write_samples(tmp_path, samples, small_face)
    batch = SampleSet(read_samples(tmp_path)).batch([3, 0], epoch=2)
    assert np.array_equal(batch.crops, inner_crop(samples.crops[[3, 0]]))
    for name in ("parameters", "landmarks", "landmark_weights", "parameter_weights"):
        assert np.array_equal(getattr(batch, name), getattr(samples, name)[[3, 0]])
        assert getattr(batch, name).dtype == np.float32


def test_samples_are_replaced_whole_or_not_at_all(
    small_face: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(tmp_path, _samples(5), small_face)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes: a crop is as large
    try:
        with pytest.raises(OSError, match=r"not written whole: the disk may be full: '.*crops.npy'"):
            write_samples(tmp_path, _samples(4), small_face)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(read_samples(tmp_path)) == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["crops.npy", "labels.npz"]

    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        replace(source, target)
        if target.name == "crops.npy":
            raise SystemExit

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        write_samples(tmp_path, _samples(5), small_face)
    with pytest.raises(ValueError, match=r"labels.npz is missing"):  # and not the old ones beside the new crops
        read_samples(tmp_path)


def test_samples_of_another_face_model_are_refused(small_face: FaceModel, tmp_path: Path) -> None:
    write_samples(tmp_path, _samples(3), small_face)
    assert len(read_samples(tmp_path, small_face)) == 3
    with pytest.raises(ValueError, match=f"{tmp_path}: prepared for another face model"):
        read_samples(tmp_path, dataclasses.replace(small_face, mean=1.1 * small_face.mean))


@pytest.mark.parametrize("kind", ["samples", "synthetic", "mixed"])
def test_a_batch_depends_on_seed_epoch_and_index_alone(kind: str) -> None:
    def opened(seed: int) -> SampleSet | SyntheticSet | MixedSet:
        real = SampleSet(_samples(30), SETTINGS, seed=seed, mirror=np.eye(50))
        made = SyntheticSet(Faces(), 30, SETTINGS, seed=seed, mirror=np.eye(50))
        return {"samples": real, "synthetic": made, "mixed": MixedSet([(real, 2), (made, 1)], 30, seed)}[kind]

    a, b = opened(1), opened(1)
    whole = a.batch(np.arange(30), 4)
    a.batch([5, 6], 5)
    # Another object, another order, in parts, after other epochs.
    order = np.random.default_rng(0).permutation(30)
    parts = [b.batch(order[i : i + 7], 4) for i in range(0, 30, 7)]
    again = Batch(*(np.concatenate([getattr(p, n) for p in parts]) for n in Batch.__dataclass_fields__))
    chosen = Batch(*(getattr(whole, n)[order] for n in Batch.__dataclass_fields__))
    assert _same(again, chosen) and _same(a.batch(np.arange(30), 4), whole)
    assert not _same(opened(2).batch(np.arange(30), 4), whole)
    assert not _same(a.batch(np.arange(30), 5), whole)
    assert len(a.batch([], 0)) == 0


def test_weights_follow_their_landmarks_into_the_mirror() -> None:
    samples = _samples(40)
    batch = SampleSet(samples, SETTINGS, mirror=np.eye(50)).batch(np.arange(40), 0)
    mirrored = np.array([np.array_equal(w, MIRRORED) for w in batch.landmark_weights])
    assert 8 < mirrored.sum() < 32
    assert (batch.landmark_weights[~mirrored] == np.arange(68)).all()
    # And nothing is mirrored where nobody says how.
    plain = SampleSet(samples, SETTINGS).batch(np.arange(40), 0)
    assert (plain.landmark_weights == np.arange(68)).all()


def test_a_mix_takes_its_shares_and_all_of_a_set_before_anything_again() -> None:
    small, large = SampleSet(_samples(7)), SampleSet(_samples(50, 100))
    mix = MixedSet([(small, 1.0), (large, 2.0)], 31, seed=3)
    levels = np.concatenate([mix.batch(np.arange(31), epoch).crops[:, 0, 0, 0] for epoch in range(5)]).reshape(5, 31)
    of_small = levels < 100
    assert (of_small.sum(axis=1) == 10).all()
    assert not np.array_equal(of_small[0], of_small[1])  # mixed anew
    # 50 draws of 7, 105 of 50: each sample as often as the others, to within one.
    for values, count in ((levels[of_small], 7), (levels[~of_small] - 100, 50)):
        often = np.bincount(values, minlength=count)
        assert np.ptp(often) <= 1 and len(often) == count


def test_a_sample_that_comes_twice_in_an_epoch_looks_different() -> None:
    mix = MixedSet([(SampleSet(_samples(1, 128), SETTINGS), 1.0)], 4)
    batch = mix.batch(np.arange(4), 0)
    assert len({p.tobytes() for p in batch.parameters}) == 4


def test_a_mix_of_nothing_and_indices_beyond_are_refused() -> None:
    some = SampleSet(_samples(3))
    for parts, size in (([], 4), ([(some, 1.0)], 0), ([(some, 0.0)], 4), ([(SyntheticSet(Faces(), 0), 1.0)], 4)):
        with pytest.raises(ValueError, match=r"mix"):
            MixedSet(parts, size)
    with pytest.raises(IndexError):
        some.batch([3], 0)
    with pytest.raises(IndexError):
        MixedSet([(some, 1.0)], 4).batch([-1], 0)
    with pytest.raises(ValueError, match="50"):
        SampleSet(_samples(3), mirror=np.eye(40))


@pytest.fixture
def threeddfa(tmp_path: Path, small_face: FaceModel) -> tuple[Path, np.ndarray, Whitening]:
    """A folder in 3DDFA's format: two pictures, their whitened parameters; the true ones and the whitening."""
    random = np.random.default_rng(0)
    parameters = np.zeros((2, 62), np.float32)
    parameters[:, :12] = [0.5, 0, 0, 60, 0, 0.5, 0, 60, 0, 0, 0.5, 0]
    parameters += random.normal(size=(2, 62)).astype(np.float32) * 0.01
    whitening = Whitening(np.full(62, 0.3, np.float32), np.linspace(0.5, 2, 62).astype(np.float32))
    names = ["one.jpg", "two_0.jpg"]
    for name in names:
        cv2.imwrite(str(tmp_path / name), random.integers(0, 256, (120, 120, 3), dtype=np.uint8))
    (tmp_path / "train.list").write_text("\n".join(names) + "\n")
    whitened = (parameters - whitening.mean) / whitening.std
    (tmp_path / "param_all_norm.pkl").write_bytes(pickle.dumps(whitened, protocol=2))
    return tmp_path, parameters, whitening


def test_3ddfa_s_training_format_is_read(threeddfa: tuple[Path, np.ndarray, Whitening], small_face: FaceModel) -> None:
    folder, parameters, whitening = threeddfa
    files = (folder / "train.list", folder / "param_all_norm.pkl", folder)
    given = ThreeDDFASet(*files, small_face, whitening=whitening)
    batch = given.batch([1], 0)
    assert len(given) == 2
    np.testing.assert_allclose(batch.parameters, parameters[[1]], atol=1e-5)
    assert np.array_equal(batch.crops[0], cv2.imread(str(folder / "two_0.jpg")))
    # By hand: 3DDFA's pixels are Matlab's, y up.
    shape = small_face.mean[small_face.landmarks] + np.tensordot(
        np.concatenate([small_face.shape_basis, small_face.expression_basis], axis=2)[small_face.landmarks],
        parameters[1, 12:],
        axes=1,
    )
    in_matlab = shape @ parameters[1, :12].reshape(3, 4)[:, :3].T + parameters[1, [3, 7, 11]]
    expected = np.stack([in_matlab[:, 0] - 1, 120 - in_matlab[:, 1]], axis=1)
    np.testing.assert_allclose(batch.landmarks[0], expected, atol=1e-3)
    augmented = ThreeDDFASet(*files, small_face, whitening=whitening, settings=SETTINGS).batch([0, 1], 0)
    np.testing.assert_allclose(augmented.landmarks, project_landmarks(augmented.parameters, small_face), atol=2e-3)


def test_pictures_that_patches_might_be_cut_from_are_read_only_where_there_are_patches(
    threeddfa: tuple[Path, np.ndarray, Whitening], small_face: FaceModel
) -> None:
    folder, _, whitening = threeddfa
    (folder / "two_0.jpg").write_bytes(b"")
    files = (folder / "train.list", folder / "param_all_norm.pkl", folder)
    for share, fails in ((0.0, False), (1.0, True)):
        settings = AugmentationSettings(occlusion_share=share)
        given = ThreeDDFASet(*files, small_face, whitening=whitening, settings=settings)
        with pytest.raises(ValueError, match="two_0") if fails else nullcontext():
            assert all(len(given.batch([0], epoch)) == 1 for epoch in range(20))


def test_bad_files_of_3ddfa_s_format_are_named(
    threeddfa: tuple[Path, np.ndarray, Whitening], small_face: FaceModel, tmp_path: Path
) -> None:
    folder, parameters, _ = threeddfa
    names, numbers = folder / "train.list", folder / "param_all_norm.pkl"
    short, code = folder / "short.pkl", folder / "code.pkl"
    short.write_bytes(pickle.dumps(parameters[:1]))
    code.write_bytes(pickle.dumps(Path("code")))
    for files, wrong in (
        ((folder / "none.list", numbers, folder), "none.list"),
        ((names, folder / "none.pkl", folder), "none.pkl"),
        ((names, short, folder), "short.pkl"),
        ((names, code, folder), "code.pkl"),
        ((names, numbers, folder / "nowhere"), "nowhere"),
    ):
        with pytest.raises(ValueError, match=wrong):
            ThreeDDFASet(*files, small_face)
    cv2.imwrite(str(folder / "one.jpg"), np.zeros((100, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="one.jpg"):
        ThreeDDFASet(names, numbers, folder, small_face).batch([0], 0)
