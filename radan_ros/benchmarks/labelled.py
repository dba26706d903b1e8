"""Labelled faces to measure on: AFLW2000-3D and AFLW in 3DDFA's files, and folders of pictures with 68 points.

3DDFA's benchmark, and RADAN's, which is the same, read two folders side by side, ``test.data`` (the unzipped
``test.data.zip``) and ``test.configs`` (from 3DDFA's repository):

===============================================  ==============================================================
``test.data/AFLW2000-3D_crop.list``              a file name a line; the order of all arrays below
``test.data/AFLW2000-3D_crop/``                  the crops, 120 x 120
``test.configs/AFLW2000-3D_crop.roi_box.npy``    (2000, 4) left, top, right, bottom of each crop in its picture
``test.configs/AFLW2000-3D.pts68.npy``           (2000, 3, 68) the original points, third towards the viewer
``test.configs/AFLW2000-3D-Reannotated.pts68.npy``  (2000, 2, 68) the points of Bulat and Tzimiropoulos (ICCV 2017)
``test.configs/AFLW2000-3D.pose.npy``            (2000,) yaw in degrees, of the fitted pose: 1312, 383, 305 faces
``test.configs/AFLW2000-3D-new.pose.npy``        (2000,) yaw in degrees, of AFLW's labels: 1306, 462, 232 faces
``test.data/AFLW_GT_crop.list``, ``AFLW_GT_crop/``  as above
``test.configs/AFLW_GT_crop_roi_box.npy``        (21080, 4)
``test.configs/AFLW_GT_pts21.npy``               (21080, 2, 21), -1 where a point is not visible
``test.configs/AFLW_GT_pts68.npy``               (21080, 2 or 3, 68), whose box errors are divided by the size of
``test.configs/AFLW_GT_crop_yaws.npy``           (21080,) degrees
``AFLW2000/`` or ``AFLW2000-3D/``, optional      the whole pictures with their ``.mat`` files, for poses and other crops
===============================================  ==============================================================

All of these count pixels as Matlab does: the first centre is 1, and a box ends with its last pixel. Boxes are cut off
at the edges of their pictures, crops are not (`faces.uncut_squares`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.benchmarks.faces import Annotation, Array, LabelledFaces, uncut_squares
from radan_ros.fitting import fit_landmarks
from radan_ros.model import open_face_model
from radan_ros.pictures import PICTURE_SUFFIXES, read_picture
from radan_ros.training.augmentation import turn_of
from radan_ros.training.evaluation import face_sizes, head_angles
from radan_ros.training.preparation import read_labelled_pictures

FITTED, LABELLED = "yaw of the fitted pose", "yaw of AFLW's labels"
_WHOLE_PICTURES = ("AFLW2000", "AFLW2000-3D")


@dataclass(frozen=True)
class Photographs:
    """Faces with 68 marked points and the yaw that a teacher saw.

    Attributes
    ----------
    name : str
    pictures : list of Path, or (N, H, W, 3) uint8 array
    landmarks : (N, 68, 2) float32
        Given, in pixels of each picture.
    yaw : (N,) float64
        Degrees.
    turns : (N,) float64
        Sines, see `augmentation.turn_of`.
    """

    name: str
    pictures: Any
    landmarks: NDArray[np.float32]
    yaw: Array
    turns: Array

    def __len__(self) -> int:
        return len(self.landmarks)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """One picture (H, W, 3); ValueError or OSError names the file that cannot be read."""
        given = self.pictures[index]
        return read_picture(given) if isinstance(given, Path) else np.ascontiguousarray(given)

    @classmethod
    def seen_by(
        cls, name: str, pictures: Any, landmarks: NDArray[np.float32], cameras: NDArray[np.float32]
    ) -> Photographs:
        """Faces whose turn is that of cameras (N, 3, 4)."""
        return cls(
            name, pictures, landmarks, head_angles(cameras)[:, 0], np.array([turn_of(c.ravel()) for c in cameras])
        )


def read_aflw2000(folder: str | Path) -> LabelledFaces:
    """AFLW2000-3D: 68 points in two annotations and two splits by yaw; see this module's head for the files.

    Raises
    ------
    ValueError, OSError
        Name the file and what is missing or does not fit.
    """
    pictures, squares, configs = _crops(Path(folder), "AFLW2000-3D_crop", ".roi_box")
    count = len(pictures)
    original = _points(configs / "AFLW2000-3D.pts68.npy", count, (3,), 68)
    again = _points(configs / "AFLW2000-3D-Reannotated.pts68.npy", count, (2, 3), 68)
    yaws = {
        FITTED: _numbers(configs / "AFLW2000-3D.pose.npy", (count,)),
        LABELLED: _numbers(configs / "AFLW2000-3D-new.pose.npy", (count,)),
    }
    whole = [Path(folder) / part for part in _WHOLE_PICTURES if (Path(folder) / part).is_dir()]
    return LabelledFaces(
        "AFLW2000-3D",
        pictures,
        (
            Annotation("original", original, face_sizes(original)),
            Annotation("re-annotated", again, face_sizes(again)),
        ),
        yaws,
        squares,
        uncut_squares(squares, original),
        origin=1,
        poses=_poses([whole[0] / f"{crop.stem}.mat" for crop in pictures]) if whole else None,
        whole=[whole[0] / crop.name for crop in pictures] if whole else None,
    )


def read_aflw(folder: str | Path) -> LabelledFaces:
    """AFLW: up to 21 visible points; see this module's head for the files.

    Raises
    ------
    ValueError, OSError
        Name the file and what is missing or does not fit.
    """
    pictures, squares, configs = _crops(Path(folder), "AFLW_GT_crop", "_roi_box")
    count = len(pictures)
    points = _points(configs / "AFLW_GT_pts21.npy", count, (2,), 21)
    visible = (points != -1).all(axis=2)
    of_68 = _points(configs / "AFLW_GT_pts68.npy", count, (2, 3), 68)
    return LabelledFaces(
        "AFLW",
        pictures,
        (Annotation("visible points", np.where(visible[..., None], points, np.nan), face_sizes(of_68)),),
        {LABELLED: _numbers(configs / "AFLW_GT_crop_yaws.npy", (count,))},
        squares,
        uncut_squares(squares, of_68),
        origin=1,
    )


def read_photographs(folder: Path, split: str) -> Photographs:
    """Photographs with 68 given points: ``images/`` and ``labels.npz`` (names, landmarks68_2d, split, teacher_camera).

    Raises
    ------
    ValueError
        Names the file and what is missing in it.
    """
    path = folder / "labels.npz"
    if not path.is_file():
        raise ValueError(f"{path} is missing: the evaluation needs labelled photographs (--data)")
    try:
        with np.load(path, allow_pickle=False) as file:
            needed = ("names", "landmarks68_2d", "split", "teacher_camera")
            missing = [name for name in needed if name not in file]
            if missing:
                raise ValueError(f"lacks {', '.join(missing)}")
            names, landmarks, splits, cameras = (file[name] for name in needed)
        for name, array, shape in zip(
            needed, (names, landmarks, splits, cameras), ((), (68, 2), (), (3, 4)), strict=True
        ):
            if array.shape != (len(names), *shape):
                raise ValueError(f"{name} has shape {array.shape}, not {(len(names), *shape)}")
    except Exception as e:  # zip and header errors of many kinds
        raise ValueError(f"{path}: {e}") from None
    chosen = splits == split
    if not chosen.any():
        raise ValueError(f"{path}: no photographs of the split '{split}' (there are {', '.join(np.unique(splits))})")
    pictures = [folder / "images" / str(name) for name in names[chosen]]
    return Photographs.seen_by(f"{folder.name} {split}", pictures, landmarks[chosen], cameras[chosen])


def read_ytf68(folder: str | Path, split: str = "val") -> LabelledFaces:
    """The photographs of ``ytf68`` (the folder itself or the one that it lies in), parted by their teacher's yaw."""
    root = Path(folder)
    faces = read_photographs(root / "ytf68" if (root / "ytf68").is_dir() else root, split)
    points = np.asarray(faces.landmarks, np.float64)
    return LabelledFaces(
        faces.name,
        faces.pictures,
        (Annotation("marked", points, face_sizes(points)),),
        {"yaw of the teacher": faces.yaw},
    )


