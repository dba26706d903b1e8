"""Pictures of a face model for the documentation: the mean face from five sides, every mode, its codes and its map."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.drawing import CLAY, Picture, draw_landmarks, shaded_mesh
from radan_ros.face_models.face_model import FaceModel
from radan_ros.face_models.making.expressions import ONE_SIDED
from radan_ros.face_models.making.template import BROW, EYEBALL, INNER_MOUTH, LIPS
from radan_ros.rendering import render

# Heights of the pictures in metres: of the whole face, and tighter for the modes.
_EXTENT, _TIGHT = 0.25, 0.235
_SIDES = (("front", 0, 0), ("half left", 45, 0), ("right", -90, 0), ("below", 0, 35), ("above", 0, -35))
# Colours (BGR) of the regions; what is not named is clay.
_COLOURS = {LIPS: (158, 160, 214), BROW: (112, 126, 144), EYEBALL: (240, 240, 240), INNER_MOUTH: (70, 70, 130)}
_IRIS, _IRIS_DEPTH = (90, 100, 110), 0.0016  # how far behind the front of the eyeball it ends, metres
_STRONG = 2.5  # standard deviations that the modes are drawn at
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_pictures(face_model: FaceModel, folder: str | Path) -> list[Path]:
    """Draw all pictures into a folder; returns their paths. OSError when one cannot be written."""
    pictures = {
        "face_model_views.jpg": views(face_model),
        "face_model_shape_modes.jpg": shape_modes(face_model),
        "face_model_expressions.jpg": expression_modes(face_model),
        "face_model_codes.jpg": codes(face_model),
    }
    out = []
    for name, picture in pictures.items():
        path = Path(folder) / name
        content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
        path.write_bytes(content.tobytes())
        out.append(path)
    return out


def views(face_model: FaceModel, size: tuple[int, int] = (420, 330)) -> Picture:
    """The mean face from the front, half left, right, below and above."""
    return np.hstack([
        _labelled(_clay(face_model, np.zeros(face_model.modes), size, yaw, pitch, _EXTENT), name)
        for name, yaw, pitch in _SIDES
    ])  # fmt: skip


def shape_modes(face_model: FaceModel, columns: int = 10, size: tuple[int, int] = (170, 136)) -> Picture:
    """Each shape mode at -2.5 and, below it, at +2.5 standard deviations."""
    pairs = [
        np.vstack([
            _labelled(_clay(face_model, _only(face_model, mode, value), size), f"{mode} {value:+.3g}")
            for value in (-_STRONG, _STRONG)
        ])
        for mode in range(face_model.shape_basis.shape[2])
    ]  # fmt: skip
    return _sheet(pairs, columns)


def expression_modes(face_model: FaceModel, columns: int = 5, size: tuple[int, int] = (280, 230)) -> Picture:
    """Each expression mode at -2.5 and, below it, at +2.5 standard deviations, with its name.

    What faces do in one sense only (`ONE_SIDED`) is drawn at +1.25 instead of -2.5.
    """
    first = face_model.shape_basis.shape[2]
    names = face_model.expression_names or tuple(f"expression {i}" for i in range(face_model.modes - first))
    pairs = [
        np.vstack([
            _labelled(_clay(face_model, _only(face_model, first + i, value), size), f"{name} {value:+.3g}")
            for value in (_STRONG / 2 if name in ONE_SIDED else -_STRONG, _STRONG)
        ])
        for i, name in enumerate(names)
    ]  # fmt: skip
    return _sheet(pairs, columns)


def codes(face_model: FaceModel, size: tuple[int, int] = (420, 360)) -> Picture:
    """The mean face in its PNCC colours, with a grid of its texture coordinates, with its landmarks; and its UV map."""
    triangles, height, width = face_model.triangles, *size
    points = _seen(face_model, np.zeros(face_model.modes), 0, 0)
    pixels = points * (2 * height / _EXTENT) + np.array([width - 0.5, height - 0.5, 0])
    pncc = _half(render([pixels.astype(np.float32)], triangles, face_model.codes, (2 * height, 2 * width)).colour)
    clay = shaded_mesh(points, triangles, size, extent=_EXTENT)
    marked = draw_landmarks(clay, (pixels[face_model.landmarks, :2] - 0.5) / 2)
    panels = [np.ascontiguousarray(pncc[..., ::-1]), marked]
    if face_model.uv is not None:
        checks = 96 + 64 * (np.floor(face_model.uv * 24).astype(int).sum(axis=1) % 2)
        albedo = np.stack([checks, 255 * face_model.uv[:, 1], 255 * face_model.uv[:, 0]], axis=1)
        panels.append(shaded_mesh(points, triangles, size, albedo=albedo, extent=_EXTENT))
        square = np.array([1, -1]) * (2 * 0.94 * min(size)) * (face_model.uv - 0.5) + np.array([width, height])
        # By the vertex numbers as depth the map is flat; the order does not matter where nothing overlaps.
        flat = np.concatenate([square, np.zeros((len(square), 1))], axis=1).astype(np.float32)
        panels.append(_half(render([flat], triangles, face_model.codes, (2 * height, 2 * width)).colour)[..., ::-1])
    return np.hstack(panels)


def _clay(
    face_model: FaceModel,
    coefficients: NDArray[np.float64],
    size: tuple[int, int],
    yaw: float = 20.0,
    pitch: float = 0.0,
    extent: float = _TIGHT,
) -> Picture:
    """A face of the model in grey, turned (degrees) by yaw to its left and then by pitch upwards."""
    points = _seen(face_model, coefficients, yaw, pitch)
    return shaded_mesh(points, face_model.triangles, size, albedo=region_colours(face_model), extent=extent)


def region_colours(face_model: FaceModel) -> NDArray[np.float64]:
    """A colour for each vertex, (V, 3) BGR: lips, brows, eyes and the inside of the mouth, where they are known."""
    out = np.full((len(face_model.mean), 3), CLAY, np.float64)
    if face_model.regions is not None:
        for region, colour in _COLOURS.items():
            out[face_model.regions == region] = colour
        forward = face_model.mean[:, 2] * face_model.unit
        ball = face_model.regions == EYEBALL
        out[ball & (forward > forward[ball].max(initial=-np.inf) - _IRIS_DEPTH)] = _IRIS
    return out


def _seen(face_model: FaceModel, coefficients: NDArray[np.float64], yaw: float, pitch: float) -> NDArray[np.float64]:
    """The vertices, metres: x right, y down, z away, the middle of the mean face at the origin."""
    mean = face_model.mean.astype(np.float64)
    middle = (mean.min(axis=0) + mean.max(axis=0)) / 2
    points = (face_model.vertices(coefficients[None])[0].astype(np.float64) - middle) * face_model.unit
    a, b = np.radians(yaw), np.radians(pitch)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return points @ (about_x @ about_y).T * (1, -1, -1)


def _only(face_model: FaceModel, mode: int, value: float) -> NDArray[np.float64]:
    coefficients = np.zeros(face_model.modes)
    coefficients[mode] = value
    return coefficients


def _labelled(picture: Picture, text: str) -> Picture:
    cv2.putText(picture, text, (5, 13), _FONT, 0.4, (225, 225, 225), 1, cv2.LINE_AA)
    return picture


def _half(picture: NDArray[np.uint8]) -> Picture:
    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)


def _sheet(tiles: list[Picture], columns: int) -> Picture:
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)
