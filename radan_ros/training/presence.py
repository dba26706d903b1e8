"""The head of radan_mobile that says whether a face is there that the answer fits: what it learns from, and how.

The head is a logistic regression on what the other heads see, the last vector of the network, which stays as it is.
What is a face is decided by the answer itself: crops of labelled pictures, of all squares that a detector or a follower
may come to, are positive where the answer is near the labels, and negative where it is far (`FITS`, `FITS_NOT`). So a
square that is a little off is a face as long as the network finds it, and one that is far off is none although half a
face is in it. Squares on the background are also followed as the node follows a face, for those are the ones that it
would keep.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from radan_ros import boxes
from radan_ros.model import Model, open_model
from radan_ros.networks import load_checkpoint, network_state
from radan_ros.networks.architecture import MOBILE_HEADS, PARAMETERS, PRESENCE_HEAD
from radan_ros.networks.runtime import GRAPH_SUFFIXES
from radan_ros.pipeline import cameras_in_crop
from radan_ros.training import evaluation
from radan_ros.training.augmentation import DETECTOR, FOLLOWER, AugmentationSettings, spoil
from radan_ros.training.datasets import SampleSet, project_landmarks
from radan_ros.training.loop import save_whole
from radan_ros.training.preparation import LabelledPictures, has_splits, read_labelled_pictures, read_photograph
from radan_ros.training.samples import MARGIN, Samples, read_samples

# Normalised mean error of an answer up to which it fits, and from which it does not; what lies between is left out. Of
# squares around faces, spoiled as in training, 2 % lie beyond the first; of squares beside them 1 % below 0.25.
FITS, FITS_NOT = 0.12, 0.20
BACKGROUND_OVERLAP = 0.2  # with the face's square, at most
FOLLOWED = 3  # times that a square beside a face is set around the answer
HELD_OUT = 10  # one in so many pictures is not learned from
PENALTY = 10.0  # on the squares of the weights of features of unit variance, against a sum over examples
_CUT_SHARE, _UNSPOILED_SHARE = 0.12, 0.3
_AT_ONCE = 16  # pictures
_Array = NDArray[np.float64]
Picture = NDArray[np.uint8]


class LabelledFace(NamedTuple):
    """A picture (H, W, 3) uint8 BGR, its name, and the landmarks (68, 2) of the one face that is labelled in it."""

    name: str
    picture: Picture
    landmarks: _Array


@dataclass(frozen=True)
class Examples:
    """N crops that a network has looked at.

    Attributes
    ----------
    names : (N,) str
        Of the pictures that they come from.
    kinds : (N,) str
        How the square was drawn: 'face', 'near', 'size', 'background'; 'followed' for those that were followed.
    parameters : (N, 62) float32
        The network's answers.
    features : (N, C) float32
        What its heads see.
    errors : (N,) float64
        Normalised mean errors of the answers.
    """

    names: NDArray[np.str_]
    kinds: NDArray[np.str_]
    parameters: NDArray[np.float32]
    features: NDArray[np.float32]
    errors: _Array

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether the answers are near the labels, (N,)."""
        return self.errors < FITS

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Whether they are either near or far, (N,)."""
        return self.fits | (self.errors > FITS_NOT)

    def take(self, which: Any) -> Examples:
        """Some of the examples, by index array, mask or slice."""
        return Examples(*(getattr(self, f.name)[which] for f in fields(self)))


def join(parts: Sequence[Examples]) -> Examples:
    """Several sets of examples as one."""
    return Examples(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Examples)))


def checkpoint_of(model: Model) -> Path:
    """The file that a head is written into; ValueError where the network came from an exported graph."""
    path = model.network_file
    if path is None or path.suffix.lower() in GRAPH_SUFFIXES:
        raise ValueError(f"{path}: a head is written into a checkpoint (.pth); export it afterwards")
    return path


class Looker:
    """A radan_mobile that also tells what its heads see.

    Parameters
    ----------
    model : Model
    threads : int, optional

    Raises
    ------
    ValueError
        The model's network is another one, or an exported graph.
    """

    def __init__(self, model: Model, threads: int | None = None) -> None:
        import openvino

        from radan_ros.networks.openvino_graphs import build

        path = checkpoint_of(model)
        spec, state = network_state(load_checkpoint(path))
        if spec.name != "radan_mobile":
            raise ValueError(f"{path}: a {spec}; only radan_mobile has a head for presence")
        channels = state[f"fc_{MOBILE_HEADS[0]}.weight"].shape[1]
        # A head that is the identity answers what all heads see.
        state |= {
            f"{PRESENCE_HEAD}.weight": np.eye(channels, dtype=np.float32),
            f"{PRESENCE_HEAD}.bias": np.zeros(channels, np.float32),
        }
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        self._network = openvino.Core().compile_model(build(spec, state), "CPU", config)
        self.model = model

    def look(self, crops: Picture, landmarks: ArrayLike, names: Sequence[str], kinds: Sequence[str]) -> Examples:
        """Look at crops (N, 120, 120, 3) with labelled landmarks (N, 68, 2) in crop pixels."""
        answer = np.array(self._network(np.ascontiguousarray(crops))[0], np.float32)
        parameters = self.model.whitening.undo(answer[:, :PARAMETERS])
        errors = evaluation.nme(self.landmarks(parameters), landmarks)
        return Examples(np.array(names), np.array(kinds), parameters, answer[:, PARAMETERS:], errors)

    def landmarks(self, parameters: NDArray[np.float32]) -> NDArray[np.float32]:
        """Landmarks (N, 68, 2) in crop pixels."""
        return project_landmarks(parameters, self.model.face_model)


def photographs(pictures: LabelledPictures, count: int, rng: np.random.Generator) -> Iterator[LabelledFace]:
    """Random ones of labelled photographs, `count` at most.

    Raises
    ------
    ValueError
        A picture cannot be read.
    """
    landmarks = pictures.marked if pictures.marked is not None else pictures.teacher
    assert landmarks is not None  # `read_labelled_pictures` has seen to it
    known = np.flatnonzero(np.isfinite(landmarks[..., :2]).all(axis=(1, 2)))
    for i in rng.permutation(known)[:count]:
        name = str(pictures.names[i])
        yield LabelledFace(name, read_photograph(pictures.folder / "images" / name), landmarks[i, :, :2])


def wide_crops(samples: Samples, count: int, rng: np.random.Generator) -> Iterator[LabelledFace]:
    """The wide crops of random samples as pictures, `count` at most."""
    for i in rng.permutation(len(samples))[:count]:
        points = samples.landmarks[i].astype(np.float64) + MARGIN
        yield LabelledFace(str(samples.names[i]), np.ascontiguousarray(samples.crops[i]), points)


def face_examples(looker: Looker, samples: Samples, count: int, rng: np.random.Generator) -> Examples:
    """Faces in squares as a detector and a follower draw them, augmented as in training; some cut by a picture's edge.

    A sample that comes again looks different.
    """
    augmented = SampleSet(samples, AugmentationSettings(), seed=int(rng.integers(1 << 31)))
    order = np.concatenate([rng.permutation(len(samples)) for _ in range(-(-count // len(samples)))])[:count]
    parts = []
    for first in range(0, count, 128):
        chosen = order[first : first + 128]
        batch = augmented.batch(chosen, first)
        crops = [_cut(crop, rng) if rng.random() < _CUT_SHARE else crop for crop in batch.crops]
        parts.append(looker.look(np.stack(crops), batch.landmarks, list(samples.names[chosen]), ["face"] * len(chosen)))
    return join(parts)


def square_examples(looker: Looker, faces: Iterable[LabelledFace], rng: np.random.Generator) -> Examples:
    """Squares on faces, near them, of wrong size, and beside them; those that are not on a face are also followed."""
    settings = AugmentationSettings()
    parts, remaining = [], iter(faces)
    while some := list(islice(remaining, _AT_ONCE)):
        squares = [(face, kind, square) for face in some for kind, square in squares_of(face, rng)]
        for step in range(1 + FOLLOWED):
            squares = [s for s in squares if boxes.usable(s[2], s[0].picture.shape[:2])]
            if not squares:
                break
            crops = [boxes.crop(face.picture, square) for face, _, square in squares]
            if step == 0:
                donors = [some[i].picture for i in rng.integers(len(some), size=len(crops))]
                crops = [
                    crop if rng.random() < _UNSPOILED_SHARE else spoil(crop, donor, rng, settings)
                    for crop, donor in zip(crops, donors, strict=True)
                ]
            maps = [boxes.crop_to_image(square) for *_, square in squares]
            given = [_moved(np.linalg.inv(m), s[0].landmarks) for m, s in zip(maps, squares, strict=True)]
            seen = looker.look(np.stack(crops), np.stack(given), [s[0].name for s in squares], [s[1] for s in squares])
            parts.append(seen)
            answers = zip(squares, maps, looker.landmarks(seen.parameters), strict=True)
            squares = [
                (face, "followed", boxes.square_from_landmarks(_moved(to_image, points)).astype(np.float64))
                for (face, kind, _), to_image, points in answers
                if kind != "face"
            ]
    return join(parts)


def squares_of(face: LabelledFace, rng: np.random.Generator) -> list[tuple[str, _Array]]:
    """Random squares of a picture, left, top, right, bottom in pixels, with their kinds."""
    true = boxes.square_from_landmarks(face.landmarks)
    side, centre = float(true[2] - true[0]), (true[:2] + true[2:]).astype(np.float64) / 2
    height, width = face.picture.shape[:2]
    squares = [("face", (DETECTOR if rng.random() < 0.6 else FOLLOWER).draw(true, 0.0, rng, 1.3)) for _ in range(2)]
    angle, distance = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.15, 1.3)
    near = centre + distance * np.array([np.cos(angle), np.sin(angle)])
    squares.append(("near", _square(near, side * np.exp(0.2 * rng.standard_normal()))))
    other = side * np.exp(np.log(rng.uniform(1.3, 5)) * rng.choice([-1, -1, 1]))
    squares.append(("size", _square(centre + rng.uniform(-0.4, 0.4, 2) * max(side, other), other)))
    for _ in range(2):
        size = np.exp(rng.uniform(np.log(24), np.log(1.2 * max(height, width))))
        beside = _square(rng.uniform([0, 0], [width, height]), size)
        if boxes.iou(beside, true) < BACKGROUND_OVERLAP:
            squares.append(("background", beside))
    return squares


def _square(centre: _Array, side: float) -> _Array:
    return np.concatenate([centre - side / 2, centre + side / 2])


def _moved(affine: NDArray[np.floating], points: ArrayLike) -> _Array:
    return np.asarray(points, np.float64) @ affine[:2, :2].T + affine[:2, 2]


def _cut(crop: Picture, rng: np.random.Generator) -> Picture:
    """Black on the left, on the right or below: a face at the edge of the picture."""
    out, width = crop.copy(), int(boxes.CROP_SIZE * rng.uniform(0.05, 0.4))
    (out[:, :width], out[:, -width:], out[-width:])[rng.integers(3)][:] = 0
    return out


def held_out(names: Iterable[str]) -> NDArray[np.bool_]:
    """Whether pictures are kept for measuring: always the same ones, with all copies that were made of them."""
    return np.array([zlib.crc32(name.partition("#")[0].encode()) % HELD_OUT == 0 for name in names], np.bool_)


def fit_head(features: NDArray[np.float32], fits: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Logistic regression with an L2 penalty; faces and others count the same as a whole.

    Parameters
    ----------
    features : (N, C) float32
    fits : (N,) bool

    Returns
    -------
    weight : (C,) float32
    bias : float

    Raises
    ------
    ValueError
        There are no faces, or nothing else.
    """
    from scipy.optimize import minimize

    if fits.all() or not fits.any():
        raise ValueError(f"{fits.sum()} crops with a face and {(~fits).sum()} without: both are needed")
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + 1e-6
    x = (features - mean) / std
    share = np.where(fits, 0.5 / fits.mean(), 0.5 / (~fits).mean())

    def loss(p: _Array) -> tuple[float, _Array]:
        logits = x @ p[:-1] + p[-1]
        losses = np.logaddexp(0, logits) - fits * logits
        slopes = share * (_logistic(logits) - fits)
        gradient = np.append(slopes @ x + PENALTY * p[:-1], slopes.sum())
        return float(share @ losses + PENALTY / 2 * p[:-1] @ p[:-1]), gradient

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    weight = found.x[:-1] / std
    return weight.astype(np.float32), float(found.x[-1] - mean @ weight)


