"""What a face's confidence is worth: faces that are lost, background that passes, and whether it means what it says.

usage: presence.py [--model MODEL] [--data FOLDER] [--profiled FOLDER] [--plot FILE]

- Photographs of the people kept back from training, and the same turned to the side (`make model` leaves the latter in
  out/data/ytf68_profiled; without a folder they are made): squares as a detector and a follower draw them, and squares
  beside the faces, near them and of wrong size, also of portraits that were not learned from.
- The same squares spoiled as in training (things in the way, darkness, blur, few pixels), and followed: among these are
  enough doubtful ones to see whether a confidence of 0.7 is right seven times in ten.
- Background followed as the node does: how many squares are still taken for faces after 1, 3 and 10 images. On those
  photographs, off the faces, and on pictures that come with scikit-image.
- Clips of moving heads: how often the confidence falls under 0.5.

Ends with a word where there are no photographs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import ArrayLike, NDArray

from radan_ros import Pipeline, boxes, open_detector, open_model
from radan_ros.face import Face
from radan_ros.model import Model
from radan_ros.pipeline import cameras_in_crop
from radan_ros.presence import confidence
from radan_ros.training import evaluation
from radan_ros.training.augmentation import DETECTOR, FOLLOWER, turn_of
from radan_ros.training.preparation import label_pictures, prepare_samples, read_labelled_pictures
from radan_ros.training.presence import (
    BACKGROUND_OVERLAP,
    Examples,
    LabelledFace,
    Looker,
    calibration,
    examples_of,
    held_out,
    join,
    measure,
    photographs,
    square_examples,
    squares_of,
    wide_crops,
)
from radan_ros.training.samples import Samples, read_samples

Image = NDArray[np.uint8]
BOUND = 0.5  # the node's min_confidence
DRAWS = 3  # squares of each kind for every face
IMAGES = 10  # that background is followed for
CLIPS = ("d10.mp4", "d12.mp4", "d20.mp4", "s18.mp4", "obama.mp4", "head-pose-face-detection-male.gif")
# Neither people nor animals, but the eyes of a cat.
PICTURES = (
    "coffee.png", "rocket.jpg", "coins.png", "chelsea.png", "brick.png", "grass.png", "gravel.png", "text.png",
    "motorcycle_left.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "moon.png", "page.png",
)  # fmt: skip
LARGEST = 640  # pixels; larger pictures are reduced


def examples(
    pipeline: Pipeline, face: LabelledFace, squares: Sequence[NDArray[np.float64]], kinds: Sequence[str]
) -> tuple[Examples, NDArray[np.float64]]:
    """What the pipeline answers to squares of a picture, and how sure it is."""
    answers: list[tuple[str, Face]] = []
    for kind, square in zip(kinds, squares, strict=True):
        answers += [(kind, answer) for answer in pipeline.regress(face.picture, [square])]
    errors = [float(evaluation.nme(answer.landmarks, face.landmarks)) for _, answer in answers]
    parameters = np.array([answer.parameters for _, answer in answers], np.float32).reshape(-1, 62)
    return (
        Examples(
            np.array([face.name] * len(answers), np.str_),
            np.array([kind for kind, _ in answers], np.str_),
            parameters,
            np.zeros((len(answers), 0), np.float32),
            np.array(errors, np.float64),
        ),
        np.array([answer.confidence for _, answer in answers], np.float64),
    )


def on_faces(turn: float, face: LabelledFace, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Squares as a detector and a follower draw them around a face."""
    true = boxes.square_from_landmarks(face.landmarks)
    return [jitter.draw(true, turn, rng) for jitter in (DETECTOR, FOLLOWER) for _ in range(DRAWS)]


