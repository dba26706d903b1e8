"""Labels from a model's own answers: the mean over slightly different crops, and how far they disagree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from radan_ros.boxes import square_from_landmarks
from radan_ros.pipeline import Pipeline
from radan_ros.training.augmentation import FOLLOWER

CROPS = 8
_FOLLOWED = 2  # times that the square is set around the answer before the crops are drawn
_LARGEST_MOVE = 0.25  # of the face's size, between a first and a last answer: more, and it was no steady face


def label_picture(
    pipeline: Pipeline, image: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], float] | None:
    """Landmarks of the largest face of a picture.

    Parameters
    ----------
    pipeline : Pipeline
        With a detector.
    image : (H, W, 3) uint8
        BGR.
    rng : numpy.random.Generator
        Draws the crops.

    Returns
    -------
    tuple of (68, 3) float32 and float, or None
        Landmarks in image pixels, third away from the viewer from the landmarks' mean; the mean over the landmarks of
        the standard deviation over the crops, over the square root of the landmarks' box area. None where no face is
        found, or the answers run away from it.
    """
    faces = pipeline(image)
    if not faces:
        return None
    face = max(faces, key=lambda f: float(np.ptp(f.landmarks[:, :2], axis=0).prod()))
    first = face.landmarks
    for _ in range(_FOLLOWED):
        followed = pipeline.regress(image, [square_from_landmarks(face.landmarks)])
        if not followed:
            return None
        face = followed[0]
    square = square_from_landmarks(face.landmarks)
    answers = pipeline.regress(image, [FOLLOWER.draw(square, 0.0, rng) for _ in range(CROPS)])
    if not answers:
        return None
    points = np.stack([a.landmarks - [0, 0, a.landmarks[:, 2].mean()] for a in answers])
    mean = points.mean(axis=0)
    size = float(np.sqrt(np.ptp(mean[:, :2], axis=0).prod()))
    spread = float(np.sqrt(np.square(points - mean).sum(axis=2).mean(axis=0)).mean()) / size
    moved = float(np.linalg.norm(mean[:, :2] - first[:, :2], axis=1).mean()) / size
    return None if moved > _LARGEST_MOVE else (mean.astype(np.float32), spread)