def _logistic(logits: ArrayLike) -> _Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * np.asarray(logits, np.float64)))


def measure(confidences: ArrayLike, examples: Examples) -> dict[str, float]:
    """How well confidences (N,) tell answers that fit from others, of examples that are decided.

    Returns
    -------
    dict of str to float
        Counts; area under the ROC curve; expected calibration error with as many faces as others (15 bins); 'others at
        99 % of faces'; shares of faces under 0.5 ('lost', also by yaw) and of others above it ('passed', also by kind).
    """
    p, fits = np.asarray(confidences, np.float64)[examples.decided], examples.fits[examples.decided]
    kinds, parameters = examples.kinds[examples.decided], examples.parameters[examples.decided]
    faces, others = p[fits], p[~fits]
    rows = {"faces": float(len(faces)), "others": float(len(others)), "area under the curve": _area(faces, others)}
    rows["calibration error"] = calibration(p, fits)[0]
    bound = np.percentile(faces, 1) if len(faces) else float("nan")
    rows["others at 99 % of faces"] = evaluation.spread(others > bound).mean
    rows["lost"] = evaluation.spread(faces < 0.5).mean
    yaw = evaluation.head_angles(cameras_in_crop(parameters[fits]))[:, 0]
    rows |= {f"lost, yaw {low}-{high}": v.mean for (low, high), v in evaluation.by_yaw(faces < 0.5, yaw).items()}
    rows["passed"] = evaluation.spread(others >= 0.5).mean
    for kind in np.unique(kinds[~fits]):
        rows[f"passed, {kind}"] = evaluation.spread(others[kinds[~fits] == kind] >= 0.5).mean
    return rows


