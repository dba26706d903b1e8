"""How far can lids and lips be followed at all, by these labels? A network that only marks points, to compare with.

usage: openings.py [--data FOLDER] [--steps N]

Printed for eyes and mouth, on people kept back, are the correlations of how far they are open in the given points

- with the face model fitted to those points: how far it can follow them;
- with the network of `radan-mark`: three times the built-in one's parameters, no face model between it and the
  points, and learns nothing but them;
- with the built-in network, on the same crops, and with the teacher;
- with what nobody knows, the true openings (Spearman's correction for attenuation, 1904): with the answers a and b of
  two networks and the given points g it is sqrt(r_ag r_bg / r_ab), if the three err independently of each other. No
  answer can come closer than that. Where networks err alike it looks smaller than it is.

The samples are made by `make model` (out/data), and --data holds the teacher's answers. About a quarter of an hour on
two cores; says so and ends where there are no folders.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radan_ros import open_model
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.training.augmentation import inner_crop
from radan_ros.training.datasets import project_landmarks
from radan_ros.training.evaluation import correlation, eye_openings, mouth_openings, nme
from radan_ros.training.marking import learn, mark
from radan_ros.training.preparation import read_labelled_pictures
from radan_ros.training.samples import read_samples

MEASURES = {"eyes": eye_openings, "mouth": mouth_openings}
SAMPLES = Path("out/data")
MARKED, TAUGHT, KEPT_BACK = "ytf68_given", ("utkface_taught", "congress_taught"), "ytf68_val"


def answered(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The built-in network's landmarks of crops (N, 120, 120, 3): (N, 68, 2)."""
    model = open_model()
    parameters = model.whitening.undo(model.network(crops))
    points = model.face_model.landmark_points(parameters[:, 12:])
    return transform(cameras_in_crop(parameters), points)[..., :2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/datasets/ytf68"))
    parser.add_argument("--steps", type=int, default=1800)
    options = parser.parse_args()
    needed = [options.data, *(SAMPLES / name for name in (MARKED, *TAUGHT, KEPT_BACK))]
    missing = [str(folder) for folder in needed if not folder.is_dir()]
    if missing:
        print(f"skipped: {missing[0]} is missing; `make model` makes the samples")
        return 0
    kept = read_samples(SAMPLES / KEPT_BACK)
    crops = np.stack([inner_crop(crop) for crop in kept.crops])
    pictures = read_labelled_pictures(options.data, "val")
    place = {name: i for i, name in enumerate(pictures.names.tolist())}
    assert pictures.teacher is not None
    marked, *taught = (read_samples(SAMPLES / name) for name in (MARKED, *TAUGHT))
    network = learn([marked], taught, options.steps, progress=sys.stderr.isatty())
    answers = {
        "face model fitted to the points": project_landmarks(kept.parameters, open_model().face_model),
        "marking network": mark(network, crops),
        "built-in network": answered(crops),
        "teacher": pictures.teacher[[place[name] for name in kept.names.tolist()]],
    }
    print(f"{len(kept)} faces of people kept back, correlations with the given points")
    for part, measure in MEASURES.items():
        known = {name: correlation(measure(points), measure(kept.landmarks)) for name, points in answers.items()}
        for name, value in known.items():
            print(f"{part}: {value:.2f} {name}")
        ours = "marking network"
        for other in ("built-in network", "teacher"):
            alike = correlation(measure(answers[ours]), measure(answers[other]))
            most = np.sqrt(known[ours] * known[other] / alike)
            print(f"{part}: {most:.2f} at most, by {ours} and {other}, which agree to {alike:.2f}")
    off = 100 * nme(answers["marking network"], kept.landmarks).mean()
    print(f"the marking network's points are {off:.2f} % off, with what all given points lie off by")
    return 0


if __name__ == "__main__":
    sys.exit(main())
