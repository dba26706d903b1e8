"""Synthetic training faces, rendered on the fly from a face model: every label is true by construction.

A random person (shape, expression, skin, eyes, brows, hair, clothes) in random light before a random background. What a
camera adds to a picture (blur, noise, compression) is left to the augmentation.

References
----------
Wood et al., "Fake it till you make it: face analysis in the wild using synthetic data alone" (ICCV 2021), for the idea
that such faces suffice for landmarks; Tobin et al., "Domain randomization" (IROS 2017).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros.boxes import crop_to_image, square_from_landmarks
from radan_ros.face_models import FaceModel
from radan_ros.normals import fill_normals
from radan_ros.pipeline import CROP_FROM_NETWORK, cameras_in_crop, transform
from radan_ros.pose import HEAD_IN_MODEL, decompose_camera, euler_from_rotation, head_rotation, rotation_from_euler
from radan_ros.rendering import render
from radan_ros.training.samples import MARGIN, WIDE_SIZE, Samples
from radan_ros.workers import deaf_to_ctrl_c, end_with_parent

from . import background, extras, hair
from .geometry import Floats, Part, turned
from .head import Head
from .light import Lights, lit, random_lights, shade
from .paint import Paint, Person, random_person

__all__ = ["SyntheticFaces", "SyntheticSettings"]

_FINER = 1.5  # pixels are drawn so many times finer each way, and averaged (2 costs 2 ms more)
_CHUNK = 32  # faces that a worker renders before it answers
_FACE_TARGET = 0.31  # linear brightness of a light face in a well exposed picture


@dataclass(frozen=True)
class SyntheticSettings:
    """How the faces vary.

    Attributes
    ----------
    yaw, pitch, roll : float
        Largest angles, degrees. Yaw is spread evenly; the other two are mostly small.
    shape_limit : float
        Shape coefficients are normal, cut here, in standard deviations.
    shape_spread, expression_spread : float
        Standard deviation of the coefficients, in those of the model.
    headwear : bool
        Hair, hats and scarves.
    glasses, occluders : float
        Share of faces with glasses, and with something before them.
    photographs : str, optional
        Folder of photographs; half of the backgrounds are patches of them.
    photograph_limit : int
        So many of them are kept in memory.
    marks : bool
        Paint the landmarks green where they are seen: for looking at the labels.
    """

    yaw: float = 95.0
    pitch: float = 40.0
    roll: float = 35.0
    shape_limit: float = 2.5
    shape_spread: float = 1.0
    expression_spread: float = 1.0
    headwear: bool = True
    glasses: float = 0.2
    occluders: float = 0.05
    photographs: str | None = None
    photograph_limit: int = 1000
    marks: bool = False

    def __post_init__(self) -> None:
        for name, largest in (("yaw", 180.0), ("pitch", 89.0), ("roll", 180.0)):
            if not 0 <= getattr(self, name) <= largest:
                raise ValueError(f"{name}: {getattr(self, name)} is not 0 to {largest} degrees")
        for name in ("shape_limit", "shape_spread", "expression_spread"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not a number of at least 0")
        if not self.photograph_limit >= 1:
            raise ValueError(f"photograph_limit: {self.photograph_limit} is not at least 1")
        for name in ("glasses", "occluders"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not 0 to 1")


class SyntheticFaces:
    """Renders faces of a face model.

    Parameters
    ----------
    face_model : FaceModel
        A face with a border (not a closed head), 40 shape and 10 expression modes.
    settings : SyntheticSettings, optional

    Raises
    ------
    ValueError
        The face model has no border or other numbers of modes; the folder of photographs has none.
    """

    def __init__(self, face_model: FaceModel, settings: SyntheticSettings | None = None) -> None:
        if face_model.shape_basis.shape[2] != 40 or face_model.expression_basis.shape[2] != 10:
            raise ValueError(
                f"face model {face_model.name} has {face_model.shape_basis.shape[2]} shape and "
                f"{face_model.expression_basis.shape[2]} expression modes: parameters are for 40 and 10"
            )
        self.face_model = face_model
        self.settings = settings or SyntheticSettings()
        self.head = Head(face_model)
        self.paint = Paint(self.head)
        self._photographs = (
            background.read_photographs(self.settings.photographs, self.settings.photograph_limit)
            if self.settings.photographs
            else []
        )

    def render_face(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Floats, Floats]:
        """One face.

        Parameters
        ----------
        rng : numpy.random.Generator
            Decides all of it.

        Returns
        -------
        crop : (184, 184, 3) uint8
            BGR, with the margin of `Samples`.
        parameters : (62,) float32
            Of the inner 120 px crop, in the frame in which networks answer. The landmarks' mean third coordinate is 0.
        landmarks : (68, 2) float32
            Inner crop pixels.
        """
        parameters = self.random_parameters(rng)
        return self._picture(rng, parameters), parameters, self._landmarks(parameters)

    def random_parameters(self, rng: np.random.Generator) -> Floats:
        """Pose, shape and expression of one face, (62,) float32, as in `render_face`."""
        rotation = rotation_from_euler(*self._angles(rng)) @ HEAD_IN_MODEL.T
        return self._parameters(rotation, self._coefficients(rng))

    def samples(self, n: int, seed: int, workers: int = 1, *, progress: bool = False) -> Samples:
        """Many faces; the i-th depends on the seed and i alone.

        Parameters
        ----------
        n : int
        seed : int
        workers : int
            Processes. (A face takes about 15 ms of a core. Who renders in processes or threads of his own does well to
            set ``OPENBLAS_NUM_THREADS=1``.)
        progress : bool
            Show a bar on standard error.
        """
        chunks = [range(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
        with tqdm(total=n, unit="face", disable=not progress) as bar, ExitStack() as stack:
            parts: Iterable[tuple[NDArray[np.uint8], Floats, Floats]]
            if workers > 1 and len(chunks) > 1:
                stack.enter_context(_one_thread_each())
                context, start = get_context("spawn"), (os.getpid(), self.face_model, self.settings)
                pool = ProcessPoolExecutor(min(workers, len(chunks)), context, _start_worker, start)
                stack.callback(pool.shutdown, cancel_futures=True)
                with deaf_to_ctrl_c():
                    parts = pool.map(_work, [(seed, chunk) for chunk in chunks])
            else:
                parts = (self._many(seed, chunk) for chunk in chunks)
            crops = np.zeros((n, WIDE_SIZE, WIDE_SIZE, 3), np.uint8)
            parameters, landmarks = np.zeros((n, 62), np.float32), np.zeros((n, 68, 2), np.float32)
            for chunk, part in zip(chunks, parts, strict=True):
                crops[chunk.start : chunk.stop], parameters[chunk.start : chunk.stop] = part[:2]
                landmarks[chunk.start : chunk.stop] = part[2]
                bar.update(len(chunk))
        return Samples(
            crops=crops,
            parameters=parameters,
            landmarks=landmarks,
            landmark_weights=np.ones((n, 68), np.float32),
            parameter_weights=np.ones(n, np.float32),
            names=np.array([f"synthetic_{seed}_{i:06d}" for i in range(n)], np.str_).reshape(n),
        )

    def _many(self, seed: int, indices: range) -> tuple[NDArray[np.uint8], Floats, Floats]:
        crops = np.zeros((len(indices), WIDE_SIZE, WIDE_SIZE, 3), np.uint8)
        parameters = np.zeros((len(indices), 62), np.float32)
        landmarks = np.zeros((len(indices), 68, 2), np.float32)
        for place, i in enumerate(indices):
            crops[place], parameters[place], landmarks[place] = self.render_face(np.random.default_rng([seed, i]))
        return crops, parameters, landmarks

    # --- what is drawn --------------------------------------------------------------------------------------------

    def _angles(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Yaw, pitch, roll in radians."""
        s = self.settings
        yaw = rng.uniform(-s.yaw, s.yaw)
        pitch, roll = rng.uniform(-1, 1, 2) if rng.random() < 0.25 else np.clip(rng.normal(0, 0.3, 2), -1, 1)
        return float(np.radians(yaw)), float(np.radians(pitch * s.pitch)), float(np.radians(roll * s.roll))

    def _coefficients(self, rng: np.random.Generator) -> Floats:
        s = self.settings
        shape = np.clip(rng.normal(0, 1, 40), -s.shape_limit, s.shape_limit) * s.shape_spread
        names = self.face_model.expression_names
        strength = rng.choice([0.3, 0.8, 1.3], p=[0.35, 0.45, 0.2])
        expression = rng.normal(0, strength, 10)
        if rng.random() < 0.3:  # one that stands out
            expression[rng.integers(10)] += rng.normal(0, 1.5)
        if names:
            at = {name: i for i, name in enumerate(names)}
            closed = rng.uniform(1.5, 2.2) if rng.random() < 0.12 else rng.exponential(0.35)
            for name, value in (
                ("jaw_open", rng.exponential(0.7) if rng.random() < 0.45 else rng.normal(0, 0.1)),
                ("smile", rng.uniform(0.3, 2.2) if rng.random() < 0.4 else rng.normal(0, 0.35)),
                ("eye_close_left", closed + rng.normal(0, 0.15)),
                ("eye_close_right", closed + rng.normal(0, 0.15)),
            ):
                if name in at:
                    expression[at[name]] = value if name == "smile" else max(value, -0.3)
            if rng.random() < 0.03 and "eye_close_left" in at:  # a wink
                expression[at["eye_close_left" if rng.random() < 0.5 else "eye_close_right"]] = rng.uniform(1.2, 2.2)
        limit = 2.75
        return np.concatenate([shape, np.clip(expression, -limit, limit) * s.expression_spread]).astype(np.float32)

    def _parameters(self, rotation: NDArray[Any], coefficients: Floats) -> Floats:
        """Parameters with the camera that puts the landmarks where the canonical crop has them."""
        points = self.face_model.landmark_points(coefficients[None])[0].astype(np.float64)
        seen = points @ rotation.T
        to_image = crop_to_image(square_from_landmarks(seen))
        image_from_model = np.hstack([rotation, np.array([[0.0], [0.0], [-seen[:, 2].mean()]])])
        scale = 1 / to_image[0, 0]
        crop = scale * image_from_model
        crop[:2, 3] -= scale * to_image[:2, 2]
        camera = np.linalg.inv(CROP_FROM_NETWORK) @ np.vstack([crop, [0, 0, 0, 1]])
        return np.concatenate([camera[:3].ravel(), coefficients]).astype(np.float32)

    def _landmarks(self, parameters: Floats) -> Floats:
        points = self.face_model.landmark_points(parameters[None, 12:])
        return np.asarray(transform(cameras_in_crop(parameters[None]), points)[0, :, :2], np.float32)

    # --- how it is drawn ------------------------------------------------------------------------------------------

    def _picture(self, rng: np.random.Generator, parameters: Floats) -> NDArray[np.uint8]:
        import cv2

        model, head, unit = self.face_model, self.head, np.float32(self.face_model.unit)
        coefficients = np.stack([parameters[12:], parameters[12:]])
        coefficients[1, 40:] = 0
        face = model.vertices(coefficients[:1])[0] * unit
        at, neutral = model.landmark_points(coefficients) * unit
        person, lights = random_person(rng), random_lights(rng)
        camera = cameras_in_crop(parameters[None])[0]
        rotation = decompose_camera(camera).rotation
        turn = rotation.astype(np.float32)  # head's frame to camera's

        # The torso follows the head only in part.
        yaw, pitch, _ = euler_from_rotation(head_rotation(rotation))
        with_yaw, with_pitch = rng.uniform(0.1, 1.0), rng.uniform(0.0, 0.6)
        torso_turn = rotation_from_euler(yaw * with_yaw, pitch * with_pitch, rng.normal(0, 0.08)) @ HEAD_IN_MODEL.T
        torso_in_head = rotation.T @ torso_turn
        width = float(np.clip(rng.normal(1.0, 0.1), 0.8, 1.3))
        points, chart = head.body(face, torso_in_head, ear_angle=rng.uniform(0.2, 0.65), neck_width=width)

        # What will not be seen is not painted. Shapes differ from the mean by less than the slope allowed for here.
        hidden = head.normals @ turn[2] > 0.5
        albedo, gloss, relief = self.paint.skin(rng, person, hidden)
        brightest = int((lights.sun_colours.sum(1)).argmax())
        self.paint.eyes_on(rng, person, points, neutral, lights.sun_directions[brightest] @ turn, albedo, gloss)
        worn = hair.random_headwear(rng, person, head, chart)
        self.paint.scalp(rng, worn.hairline, albedo, person.hair, worn.scalp)
        if worn.covers_ears:
            points[head.ears] = head.centre
        if worn.cloth is not None and worn.covers_neck:
            albedo[head.neck] = worn.cloth
        # Wrinkles are seen by the shading that they cause, not by their shape.
        bumpy = points + head.normals * relief[:, None]

        in_head = list(worn.parts) if self.settings.headwear else []
        in_head += extras.mouth(rng, head, neutral, at)
        lens, opacity = None, 0.0
        if rng.random() < self.settings.glasses:
            frames, lens, opacity = extras.glasses(rng, head, neutral, chart)
            in_head += frames
        clothes = [extras.torso(rng, head, person, width)]
        if rng.random() < 0.5:
            clothes.append(extras.collar(rng, head, worn.cloth if worn.cloth is not None else hair.cloth_colour(rng)))
        in_head += [p._replace(points=head.torso_points(p.points, torso_in_head)) for p in clothes]
        others = [p._replace(points=turned(p.points, turn)) for p in in_head]
        if rng.random() < self.settings.occluders:
            others += extras.occluder(rng, head, person, at @ turn.T)

        body = Part(turned(points, turn), head.triangles, albedo, gloss)
        scene = _joined([body, *others])
        normals = np.empty_like(scene.points)
        shaded_points = scene.points.copy()
        shaded_points[: len(points)] = turned(bumpy, turn)
        fill_normals(shaded_points, scene.triangles, normals)
        sky = np.ones(len(scene.points), np.float32)
        sky[: len(points)] = head.sky
        colours = self._lit(rng, lights, scene, normals, sky, hidden, turn, person)
        if self.settings.marks:
            around = np.isin(model.triangles, model.landmarks).any(axis=1)
            colours[model.triangles[around].ravel()] = (0, 255, 0)
        side = round(WIDE_SIZE * _FINER)
        # Of the closed body nothing is seen from behind.
        away = normals[: len(points), 2] > 0.1
        a, b, c = head.corners
        seen = np.flatnonzero(~(away[a] & away[b] & away[c]))
        triangles = np.concatenate([head.triangles[seen], scene.triangles[len(head.triangles) :]])
        picture = render([_finer(self.project(scene.points, camera))], triangles, colours, (side, side))
        result = cv2.resize(self._background(rng), (side, side), interpolation=cv2.INTER_LINEAR)
        cv2.copyTo(picture.colour, (picture.depth == picture.depth).view(np.uint8), result)
        if lens is not None and opacity > 0:
            lens = lens._replace(points=_finer(self.project(turned(lens.points, turn), camera)))
            self._lay_lens(rng, result, picture.depth, lens, opacity)
        return np.asarray(cv2.resize(result, (WIDE_SIZE, WIDE_SIZE), interpolation=cv2.INTER_AREA), np.uint8)

    def project(self, points: Floats, camera: Floats) -> Floats:
        """Where the crop shows points of the scene: weak perspective, as the network sees. (Another camera: override.)

        Parameters
        ----------
        points : (n, 3) float32
            Metres, from the origin of the head's frame, along the camera's axes: x right, y down, z away.
        camera : (3, 4) float32
            Face model to inner crop pixels.

        Returns
        -------
        (n, 3) float32
            x, y in inner crop pixels, third growing away from the viewer.
        """
        scale = decompose_camera(camera).scale / self.face_model.unit
        return np.asarray(points * np.float32(scale) + np.append(camera[:2, 3], np.float32(0)), np.float32)

    def _lit(
        self,
        rng: np.random.Generator,
        lights: Lights,
        scene: Part,
        normals: Floats,
        sky: Floats,
        hidden: NDArray[np.bool_],
        turn: Floats,
        person: Person,
    ) -> Floats:
        """Colours (n, 3) 0 .. 255 BGR of the points as a camera shows them."""
        centre = turn @ self.head.centre
        sun = (
            lit(scene.points, scene.triangles, lights.sun_directions[0], centre)
            if lights.casts
            else np.float32(0.35) + np.float32(0.65) * sky
        )
        light = np.empty_like(scene.points)
        power = np.float32(np.exp(rng.uniform(np.log(6), np.log(40))))
        left_out = np.zeros(len(scene.points), bool)
        left_out[: len(hidden)] = hidden
        shade(normals, scene.albedo, scene.gloss, sky, sun, *lights[:4], power, left_out, light)
        # Cameras expose for the face, more or less; dark faces stay darker than light ones.
        towards = np.flatnonzero(normals[self.head.face, 2] < -0.3)
        seen = light[towards[::7]].mean(axis=0) @ np.array([0.25, 0.65, 0.1])
        wanted = _FACE_TARGET * np.exp(-0.9 * person.melanin + rng.normal(0, 0.35))
        light *= np.float32(min(wanted, 0.6) / max(float(seen), 1e-6))
        # Film's shoulder, then gamma 2.
        light = np.float32(1.3) * light / (1 + np.float32(0.3) * light)
        return np.ascontiguousarray(np.sqrt(np.minimum(light, 1))[:, ::-1] * 255)

    def _background(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        if self._photographs and rng.random() < 0.5:
            return background.patch_of_photograph(rng, self._photographs, WIDE_SIZE)
        return background.random_background(rng, WIDE_SIZE)

    @staticmethod
    def _lay_lens(
        rng: np.random.Generator, picture: NDArray[np.uint8], depth: NDArray[np.float32], lens: Part, opacity: float
    ) -> None:
        """Tint what lies behind the lenses; a reflection across them."""
        drawn = render([lens.points], lens.triangles, np.zeros_like(lens.points), depth.shape, colour=False)
        over = np.isfinite(drawn.depth) & ~(depth < drawn.depth)
        rows, columns = np.nonzero(over)
        if not len(rows):
            return
        colour = np.sqrt(np.clip(lens.albedo[0, ::-1], 0, 1)) * 255
        angle, where, wide = rng.uniform(0, np.pi), rng.normal(0, 0.4), rng.uniform(0.05, 0.4)
        along = np.cos(angle) * (columns - columns.mean()) + np.sin(angle) * (rows - rows.mean())
        glare = np.exp(-(((along / (0.5 * np.ptp(columns) + 1) - where) / wide) ** 2)) * rng.exponential(0.25)
        before = picture[rows, columns] * (1 - opacity) + colour * opacity
        picture[rows, columns] = np.clip(before + np.minimum(glare, 0.9)[:, None] * (235 - before), 0, 255)


def _finer(points: Floats) -> Floats:
    """Inner crop pixels (n, 3) to pixels of the picture as it is drawn."""
    return points * np.float32(_FINER) + np.array([(MARGIN + 0.5) * _FINER - 0.5] * 2 + [0], np.float32)


def _joined(parts: list[Part]) -> Part:
    starts = np.cumsum([0, *(len(p.points) for p in parts)])
    return Part(
        np.ascontiguousarray(np.concatenate([p.points for p in parts]), np.float32),
        np.concatenate([p.triangles + np.int32(s) for p, s in zip(parts, starts, strict=False)]),
        np.ascontiguousarray(np.concatenate([p.albedo for p in parts]), np.float32),
        np.ascontiguousarray(np.concatenate([p.gloss for p in parts]), np.float32),
    )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile compute on one thread: BLAS would start as many as cores in each, for small sums."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker: SyntheticFaces | None = None


def _start_worker(parent: int, face_model: FaceModel, settings: SyntheticSettings) -> None:
    global _worker
    end_with_parent(parent)
    _worker = SyntheticFaces(face_model, settings)


def _work(job: tuple[int, range]) -> tuple[NDArray[np.uint8], Floats, Floats]:
    assert _worker is not None
    return _worker._many(*job)
