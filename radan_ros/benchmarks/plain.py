"""What one writes first, to compare with: each stage as plainly as the originals have it, on the libraries at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from radan_ros import boxes
from radan_ros.face_models import FaceModel
from radan_ros.networks import NetworkSpec, torch_module
from radan_ros.networks.architecture import State
from radan_ros.networks.runtime import MEAN, SCALE

Array = NDArray[Any]


def detector() -> Callable[[NDArray[np.uint8]], list[NDArray[np.float64]]]:
    """dlib's detector on the picture enlarged to twice its size, as 3DDFA's ``main.py`` calls it; boxes of (4,)."""
    import cv2
    import dlib

    found = dlib.get_frontal_face_detector()

    def detect(image: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        rectangles = found(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 1)
        return [np.array([r.left(), r.top(), r.right() + 1, r.bottom() + 1], np.float64) for r in rectangles]

    return detect


def network(spec: NetworkSpec, state: State, device: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A network in eager torch, float32, one crop a call in a loop; crops (N, 120, 120, 3) uint8 to (N, outputs)."""
    import torch

    module = torch_module(spec, state).eval().to(device)

    def run(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        answers = []
        with torch.no_grad():
            for crop in crops:
                picture = torch.from_numpy(crop.transpose(2, 0, 1)).float().sub_(MEAN).div_(SCALE)
                answers.append(module(picture[None].to(device)).cpu().numpy()[0])
        return np.stack(answers)

    return run


Reconstruct = Callable[[Sequence[Array], Sequence[Array]], "list[NDArray[np.float32]]"]


def reconstruction(face_model: FaceModel) -> Reconstruct:
    """Dense vertices of one face after another: mean plus two products, then the camera.

    Returns
    -------
    callable
        Cameras (3, 4) and coefficients (modes,) of some faces to the vertices (V, 3) of each.
    """
    mean = face_model.mean.reshape(-1, 1)
    shape = np.ascontiguousarray(face_model.shape_basis.reshape(mean.size, -1))
    expression = np.ascontiguousarray(face_model.expression_basis.reshape(mean.size, -1))
    modes = shape.shape[1]

    def reconstruct(cameras: Sequence[Array], coefficients: Sequence[Array]) -> list[NDArray[np.float32]]:
        meshes = []
        for camera, values in zip(cameras, coefficients, strict=True):
            points = (mean + shape @ values[:modes, None] + expression @ values[modes:, None]).reshape(-1, 3)
            meshes.append(np.ascontiguousarray((camera[:, :3] @ points.T + camera[:, 3:]).T, np.float32))
        return meshes

    return reconstruct


def place(parameters: NDArray[np.float32], square: NDArray[np.float32]) -> NDArray[np.float32]:
    """Camera (3, 4) to picture pixels, depth away from the viewer, of an answer (62,) for a crop: as 3DDFA does it."""
    scale = (square[2] - square[0]) / boxes.CROP_SIZE
    camera = parameters[:12].reshape(3, 4) * np.array([[scale], [-scale], [-scale]], np.float32)
    camera[:2, 3] += square[:2] + [0, scale * (boxes.CROP_SIZE + 1)]
    return np.asarray(camera, np.float32)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def draw_pass(vertices: Array, triangles: Array, values: Array, picture: Array, nearest: Array) -> None:
    """One plain z-buffered pass: per-vertex `values` (V, C) into `picture` (H, W, C)."""
    height, width, channels = picture.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        x1, y1, z1 = vertices[b, 0], vertices[b, 1], vertices[b, 2]
        x2, y2, z2 = vertices[c, 0], vertices[c, 1], vertices[c, 2]
        left = max(int(math.ceil(min(x0, x1, x2))), 0)
        right = min(int(math.floor(max(x0, x1, x2))), width - 1)
        top = max(int(math.ceil(min(y0, y1, y2))), 0)
        bottom = min(int(math.floor(max(y0, y1, y2))), height - 1)
        if right < left or bottom < top:
            continue
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                w0 = 1 - w1 - w2
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    z = w0 * z0 + w1 * z1 + w2 * z2
                    if z < nearest[y, x]:
                        nearest[y, x] = z
                        for k in range(channels):
                            picture[y, x, k] = w0 * values[a, k] + w1 * values[b, k] + w2 * values[c, k]


def draw(
    faces: Sequence[Array], triangles: Array, values: Sequence[Sequence[Array]], size: tuple[int, int]
) -> list[Array]:
    """One plain pass over all faces for each of `values` (a (V, C) for each face): the pictures (H, W, C)."""
    pictures = []
    for value in values:
        picture = np.zeros((*size, value[0].shape[-1] if len(value) else 1), np.float32)
        nearest = np.full(size, np.inf, np.float32)
        for face, of_face in zip(faces, value, strict=True):
            draw_pass(face, triangles, of_face, picture, nearest)
        pictures.append(picture)
    return pictures


def depth_and_codes(faces: Sequence[Array], triangles: Array, codes: Array, size: tuple[int, int]) -> list[Array]:
    """Depth, then colour, each in a pass of its own, as 3DDFA draws them."""
    return draw(faces, triangles, [[face[:, 2:] for face in faces], [codes] * len(faces)], size)


def placed(points: Array, height: float, x: float, yaw: float, size: tuple[int, int]) -> Array:
    """A face (V, 3), y up and z to the viewer, turned and `height` pixels high; depth away from the viewer."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    middle = (points.max(0) + points.min(0)) / 2
    turned = (points - middle) @ turn.T * (height / np.ptp(points[:, 1]))
    return np.stack([x + turned[:, 0], size[0] / 2 - turned[:, 1], 1000 - turned[:, 2]], 1).astype(np.float32)