def calibration(
    confidences: ArrayLike, fits: NDArray[np.bool_], bins: int = 15
) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error, and mean confidence, share of faces and count of each bin that is not empty.

    Faces and others are weighted to be equally many.
    """
    p = np.asarray(confidences, np.float64)
    share = np.where(fits, 0.5 / max(int(fits.sum()), 1), 0.5 / max(int((~fits).sum()), 1))
    places = np.minimum((p * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for place in np.unique(places):
        inside = places == place
        weights = share[inside] / share[inside].sum()
        said, true = float(weights @ p[inside]), float(weights @ fits[inside])
        rows.append((said, true, int(inside.sum())))
        error += float(share[inside].sum()) * abs(said - true)
    return error, rows


def _area(faces: _Array, others: _Array) -> float:
    """Probability that a face is surer than something else (Mann and Whitney), equal ones counted half."""
    if not len(faces) or not len(others):
        return float("nan")
    order = np.sort(others)
    below, upto = np.searchsorted(order, faces, "left"), np.searchsorted(order, faces, "right")
    return float((below + upto).mean() / 2 / len(others))


def write_head(path: str | Path, weight: NDArray[np.float32], bias: float) -> None:
    """Put a head for presence into a checkpoint of radan_mobile, in place of one that may be there.

    Raises
    ------
    OSError
        The file cannot be written; it is as it was then.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    state[f"{prefix}{PRESENCE_HEAD}.weight"] = torch.from_numpy(weight[None].copy())
    state[f"{prefix}{PRESENCE_HEAD}.bias"] = torch.tensor([bias], dtype=torch.float32)
    save_whole(content, Path(path))