def read_folder(folder: str | Path, split: str | None = None) -> LabelledFaces:
    """Any folder of pictures with 68 points: ``labels.npz`` as `radan-prepare` takes it, or a .pts file a picture.

    The yaw that parts them is that of the built-in face model fitted to the points.

    Raises
    ------
    ValueError, OSError
        Name the file and what is missing or wrong.
    """
    root, origin = Path(folder), 0
    if (root / "labels.npz").is_file():
        given = read_labelled_pictures(root, split)
        name = "marked" if given.marked is not None else "teacher"
        pictures = [root / "images" / str(name) for name in given.names]
        points = given.marked if given.marked is not None else given.teacher
        assert points is not None
        points = points[..., :2]
    else:
        if split is not None:
            raise ValueError(f"{root}: no split {split} without labels.npz")
        name, (pictures, points), origin = ".pts files", _pictures_with_pts(root), 1
    if not len(pictures):
        raise ValueError(f"{root}: no labelled pictures")
    yaw = head_angles(fit_landmarks(open_face_model("builtin"), points - origin).cameras)[:, 0]
    if not np.isfinite(yaw).all():
        raise ValueError(f"{pictures[int(np.argmin(np.isfinite(yaw)))]}: its points are too few, or no face")
    label = root.resolve().name + ("" if split is None else f" {split}")
    annotation = Annotation(name, points, face_sizes(points))
    return LabelledFaces(label, pictures, (annotation,), {"yaw of a fit": yaw}, origin=origin)