def people(pipeline: Pipeline, data: Path, turned: Samples) -> tuple[Examples, NDArray[np.float64]]:
    """Examples of the photographs and turned photographs of people kept back, and of portraits not learned from."""
    rng = np.random.default_rng(0)
    looks = []
    turns = dict(zip(turned.names.tolist(), (turn_of(p) for p in turned.parameters), strict=True))
    for face in [*photographs(read_labelled_pictures(data / "ytf68", "val"), 10_000, rng), *portraits(data, rng)]:
        squares = on_faces(0.0, face, rng)
        looks.append(examples(pipeline, face, squares, ["face"] * len(squares)))
        others = [(kind, square) for kind, square in squares_of(face, rng) if kind != "face"]
        looks.append(examples(pipeline, face, [square for _, square in others], [kind for kind, _ in others]))
    for face in wide_crops(turned, 10_000, rng):
        squares = on_faces(turns[face.name], face, rng)
        looks.append(examples(pipeline, face, squares, ["face"] * len(squares)))
    return join([seen for seen, _ in looks]), np.concatenate([sure for _, sure in looks])


class Spoiled(Looker):
    """Looks with any network; its examples' features are the confidence, (N, 1)."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def look(self, crops: Image, landmarks: ArrayLike, names: Sequence[str], kinds: Sequence[str]) -> Examples:
        outputs, logits = self.model.network.run(crops)
        parameters = self.model.whitening.undo(outputs)
        sure = confidence(cameras_in_crop(parameters), logits)
        errors = evaluation.nme(self.landmarks(parameters), landmarks)
        return Examples(np.array(names), np.array(kinds), parameters, sure[:, None], errors)


def spoiled(model: Model, data: Path, turned: Samples) -> tuple[Examples, NDArray[np.float64]]:
    """Examples as they were learned from, of people and portraits that were not."""
    rng, looker = np.random.default_rng(2), Spoiled(model)
    seen = join([
        examples_of(looker, turned, len(turned), rng),
        examples_of(looker, read_labelled_pictures(data / "ytf68", "val"), 10_000, rng),
        square_examples(looker, portraits(data, rng), rng),
    ])  # fmt: skip
    return seen, seen.features[:, 0].astype(np.float64)


def portraits(data: Path, rng: np.random.Generator) -> list[LabelledFace]:
    """Portraits that `radan-train-presence` keeps for measuring."""
    pictures = read_labelled_pictures(data / "congress")
    return list(photographs(pictures.take(held_out(pictures.names.tolist())), 10_000, rng))


def background(data: Path, rng: np.random.Generator) -> Iterator[tuple[str, Image, list[NDArray[np.float64]]]]:
    """Pictures with squares in which there is no face."""
    folder = Path(skimage.__file__).parent / "data"
    for name in PICTURES:
        image = cv2.imread(str(folder / name))
        if image is not None:
            factor = min(1.0, LARGEST / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            yield "other pictures", image, [_anywhere(image, rng) for _ in range(200)]
    for face in [*photographs(read_labelled_pictures(data / "ytf68", "val"), 10_000, rng), *portraits(data, rng)]:
        true = boxes.square_from_landmarks(face.landmarks)
        squares = [_anywhere(face.picture, rng) for _ in range(8)]
        yield "beside faces", face.picture, [s for s in squares if boxes.iou(s, true) < BACKGROUND_OVERLAP]


def _anywhere(image: Image, rng: np.random.Generator) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    side = np.exp(rng.uniform(np.log(30), np.log(0.9 * min(height, width))))
    centre = rng.uniform([0, 0], [width, height])
    return np.concatenate([centre - side / 2, centre + side / 2])


def followed(pipeline: Pipeline, data: Path) -> dict[str, tuple[int, NDArray[np.float64]]]:
    """Of background squares: how many, and the share still taken for a face after 1 .. `IMAGES` images."""
    counts: dict[str, tuple[int, NDArray[np.float64]]] = {}
    for kind, image, squares in background(data, np.random.default_rng(1)):
        left = np.zeros(IMAGES)
        rois: list[NDArray[np.floating]] = list(squares)
        for number in range(IMAGES):
            kept = [face for face in pipeline.regress(image, rois) if face.confidence >= BOUND]
            # The photographs' squares may be led to the face: that is no mistake, and rare.
            left[number] = len(kept)
            rois = [boxes.square_from_landmarks(face.landmarks) for face in kept]
        total, before = counts.get(kind, (0, np.zeros(IMAGES)))
        counts[kind] = total + len(squares), before + left
    return {kind: (total, left / max(total, 1)) for kind, (total, left) in counts.items()}


def clip(pipeline: Pipeline, path: Path) -> NDArray[np.float64]:
    """Confidences of the faces of a clip, found by the detector once in 12 images and followed in between."""
    assert pipeline.detector is not None
    capture = cv2.VideoCapture(str(path))
    faces: list[Face] = []
    sure: list[float] = []
    number = 0
    while True:
        more, image = capture.read()
        if not more:
            return np.array(sure)
        if number % 12 == 0:
            found = []
            for detection in pipeline.detector(image):
                known = [face for face in faces if boxes.iou(detection.box, face.box) >= 0.3]
                found += known[:1] or pipeline.regress(image, [boxes.square_from_detection(detection.box)])
            faces = found or faces
        faces = pipeline.regress(image, [boxes.square_from_landmarks(face.landmarks) for face in faces])
        sure += [face.confidence for face in faces]
        number += 1


def draw(
    path: Path,
    seen: Examples,
    sure: NDArray[np.float64],
    kept: dict[str, tuple[int, NDArray[np.float64]]],
) -> None:
    """Whether the confidence means what it says, and how long background is taken for a face."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    error, rows = calibration(sure[seen.decided], seen.fits[seen.decided])
    said, true, count = np.array(rows).T
    left.plot([0, 1], [0, 1], color="0.8")
    left.errorbar(said, true, np.sqrt(true * (1 - true) / count), fmt="o", color="tab:blue")
    for x, y, n in zip(said, true, count, strict=True):
        left.annotate(f"{n:.0f}", (x, y), (4, -10), textcoords="offset points", fontsize=7, color="0.4")
    left.set(xlabel="confidence", ylabel="share that are faces which the answer fits")
    left.set_title(f"expected calibration error {error:.4f}", fontsize=10)
    for kind, (total, share) in kept.items():
        right.semilogy(np.arange(1, IMAGES + 1), 100 * np.maximum(share, 0.1 / total), label=f"{kind} ({total})")
    right.set(xlabel="images", ylabel="% of background squares still followed")
    right.set_title(f"confidence at least {BOUND}", fontsize=10)
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _print(rows: dict[str, float]) -> None:
    for name, value in rows.items():
        print(f"  {name:28}{value:>10.0f}" if name in ("faces", "others") else f"  {name:28}{value:>10.4f}")


