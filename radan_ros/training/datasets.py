"""Sets of samples that a training draws batches from: any order, any worker, the same numbers. No torch.

A batch depends on nothing but the set, the seed, the epoch and the indices: so a training can be resumed, and be spread
over processes or threads, without a change.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.boxes import CROP_SIZE
from radan_ros.face_models import FaceModel
from radan_ros.model import Whitening
from radan_ros.pickles import load_arrays
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.training.augmentation import MIRRORED, AugmentationSettings, augment, inner_crop
from radan_ros.training.samples import MARGIN, Samples


@dataclass(frozen=True)
class Batch:
    """What a network is trained on at once.

    Attributes
    ----------
    crops : (B, 120, 120, 3) uint8
        BGR.
    parameters : (B, 62) float32
        In the frame in which the network answers, not whitened.
    landmarks : (B, 68, 2) float32
        Crop pixels.
    landmark_weights : (B, 68) float32
    parameter_weights : (B,) float32
    """

    crops: NDArray[np.uint8]
    parameters: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    landmark_weights: NDArray[np.float32]
    parameter_weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.crops)


class TrainingSet(Protocol):
    """So many samples, each of which looks different in every epoch."""

    def __len__(self) -> int: ...

    def batch(self, indices: ArrayLike, epoch: int) -> Batch:
        """The samples of some indices (0 .. len - 1), as the epoch has them."""


@dataclass(frozen=True)
class _Sample:
    """One sample before augmentation; shapes as in `Samples`."""

    wide_crop: NDArray[np.uint8]
    parameters: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    landmark_weights: NDArray[np.float32]
    parameter_weight: float


class _AugmentedSet:
    """Augments what a subclass gives, one generator for each seed, epoch and index."""

    def __init__(self, settings: AugmentationSettings | None, seed: int, mirror: NDArray[np.floating] | None) -> None:
        if mirror is not None and mirror.shape != (50, 50):
            raise ValueError(f"the mirror matrix of the coefficients has shape {mirror.shape}, not (50, 50)")
        self.settings = settings
        self.seed = seed
        self.mirror = mirror

    def __len__(self) -> int:
        raise NotImplementedError

    def _sample(self, index: int, rng: np.random.Generator) -> _Sample:
        raise NotImplementedError

    def _donor(self, index: int) -> NDArray[np.uint8] | None:
        """A picture that patches may be cut from."""
        return None

    def batch(self, indices: ArrayLike, epoch: int) -> Batch:
        """The samples of some indices (0 .. len - 1), as the epoch has them; IndexError beyond."""
        rows = [self._row(int(i), epoch) for i in np.asarray(indices, np.int64).ravel()]
        if not rows:
            return empty_batch()
        return Batch(*(np.stack(column) for column in zip(*rows, strict=True)))

    def _row(self, index: int, epoch: int) -> tuple[Any, ...]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self._sample(index, rng)
        weights = sample.landmark_weights
        if self.settings is None:
            crop, parameters, landmarks = inner_crop(sample.wide_crop), sample.parameters, sample.landmarks
        else:
            other = int(rng.integers(len(self)))
            donor = self._donor(other) if self.settings.occlusion_share else None  # a file to read, of some sets
            crop, parameters, landmarks, mirrored = augment(
                sample.wide_crop,
                sample.parameters,
                sample.landmarks,
                rng,
                self.settings,
                mirror=self.mirror,
                donor=donor,
            )
            if mirrored:
                weights = weights[MIRRORED]
        return crop, parameters, landmarks, weights, np.float32(sample.parameter_weight)


def empty_batch() -> Batch:
    """A batch of no samples."""
    none = np.zeros
    return Batch(
        none((0, CROP_SIZE, CROP_SIZE, 3), np.uint8),
        none((0, 62), np.float32),
        none((0, 68, 2), np.float32),
        none((0, 68), np.float32),
        none(0, np.float32),
    )


class SampleSet(_AugmentedSet):
    """Labelled crops in our format.

    Parameters
    ----------
    samples : Samples
    settings : AugmentationSettings, optional
        Without them, the crops as they are (validation).
    seed : int
    mirror : (50, 50) array, optional
        Mirror matrix of the coefficients of the face model of the parameters; without it nothing is mirrored.
    """

    def __init__(
        self,
        samples: Samples,
        settings: AugmentationSettings | None = None,
        *,
        seed: int = 0,
        mirror: NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__(settings, seed, mirror)
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def _sample(self, index: int, rng: np.random.Generator) -> _Sample:
        s = self.samples
        return _Sample(
            np.asarray(s.crops[index]),
            s.parameters[index],
            s.landmarks[index],
            s.landmark_weights[index],
            float(s.parameter_weights[index]),
        )

    def _donor(self, index: int) -> NDArray[np.uint8] | None:
        return np.asarray(self.samples.crops[index])


class ThreeDDFASet(_AugmentedSet):
    """3DDFA's training format (300W-LP as its authors prepared it): a list of pictures and a pickle of parameters.

    Parameters
    ----------
    list_file : path
        A text file: one picture a line, relative to `image_root`; 120 x 120 pixels each.
    parameter_pickle : path
        Pickle of a (N, 62) array in the order of the list.
    image_root : path
    face_model : FaceModel
        The one that the parameters belong to: the landmarks are its projected ones.
    whitening : Whitening, optional
        Where the pickle holds whitened parameters (3DDFA's ``param_all_norm.pkl``, with ``param_whitening.pkl``).
    settings, seed, mirror
        As in `SampleSet`.

    Raises
    ------
    ValueError
        Names the file and what is missing or does not fit; `batch` names a picture that cannot be read.
    """

    def __init__(
        self,
        list_file: str | Path,
        parameter_pickle: str | Path,
        image_root: str | Path,
        face_model: FaceModel,
        *,
        whitening: Whitening | None = None,
        settings: AugmentationSettings | None = None,
        seed: int = 0,
        mirror: NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__(settings, seed, mirror)
        try:
            lines = Path(list_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise ValueError(f"{list_file}: cannot be read: {e}") from None
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise ValueError(f"{list_file}: lists no pictures")
        try:
            values = load_arrays(parameter_pickle)
        except OSError as e:
            raise ValueError(f"{parameter_pickle}: cannot be read: {e}") from None
        if not isinstance(values, np.ndarray) or values.shape != (len(names), 62) or not np.isfinite(values).all():
            shape = values.shape if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(
                f"{parameter_pickle}: holds {shape}, not (N, 62) finite numbers for the {len(names)} pictures"
                f" of {list_file}"
            )
        if not Path(image_root).is_dir():
            raise ValueError(f"{image_root}: is no folder of pictures")
        missing = _missing(Path(image_root), names)
        if missing:
            found = f"{len(missing)} of {len(names)} pictures are not in {image_root}"
            raise ValueError(f"{list_file}: {found}: {missing[0]}")
        parameters = np.ascontiguousarray(values, np.float32)
        self.parameters = parameters if whitening is None else whitening.undo(parameters)
        self.image_root = Path(image_root)
        # Not a list: workers would copy hundreds of thousands of strings by counting references to them.
        self.names = np.array([name.encode() for name in names])
        self.face_model = face_model

    def __len__(self) -> int:
        return len(self.names)

    def _sample(self, index: int, rng: np.random.Generator) -> _Sample:
        parameters = self.parameters[index]
        landmarks = project_landmarks(parameters[None], self.face_model)[0]
        return _Sample(self._wide(index), parameters, landmarks, np.ones(68, np.float32), 1.0)

    def _donor(self, index: int) -> NDArray[np.uint8] | None:
        return self._wide(index)

    def _wide(self, index: int) -> NDArray[np.uint8]:
        path = self.image_root / self.names[index].decode()
        crop = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if crop is None or crop.shape != (CROP_SIZE, CROP_SIZE, 3):
            found = "cannot be read" if crop is None else f"has {crop.shape[1]} x {crop.shape[0]} pixels"
            raise ValueError(f"{path}: {found}; a picture of {CROP_SIZE} x {CROP_SIZE} is needed")
        # These crops come without surroundings: mirrored at the edges there are no lines to learn from.
        return np.asarray(cv2.copyMakeBorder(crop, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REFLECT_101), np.uint8)


def _missing(root: Path, names: Sequence[str]) -> list[str]:
    """Names of no file below a folder. Every folder is read once: it may hold hundreds of thousands, on a network."""
    folders: dict[str, frozenset[str]] = {}
    missing = []
    for name in names:
        folder, file = os.path.split(name)
        if folder not in folders:
            try:
                folders[folder] = frozenset(os.listdir(root / folder))
            except OSError:
                folders[folder] = frozenset()
        if file not in folders[folder]:
            missing.append(name)
    return missing


class FaceRenderer(Protocol):
    """Makes labelled faces (`radan_ros.training.synthetic`)."""

    def render_face(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """A wide crop (184, 184, 3), parameters (62,) and landmarks (68, 2) of the inner crop."""


class SyntheticSet(_AugmentedSet):
    """Faces rendered when they are asked for: every epoch has new ones.

    Parameters
    ----------
    renderer : FaceRenderer
    length : int
        Samples an epoch.
    settings, seed, mirror
        As in `SampleSet`.
    """

    def __init__(
        self,
        renderer: FaceRenderer,
        length: int,
        settings: AugmentationSettings | None = None,
        *,
        seed: int = 0,
        mirror: NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__(settings, seed, mirror)
        if length < 0:
            raise ValueError(f"a set of {length} synthetic faces")
        self.renderer = renderer
        self.length = length

    def __len__(self) -> int:
        return self.length

    def _sample(self, index: int, rng: np.random.Generator) -> _Sample:
        crop, parameters, landmarks = self.renderer.render_face(rng)
        return _Sample(crop, parameters, landmarks, np.ones(68, np.float32), 1.0)


class MixedSet:
    """Several sets in given shares.

    Each set is gone through in random order, all of it before anything of it comes again, over the ends of epochs;
    every epoch mixes what it takes of each.

    Parameters
    ----------
    parts : sequence of (TrainingSet, float)
        Sets, none empty, and their shares of an epoch: any positive numbers.
    epoch_size : int
    seed : int
    """

    def __init__(self, parts: Sequence[tuple[TrainingSet, float]], epoch_size: int, seed: int = 0) -> None:
        if not parts or epoch_size < 1:
            raise ValueError(f"a mix of {len(parts)} sets with {epoch_size} samples an epoch")
        for number, (part, share) in enumerate(parts):
            if len(part) == 0 or not (np.isfinite(share) and share > 0):
                raise ValueError(f"set {number} of the mix has {len(part)} samples and a share of {share}")
        self.sets = [part for part, _ in parts]
        shares = np.array([share for _, share in parts], np.float64)
        # Whole numbers that add up to the epoch.
        ends = np.rint(np.cumsum(shares) / shares.sum() * epoch_size).astype(np.int64)
        self.counts = np.diff(ends, prepend=0)
        self.epoch_size = epoch_size
        self.seed = seed
        self._plan: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.epoch_size

    def batch(self, indices: ArrayLike, epoch: int) -> Batch:
        """The samples of some indices (0 .. len - 1), as the epoch has them; IndexError beyond."""
        wanted = np.asarray(indices, np.int64).ravel()
        if wanted.size and not (0 <= wanted.min() and wanted.max() < self.epoch_size):
            raise IndexError(f"samples {wanted.min()} to {wanted.max()} of {self.epoch_size}")
        rows = self.plan(epoch)[wanted]
        batches, places = [empty_batch()], [np.zeros(0, np.int64)]
        for number, turn in np.unique(rows[:, [0, 2]], axis=0):
            chosen = np.flatnonzero((rows[:, 0] == number) & (rows[:, 2] == turn))
            # The turn in place of the epoch: a small set that comes twice in an epoch looks different each time.
            batches.append(self.sets[number].batch(rows[chosen, 1], int(turn)))
            places.append(chosen)
        back = np.argsort(np.concatenate(places))
        return Batch(*(np.concatenate([getattr(b, f.name) for b in batches])[back] for f in fields(Batch)))

    def plan(self, epoch: int) -> NDArray[np.int64]:
        """Set, index in it, and how often it has been gone through before, of each sample of an epoch: (N, 3)."""
        known = self._plan  # one epoch is kept: threads may replace it, none sees a half one
        if known is not None and known[0] == epoch:
            return known[1]
        parts = []
        for number, (part, count) in enumerate(zip(self.sets, self.counts, strict=True)):
            position = epoch * count + np.arange(count)
            turns, places = np.divmod(position, len(part))
            items = np.zeros(count, np.int64)
            for turn in np.unique(turns):
                order = np.random.default_rng((self.seed, number, int(turn))).permutation(len(part))
                items[turns == turn] = order[places[turns == turn]]
            parts.append(np.stack([np.full(count, number), items, turns], axis=1))
        order = np.random.default_rng((self.seed, len(self.sets), epoch)).permutation(self.epoch_size)
        plan = np.concatenate(parts)[order]
        self._plan = (epoch, plan)
        return plan


def project_landmarks(parameters: NDArray[np.float32], face_model: FaceModel) -> NDArray[np.float32]:
    """Landmarks (N, 68, 2) in crop pixels of parameters (N, 62)."""
    points = transform(cameras_in_crop(parameters), face_model.landmark_points(parameters[:, 12:]))
    return np.ascontiguousarray(points[..., :2], np.float32)