def read_pts(path: str | Path) -> Array:
    """68 points of a .pts file, (68, 2), as it counts: in iBUG's, which are Matlab's, the first pixel's centre is at 1.

    Raises
    ------
    ValueError
        Names the file.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    _, _, inside = text.partition("{")
    try:
        numbers = np.array([float(word) for word in inside.partition("}")[0].split()])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.size != 136 or not np.isfinite(numbers).all():
        raise ValueError(f"{path}: not 68 points between braces, x and y a line")
    return numbers.reshape(68, 2)


def _pictures_with_pts(root: Path) -> tuple[list[Path], Array]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    files = sorted(root.glob("*.pts"))
    if not files:
        raise ValueError(f"{root}: neither labels.npz nor .pts files in it")
    beside = {p.stem: p for p in root.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES}
    for path in files:
        if path.stem not in beside:
            raise ValueError(f"{path}: no picture of this name beside it")
    return [beside[path.stem] for path in files], np.stack([read_pts(path) for path in files])


def _crops(root: Path, name: str, boxes: str) -> tuple[list[Path], Array, Path]:
    """The crops in the order of their list, their boxes, and the folder of the arrays; errors name what is missing."""
    data, configs = root / "test.data", root / "test.configs"
    for folder, what in ((data, "the unzipped test.data.zip"), (configs, "of 3DDFA's repository")):
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing: {what} (--data names the folder that holds both)")
    path = data / f"{name}.list"
    names = [line.strip() for line in _present(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path}: names no pictures")
    squares = _numbers(configs / f"{name}{boxes}.npy", (len(names), 4))
    return [data / name / line for line in names], squares, configs


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is missing (the files that are needed: see docs/benchmarks.md)")
    return path


def numbers_of_shape(what: str, array: NDArray[Any], *shapes: tuple[int, ...]) -> Array:
    """An array of a file as float64; ValueError that starts with `what` where it has none of the shapes."""
    if array.shape not in shapes or array.dtype.kind not in "fiu":
        wanted = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{what} is {array.dtype} {array.shape}, not numbers {wanted}")
    return array.astype(np.float64)


def _numbers(path: Path, *shapes: tuple[int, ...]) -> Array:
    _present(path)
    try:
        array = np.load(path, allow_pickle=False)
    except OSError:
        raise
    except Exception as e:  # header errors of many kinds
        raise ValueError(f"{path}: not a .npy file of numbers: {e}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: is an archive, not one array of numbers")
    numbers = numbers_of_shape(f"{path}:", array, *shapes)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path}: holds numbers that are not finite")
    return numbers


def _points(path: Path, count: int, dimensions: tuple[int, ...], number: int) -> Array:
    """(count, dimensions, number) in a file to (count, number, dimensions)."""
    return _numbers(path, *((count, dimension, number) for dimension in dimensions)).transpose(0, 2, 1)


def _poses(files: Sequence[Path]) -> Array:
    """Pitch, yaw, roll of the .mat files that come with whole pictures, (N, 3) radians."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ImportError("poses in .mat files need SciPy: pip install scipy") from None
    poses = []
    for path in files:
        try:
            pose = np.asarray(loadmat(path)["Pose_Para"], np.float64).ravel()
        except OSError:
            raise
        except Exception as e:  # many kinds
            raise ValueError(f"{path}: no Pose_Para in it: {' '.join(str(e).split())}") from None
        if pose.size < 3 or not np.isfinite(pose[:3]).all():
            raise ValueError(f"{path}: Pose_Para is not pitch, yaw, roll and more")
        poses.append(pose[:3])
    return np.array(poses)