def main() -> int:
    """Print the figures and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; without it the built-in model")
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--data", type=Path, default=shared, help="folder with datasets/ and video/ (../shared)")
    parser.add_argument("--profiled", type=Path, help="samples of the turned people; made where not given")
    parser.add_argument("--plot", type=Path, default=Path("docs/images/presence.png"))
    options = parser.parse_args()
    data = options.data / "datasets"
    if not (data / "ytf68" / "labels.npz").is_file():
        print(f"{data / 'ytf68'}: no photographs here to measure on", file=sys.stderr)
        return 0
    cv2.setNumThreads(1)
    pipeline = Pipeline(open_model(options.model, device="cpu", threads=1), open_detector("dlib_hog", min_face=60))
    if options.profiled is None:
        pictures = read_labelled_pictures(data / "ytf68", "val")
        face_model = open_model(device="cpu").face_model
        turned = prepare_samples(pictures, label_pictures(pictures, face_model), face_model, plain=False)
    else:
        turned = read_samples(options.profiled)
    seen, sure = people(pipeline, data, turned)
    print(f"{pipeline.model.name}: faces in squares of a detector and a follower, against all other squares")
    _print(measure(sure, seen))
    seen, sure = spoiled(pipeline.model, data, turned)
    print("the same, spoiled, and followed")
    _print(measure(sure, seen))
    kept = followed(pipeline, data)
    for kind, (total, share) in kept.items():
        percent = ", ".join(f"{n}: {100 * share[n - 1]:.2f} %" for n in (1, 3, 10))
        print(f"background, {kind}, {total} squares, still followed after so many images: {percent}")
    for name in CLIPS:
        path = options.data / "video" / name
        if path.is_file():
            values = clip(pipeline, path)
            lost = int((values < BOUND).sum())
            print(f"{name}: {lost} of {len(values)} under {BOUND}, least {values.min():.3f}")
    draw(options.plot, seen, sure, kept)
    print(f"{options.plot}: drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
