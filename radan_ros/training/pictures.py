"""Pictures of what a network in training answers, beside what was given."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.drawing import PALETTE, Picture, draw_label, draw_landmarks
from radan_ros.face_models import FaceModel
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.rendering import render

ZOOM = 2
GIVEN, PREDICTED, OUTLINE = PALETTE[1], PALETTE[0], (255, 255, 255)


def prediction_grid(
    crops: NDArray[np.uint8],
    labels: ArrayLike,
    predictions: NDArray[np.float32],
    face_model: FaceModel,
    columns: int = 4,
) -> Picture:
    """A grid of crops, each twice: with the given landmarks, and with the predicted ones and the mesh's outline.

    The first pair says which is which.

    Parameters
    ----------
    crops : (N, 120, 120, 3) uint8
        BGR; at least one.
    labels : (N, 68, 2) array_like
        Crop pixels. A part of the face with a point that is not finite is left out.
    predictions : (N, 62) float32
        Parameters as a network answers them.
    face_model : FaceModel
    columns : int
        Pairs a row.

    Returns
    -------
    (rows * 240, columns * 480, 3) uint8
    """
    cameras, coefficients = cameras_in_crop(predictions), predictions[:, 12:]
    landmarks = transform(cameras, face_model.landmark_points(coefficients))
    given = np.asarray(labels, np.float64)
    pairs = []
    for i, crop in enumerate(crops):
        large = cv2.resize(crop, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
        mesh = transform(cameras[i : i + 1], face_model.vertices(coefficients[i : i + 1]))[0]
        answer = draw_outline(large, _zoomed(mesh), face_model.triangles)
        answer = draw_landmarks(answer, _zoomed(landmarks[i])[:, :2], PREDICTED)
        both = [draw_landmarks(large, _zoomed(given[i]), GIVEN), answer]
        if i == 0:
            labels_of_both = (("given", GIVEN), ("answer", PREDICTED))
            both = [draw_label(p, text, (0, 0), c) for p, (text, c) in zip(both, labels_of_both, strict=True)]
        pairs.append(np.hstack(both))
    pairs += [np.zeros_like(pairs[0])] * (-len(pairs) % columns)
    return np.vstack([np.hstack(pairs[i : i + columns]) for i in range(0, len(pairs), columns)])


def draw_outline(
    image: Picture, vertices: NDArray[np.floating], triangles: NDArray[np.int32], colour: tuple[int, int, int] = OUTLINE
) -> Picture:
    """Draw the silhouette of a mesh.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    vertices : (V, 3) floating
        x, y in pixels, third the depth.
    triangles : (T, 3) int32

    Returns
    -------
    (H, W, 3) uint8
    """
    points = np.asarray(vertices, np.float32)
    cover = np.isfinite(render([points], triangles, np.zeros_like(points), image.shape[:2]).depth)
    lines, _ = cv2.findContours(cover.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = image.copy()
    cv2.polylines(out, lines, True, colour, 1, cv2.LINE_AA)
    return out


def _zoomed(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Crop pixels to pixels of the enlarged crop; both have their centres at integers."""
    moved = points * ZOOM
    moved[..., :2] += (ZOOM - 1) / 2
    return moved
