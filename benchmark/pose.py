#!/usr/bin/env python3
"""Error of the metric pose on rendered heads whose pose is known, through the whole pipeline.

Textured heads (the training's renderer, but in true perspective) are put before a camera at 0.4 to 4 m, in its middle
and 25 degrees to the side, turned by up to 75 degrees. A square about the face, as far off as a detector's, goes to the
network, then the square about its answer, as when a face is followed; then to the fit. Compared on the same answers:

  perspective   `metric_face`: pose and, within limits, shape
  rigid PnP     OpenCV's fit of the network's shape to the network's landmarks
  weak          the network's own camera: its rotation, and the distance of its scale along the ray

The same for answers without any error but that of weak perspective: the best fits of its cameras and shapes to the true
landmarks. Prints tables and draws them. Translations are in percent of the distance; no image tells the size
of a head, so they are given with the size known, and for heads that vary in size by 4 %.

usage: python benchmark/pose.py [MODEL] [--faces N] [--out FILE] [--sheet FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from radan_ros import Pipeline, boxes, fit_landmarks, open_model  # noqa: E402
from radan_ros.camera import CameraModel  # noqa: E402
from radan_ros.face import Face  # noqa: E402
from radan_ros.face_models import FaceModel  # noqa: E402
from radan_ros.metric import SELLION, metric_face, to_head_frame  # noqa: E402
from radan_ros.pipeline import transform  # noqa: E402
from radan_ros.pose import HEAD_IN_MODEL, decompose_camera, head_rotation, looking_along, rotation_from_euler  # noqa: E402
from radan_ros.training.samples import MARGIN, WIDE_SIZE  # noqa: E402
from radan_ros.training.synthetic import SyntheticFaces, SyntheticSettings  # noqa: E402

Array = NDArray[np.float64]

DISTANCES = (0.4, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0)  # metres
YAWS = (-75, -50, -25, 0, 25, 50, 75)  # degrees against the ray of the face
SIDES = (0, 25)  # degrees between that ray and the optical axis
CAMERA = CameraModel.from_field_of_view((720, 1280), np.radians(60))
SIZE_SPREAD = 0.04
METHODS = ("perspective", "rigid PnP", "weak")
COLOURS = ("tab:blue", "tab:orange", "tab:grey")


@dataclass(frozen=True)
class Scene:
    """A head before the camera: pose in the camera frame (metres), and the part of the image around it.

    `image` is a window of what `CAMERA` sees, at its resolution or, of large faces, at that of the renderer; `camera`
    is the camera whose whole image that is. `roi` is the square around the true `landmarks` (68, 2).
    """

    distance: float
    side: int
    yaw: int
    rotation: Array
    position: Array
    image: NDArray[np.uint8]
    camera: CameraModel
    roi: Array
    landmarks: Array


class PerspectiveFaces(SyntheticFaces):
    """The training's heads, seen by a pinhole camera."""

    def look(self, rng: np.random.Generator, distance: float, side: int, yaw: int) -> Scene:
        """A random head about that far off and turned that far."""
        # Off to the left or right, and a little up or down.
        ray = np.array([rng.choice([-1, 1]) * np.tan(np.radians(side)), rng.uniform(-0.05, 0.05), 1.0])
        ray /= np.linalg.norm(ray)
        angles = [yaw + rng.uniform(-8, 8), rng.uniform(-15, 15), rng.uniform(-10, 10)]
        self._ahead = looking_along(ray)
        seen_from_ray = rotation_from_euler(*np.radians(angles))
        rotation, position = self._ahead @ seen_from_ray, distance * ray
        coefficients = self._coefficients(rng)
        points = self.face_model.landmark_points(coefficients[None])[0]
        self._origin = position - self.face_model.unit * (rotation @ HEAD_IN_MODEL.T) @ points[SELLION]
        in_head = to_head_frame(points, points[SELLION], self.face_model.unit)
        landmarks = CAMERA.project(in_head @ rotation.T + position).astype(np.float64)
        square = boxes.square_from_landmarks(landmarks)
        self._crop_from_image = np.linalg.inv(boxes.crop_to_image(square))
        picture = self._picture(rng, self._parameters(seen_from_ray @ HEAD_IN_MODEL.T, coefficients))
        pixels = min(WIDE_SIZE, round(float(square[2] - square[0]) / boxes.CROP_SIZE * WIDE_SIZE))
        image = cv2.resize(picture, (pixels, pixels), interpolation=cv2.INTER_AREA)
        s = pixels / WIDE_SIZE
        shrunk = np.array([[s, 0, s * (MARGIN + 0.5) - 0.5], [0, s, s * (MARGIN + 0.5) - 0.5], [0, 0, 1]])
        window = shrunk @ self._crop_from_image
        roi = s * np.array([MARGIN, MARGIN, MARGIN + boxes.CROP_SIZE, MARGIN + boxes.CROP_SIZE])
        camera = CameraModel(image.shape[:2], window @ CAMERA.matrix, np.zeros(0))
        landmarks = landmarks @ window[:2, :2].T + window[:2, 2]
        return Scene(distance, side, yaw, rotation, position, image, camera, roi, landmarks)

    def project(self, points: NDArray[np.float32], camera: NDArray[np.float32]) -> NDArray[np.float32]:
        in_camera = points @ self._ahead.T + self._origin
        pixels = CAMERA.project(in_camera) @ self._crop_from_image[:2, :2].T + self._crop_from_image[:2, 2]
        return np.column_stack([pixels, in_camera[:, 2]]).astype(np.float32)