def train_presence(
    folder: str | Path,
    samples: Sequence[str | Path],
    pictures: Sequence[tuple[str | Path, str | Path | None]],
    unseen: Sequence[str | Path] = (),
    *,
    count: int = 500,
    seed: int = 0,
    threads: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Learn the head for a model, and write it into the model's checkpoint.

    Parameters
    ----------
    folder : path
        Model folder, see `radan_ros.open_model`.
    samples : sequence of path
        Folders of samples: faces, also turned ones.
    pictures : sequence of (path, path or None)
        Folders of labelled photographs, for what is beside a face, and other labels than their own. Of a folder with
        the splits 'train' and 'val' the second is for the figures alone.
    unseen : sequence of path
        More folders of samples for the figures alone; there also one picture in `HELD_OUT` of all others is.
    count : int
        Photographs of each folder; of each folder of samples four times as many faces and a quarter as many pictures.
    seed : int
    threads : int, optional
        Of the network.
    say : callable
        Told of what is under way.

    Returns
    -------
    dict of str to float
        See `measure`, on what was not learned from.

    Raises
    ------
    ValueError, OSError
        Model or pictures cannot be used, or the checkpoint cannot be written.
    """
    model = open_model(folder, device="cpu", threads=threads)
    looker = Looker(model, threads)
    faces, others = [_read_samples(source) for source in samples], [_read_samples(source) for source in unseen]
    shown, shown_others = [], []
    for source, labels in pictures:
        split, other = ("train", "val") if has_splits(source) else (None, None)
        shown.append(read_labelled_pictures(source, split, labels))
        if other is not None:
            shown_others.append(read_labelled_pictures(source, other, labels))

    def look(part: Samples | LabelledPictures, where: str | Path) -> Examples:
        say(f"looking at {where}")
        return examples_of(looker, part, count, np.random.default_rng(seed))

    seen = join([
        *(look(part, where) for part, where in zip(faces, samples, strict=True)),
        *(look(part, part.folder) for part in shown),
    ])  # fmt: skip
    kept = held_out(seen.names.tolist())
    measured = [seen.take(kept), *(look(part, where) for part, where in zip(others, unseen, strict=True))]
    measured += [look(part, f"{part.folder}, val") for part in shown_others]
    say("learning")
    learned = seen.take(~kept & seen.decided)
    weight, bias = fit_head(learned.features, learned.fits)
    write_head(checkpoint_of(model), weight, bias)
    examples = join(measured)
    return measure(_logistic(examples.features @ weight + bias), examples)


def examples_of(looker: Looker, source: Samples | LabelledPictures, count: int, rng: np.random.Generator) -> Examples:
    """Examples of photographs, or of samples: faces, and their wide crops as pictures; see `train_presence`."""
    if isinstance(source, LabelledPictures):
        return square_examples(looker, photographs(source, count, rng), rng)
    faces = face_examples(looker, source, 4 * count, rng)
    return join([faces, square_examples(looker, wide_crops(source, -(-count // 4), rng), rng)])


def _read_samples(folder: str | Path) -> Samples:
    samples = read_samples(folder)
    if not len(samples):
        raise ValueError(f"{folder}: no samples in it")
    return samples