def followed(pipeline: Pipeline, rng: np.random.Generator, scene: Scene) -> Face | None:
    """The network's answer on the square around its answer on a square that is off as a detector's."""
    side = scene.roi[2] - scene.roi[0]
    off = np.tile(rng.uniform(-0.06, 0.06, 2), 2) + rng.uniform(-0.05, 0.05) * np.array([-1, -1, 1, 1])
    for face in pipeline.regress(scene.image, [scene.roi + side * off]):
        return next(iter(pipeline.regress(scene.image, [boxes.square_from_landmarks(face.landmarks)])), None)
    return None


def best_weak(face_model: FaceModel, scene: Scene) -> Face:
    """The answer of a network of weak perspective that knows the landmarks."""
    fit = fit_landmarks(face_model, scene.landmarks[None], contour=False, robust=False)
    landmarks = transform(fit.cameras, face_model.landmark_points(fit.coefficients))[0]
    parameters = np.concatenate([np.zeros(12), fit.coefficients[0]]).astype(np.float32)
    return Face(boxes.square_from_landmarks(landmarks), float("nan"), parameters, fit.cameras[0], landmarks)


def rigid_pnp(face: Face, face_model: FaceModel, camera: CameraModel) -> tuple[Array, Array]:
    """Rotation and position of the head by OpenCV, from the network's shape and landmarks."""
    points = face_model.landmark_points(face.coefficients[None])[0]
    in_head = to_head_frame(points, points[SELLION], face_model.unit)
    rays = camera.unproject(face.landmarks[:, :2])
    _, vector, position = cv2.solvePnP(in_head, rays, np.eye(3), np.zeros(0), flags=cv2.SOLVEPNP_SQPNP)
    vector, position = cv2.solvePnPRefineLM(in_head, rays, np.eye(3), np.zeros(0), vector, position)
    return cv2.Rodrigues(vector)[0], position.ravel()


def weak_pose(face: Face, face_model: FaceModel, camera: CameraModel) -> tuple[Array, Array]:
    """Rotation and position of the head by the network's camera alone."""
    weak = decompose_camera(face.camera)
    z = np.sqrt(camera.matrix[0, 0] * camera.matrix[1, 1]) * face_model.unit / weak.scale
    return head_rotation(weak.rotation), z * np.append(camera.unproject(face.landmarks[[SELLION], :2])[0], 1.0)


def angle(a: Array, b: Array) -> float:
    """Degrees between two rotations."""
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


@dataclass
class Result:
    """Of one scene: errors by method, degrees and percent of the distance."""

    scene: Scene
    turned: list[float]
    moved: list[float]
    moved_unknown_size: list[float]
    surprise: float  # squared Mahalanobis distance of the pose from the truth; 6 on average if the covariance is right
    pixels: tuple[float, float]  # mean landmark error of the answer and of the fit, percent of the face


def measured(face: Face, face_model: FaceModel, scene: Scene, size: float) -> Result:
    """Errors of all methods; `size` is that of the head, against the face model's."""
    fit = metric_face(face, face_model, scene.camera)
    poses = [
        (fit.pose.rotation, fit.pose.translation),
        rigid_pnp(face, face_model, scene.camera),
        weak_pose(face, face_model, scene.camera),
    ]
    # The same image shows a head `size` times as large as far again: it is there, and answered as if it were not.
    true = size * scene.position
    moved = [100 * float(np.linalg.norm(p - scene.position)) / scene.distance for _, p in poses]
    unknown = [100 * float(np.linalg.norm(p - true) / np.linalg.norm(true)) for _, p in poses]
    small = fit.pose.rotation @ scene.rotation.T
    vector, _ = cv2.Rodrigues(small)
    error = np.concatenate([fit.pose.translation - true, vector.ravel()])
    face_size = np.sqrt(np.ptp(scene.landmarks, axis=0).prod())
    pixels = [
        100 * float(np.linalg.norm(found - scene.landmarks, axis=1).mean() / face_size)
        for found in (face.landmarks[:, :2], fit.landmarks_px)
    ]
    return Result(
        scene,
        [angle(r, scene.rotation) for r, _ in poses],
        moved,
        unknown,
        float(error @ np.linalg.solve(fit.pose.covariance, error)),
        (pixels[0], pixels[1]),
    )


def table(title: str, results: list[Result], rows: list[tuple[str, NDArray[np.bool_]]]) -> None:
    """Mean errors of each group of results."""
    heads = "".join(f" {name:>12} |" for name in METHODS * 3)
    print(f"\n| {title:24} | faces |{heads}\n|{'-' * 26}|------:|{'-------------:|' * 9}")
    values = np.array([r.turned + r.moved + r.moved_unknown_size for r in results])
    for name, chosen in rows:
        print(f"| {name:24} | {chosen.sum():5} |" + "".join(f" {v:12.2f} |" for v in values[chosen].mean(axis=0)))


def draw(results: list[Result], best: list[Result], path: Path) -> None:
    """Errors over distance and over yaw, and over distance of the best weak-perspective answers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.4), sharey="row", layout="constrained")
    columns = (
        ("the network's answers", results, "distance", DISTANCES, "distance, metres"),
        ("the network's answers", results, "yaw", YAWS, "yaw against the ray of the face, degrees"),
        ("weak-perspective answers without other errors", best, "distance", DISTANCES, "distance, metres"),
    )
    labels = ("rotation error, degrees", "translation error, % of the distance\n(size of the head known)")
    for column, (title, which, over, ticks, label) in enumerate(columns):
        axes[0, column].set_title(title, fontsize=10)
        axes[1, column].set_xlabel(label)
        places = np.array([getattr(r.scene, over) for r in which])
        sides = np.array([r.scene.side for r in which])
        for axis, errors in zip(axes[:, column], ([r.turned for r in which], [r.moved for r in which]), strict=True):
            for method, colour, values in zip(METHODS, COLOURS, np.array(errors).T, strict=True):
                for side, style in zip(SIDES, ("-", "--"), strict=True):
                    means = [values[(places == tick) & (sides == side)].mean() for tick in ticks]
                    name = f"{method}, {f'{side} degrees to the side' if side else 'ahead'}"
                    axis.plot(ticks, means, style, color=colour, marker="o", markersize=3, label=name)
            if over == "distance":
                axis.set_xscale("log")
                axis.minorticks_off()
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.grid(alpha=0.3)
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(0)
    axes[0, 0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="model folder; without it the built-in model")
    parser.add_argument("--faces", type=int, default=8, help="heads for each distance, side and yaw (8)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images" / "pose_accuracy.png")
    parser.add_argument("--sheet", type=Path, help="write a picture of one head each here, for looking at")
    options = parser.parse_args()
    model = open_model(options.model)
    pipeline, face_model = Pipeline(model), model.face_model
    # Somewhat milder than in training: faces as people have them.
    heads = PerspectiveFaces(
        open_model().face_model, SyntheticSettings(shape_spread=0.8, expression_spread=0.7, glasses=0.1, occluders=0)
    )
    results, best, faces, sheet = [], [], [], []
    for distance in DISTANCES:
        for side in SIDES:
            for yaw in YAWS:
                for i in range(options.faces):
                    rng = np.random.default_rng([3, round(10 * distance), side, yaw + 100, i])
                    scene = heads.look(rng, distance, side, yaw)
                    if i == 0:
                        sheet.append(cv2.resize(scene.image, (92, 92), interpolation=cv2.INTER_AREA))
                    face = followed(pipeline, rng, scene)
                    if face is None:
                        continue
                    size = float(rng.normal(1, SIZE_SPREAD))
                    faces.append((face, scene))
                    results.append(measured(face, face_model, scene, size))
                    best.append(measured(best_weak(heads.face_model, scene), heads.face_model, scene, size))
    if options.sheet:
        columns = len(YAWS) * len(SIDES)
        cv2.imwrite(
            str(options.sheet), np.vstack([np.hstack(sheet[k : k + columns]) for k in range(0, len(sheet), columns)])
        )

    print(
        f"model {model.name}; {len(DISTANCES) * len(SIDES) * len(YAWS) * options.faces} rendered heads in a "
        f"{CAMERA.size[1]}x{CAMERA.size[0]} image of 60 degrees, {len(results)} answers of the network.\n"
        "Means: rotation error, degrees | translation error, % of the distance, size of the head known | the same for "
        f"heads that vary in size by {SIZE_SPREAD:.0%}"
    )
    distances = np.array([r.scene.distance for r in results])
    sides, yaws = np.array([r.scene.side for r in results]), np.array([r.scene.yaw for r in results])
    over_distance = [(f"{d:g}", distances == d) for d in DISTANCES]
    table("distance, m", results, over_distance)
    table("yaw, degrees", results, [(f"{y:+d}", yaws == y) for y in YAWS])
    table("off the axis, degrees", results, [(f"{s}", sides == s) for s in SIDES])
    table("together", results, [("all", distances > 0), ("yaw up to 25", abs(yaws) <= 25)])
    print("\nWeak-perspective answers without error of their own:")
    table("distance, m", best, over_distance)

    print("\nlandmarks in the image, mean error in % of the face, of the answer and of the fit to it:")
    for name, chosen in over_distance:
        pairs = [np.array([r.pixels for r in which])[chosen].mean(axis=0) for which in (results, best)]
        print(
            f"  {name} m: network {pairs[0][0]:.2f} and {pairs[0][1]:.2f}; best {pairs[1][0]:.2f} and {pairs[1][1]:.2f}"
        )
    surprise = np.array([r.surprise for r in results])
    print(
        "squared Mahalanobis distance of the pose from the truth, 6 if the covariance is right (size unknown): "
        f"mean {surprise.mean():.1f}, median {np.median(surprise):.1f} (5.3), over 12.6: {np.mean(surprise > 12.6):.1%}"
    )
    passes = []
    for _ in range(10):
        started = time.process_time()
        for face, scene in faces[:50]:
            metric_face(face, face_model, scene.camera)
        passes.append(1e3 * (time.process_time() - started) / len(faces[:50]))
    print(f"metric_face: {min(passes):.2f} ms a face (processor time, best of ten passes)")
    draw(results, best, options.out)


if __name__ == "__main__":
    main()
