"""Face profiling: a photographed face turned in 3D, as 300W-LP was made (Zhu et al., CVPR 2016, section 4).

Large poses are rare in photographs. The fitted face model gives depth inside the face; around it the depth is carried
on and falls back, so that ears, hair and neck turn along. Further out the picture stays as it was: every pixel of a
grid moves by a share of the head's turn that fades from 1 at the face to 0 at the edge of a square around the head.
The grid is one sheet, so nothing tears, and where the sheet folds the nearer part hides the other. What the photograph
does not show stays hidden only while the head turns further to the side it already shows less of: turn so that the
absolute yaw grows.

The labels are exact: the new camera is the old one turned about the same point of the model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.boxes import square_from_landmarks
from radan_ros.face_models import FaceModel
from radan_ros.pipeline import check_image, transform
from radan_ros.pose import FACING, rotation_from_euler
from radan_ros.rendering import Renderer

_SQUARE = 1.9  # side of the turned square over that of the square around the landmarks
# All in sizes of the face, the larger side of its landmarks' box:
_BACK = 0.40  # how far behind the ears the sheet ends up beside the face
_FALL = 0.30  # distance from the face in which it has fallen back by 63 %
_RIGID = 0.04  # distance from the face up to which pixels turn with the head entirely
_FADE = 0.55  # distance from there at which they stay where they are
_FADE_AHEAD = 0.15  # the same on the side that the head turns to, where the sheet goes behind the head
_SMOOTH = 0.04  # standard deviation of the blur of the depth around the face
_Array = NDArray[np.float64]


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> _Array:
    """Rotation of a head seen in the image, from angles in degrees.

    Parameters
    ----------
    yaw, pitch, roll : float
        Signs as in `radan_ros.pose.euler_from_rotation`: to the subject's left, nose down, to the right shoulder. The
        axes are those of a head that faces the camera, in its order: roll first, yaw last.

    Returns
    -------
    (3, 3) float64
        Acts on image coordinates: x right, y down, third away from the viewer.
    """
    return np.asarray(rotation_from_euler(*np.deg2rad([yaw, pitch, roll])) @ FACING.T)


def turned_camera(camera: ArrayLike, rotation: ArrayLike, centre: ArrayLike) -> NDArray[np.float32]:
    """A (3, 4) camera after a rotation (3, 3) of the image's space about a point (3,) of the model, which stays."""
    old, q, point = np.asarray(camera, np.float64), _checked(rotation), np.asarray(centre, np.float64)
    linear = q @ old[:, :3]
    offset = old[:, :3] @ point + old[:, 3] - linear @ point
    return np.column_stack([linear, offset]).astype(np.float32)


class TurnableFace:
    """A photographed face with its fitted model, ready to be turned many times.

    Parameters
    ----------
    image : (H, W, 3) uint8
    face_model : FaceModel
    camera : (3, 4) array_like
        Model to image pixels, third axis away from the viewer in the same scale: a scaled rotation.
    coefficients : (modes,) array_like
    size : float
        Pixels, the larger side of the landmarks' box in the turned sheet. Smaller faces are enlarged to it.

    Raises
    ------
    ValueError
        When the arguments do not fit, or the face lies outside the image.

    Attributes
    ----------
    centre : (3,) float64
        Point of the model that turns stay about: between the ears (landmarks 0 and 16).
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        face_model: FaceModel,
        camera: ArrayLike,
        coefficients: ArrayLike,
        *,
        size: float = 95.0,
    ) -> None:
        import cv2

        check_image(image)
        self.camera = np.asarray(camera, np.float64)
        values = np.asarray(coefficients, np.float32)
        if self.camera.shape != (3, 4) or not np.isfinite(self.camera).all():
            raise ValueError(f"the camera is {self.camera.shape}, not 3 x 4 finite numbers")
        if not 8 <= size < np.inf:
            raise ValueError(f"a size of {size} pixels, not at least 8")
        if np.linalg.det(self.camera[:, :3]) <= 0:
            raise ValueError("the camera is no scaled rotation: it mirrors, or has no extent")
        shape = face_model.vertices(values[None])
        points = shape[0, face_model.landmarks]
        self.centre = points[[0, 16]].mean(axis=0).astype(np.float64)
        landmarks = transform(self.camera[None].astype(np.float32), points[None])[0]
        self.image = image
        self._size = size
        roi = square_from_landmarks(landmarks).astype(np.float64)
        middle, half = (roi[:2] + roi[2:]) / 2, (roi[2] - roi[0]) / 2 * _SQUARE
        height, width = image.shape[:2]
        if not (half > 1 and (middle > 0).all() and middle[0] < width and middle[1] < height):
            raise ValueError("the face does not lie in the image")
        scale = size * np.sqrt(2) / (roi[2] - roi[0])  # sheet pixels per image pixel
        side = int(np.ceil(2 * half * scale))
        self._to_sheet = np.array(
            [
                [scale, 0, (side - 1) / 2 - scale * (middle[0] - 0.5)],
                [0, scale, (side - 1) / 2 - scale * (middle[1] - 0.5)],
                [0, 0, 1],
            ]
        )
        sheet = extended(image, self._to_sheet, side, side)
        in_sheet = _in_depth(self._to_sheet) @ np.vstack([self.camera, [0, 0, 0, 1]])
        mesh = transform(in_sheet[None, :3].astype(np.float32), shape)
        self._middle = in_sheet[:3] @ np.append(self.centre, 1)  # of the turn, in the sheet
        triangles, self._columns, self._rows, self._edge = _grid(side)
        self._up = self._above().reshape(side, side)
        seen = _face_renderer(face_model).render(mesh, (side, side), colour=False).depth
        known = np.isfinite(seen)
        if not known.any():
            raise ValueError("the face model is not seen by its camera")
        # Distance from, and depth of, the nearest pixel of the face.
        distance, labels = cv2.distanceTransformWithLabels(
            (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        nearest = np.zeros(int(labels.max()) + 1, np.float32)
        nearest[labels[known]] = seen[known]
        self._distance = distance / np.float32(size)
        back = np.float32(self._middle[2] + _BACK * size)
        carried = nearest[labels]
        # At once beside the face, which ends where it turns away from the viewer; above the forehead as a dome.
        fallen = self._distance / np.float32(_FALL)
        carried += (back - carried) * (1 - np.exp(-fallen * (1 + self._up * (fallen - 1))))
        smooth = cv2.GaussianBlur(carried, (0, 0), _SMOOTH * size)
        self._depth = np.where(known, seen, smooth).astype(np.float32)
        # The renderer cuts fractions off: half a step more rounds them.
        self._renderer = Renderer(triangles, np.minimum(sheet.reshape(-1, 3) + np.float32(0.5), np.float32(255)))

    def _above(self) -> NDArray[np.float32]:
        """How far each pixel of the sheet is above the head's centre rather than beside it, 0 .. 1."""
        x, y = self._columns - self._middle[0], self._rows - self._middle[1]
        up = self.camera[:2, 1] / np.linalg.norm(self.camera[:, 1])
        return np.clip(2 * (x * up[0] + y * up[1]) / np.sqrt(x * x + y * y + 1), 0, 1).astype(np.float32)

    def turned(self, rotation: ArrayLike) -> NDArray[np.float32]:
        """The camera (3, 4) after a turn, in the image's pixels."""
        return turned_camera(self.camera, rotation, self.centre)

    def picture(
        self, rotation: ArrayLike, from_image: ArrayLike | None = None, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """The picture after a turn.

        Parameters
        ----------
        rotation : (3, 3) array_like
            In the image's space, see `turn`.
        from_image : (3, 3) array_like, optional
            Affine map, of one scale, from image pixels to those of the picture; without it the image's own.
        size : (height, width), optional
            Of the picture; without it the image's.

        Returns
        -------
        (height, width, 3) uint8
        """
        import cv2

        height, width = size or self.image.shape[:2]
        q = _checked(rotation)
        to_picture = np.eye(3) if from_image is None else np.asarray(from_image, np.float64)
        points = self._moved(q)
        placed = _in_depth(to_picture @ np.linalg.inv(self._to_sheet)).astype(np.float32)
        # Drawn twice as fine and averaged, so that the outlines of nose and chin have no steps.
        placed[:3] *= 2
        placed[:2, 3] += 0.5
        rendering = self._renderer.render((points @ placed[:3, :3].T + placed[:3, 3])[None], (2 * height, 2 * width))
        picture = cv2.resize(rendering.colour, (width, height), interpolation=cv2.INTER_AREA)
        # Beyond the sheet the picture is as it was.
        empty = np.isnan(rendering.depth).reshape(height, 2, width, 2).any(axis=(1, 3))
        if empty.any():
            picture[empty] = extended(self.image, to_picture, height, width)[empty]
        return np.asarray(picture, np.uint8)

    def _moved(self, q: _Array) -> NDArray[np.float32]:
        """The sheet's pixels after a turn, (side ** 2, 3)."""
        x, y = self._columns - np.float32(self._middle[0]), self._rows - np.float32(self._middle[1])
        z = self._depth.ravel() - np.float32(self._middle[2])
        r = q.astype(np.float32)
        # Which way the nose goes: there the sheet passes behind the head, and has to come out as soon as it can. Not
        # above the face, where hair turns with the head on all sides.
        ahead = np.clip((x * -r[0, 2] + y * -r[1, 2]) / np.sqrt(x * x + y * y + 1), 0, 1) * (1 - self._up.ravel())
        fade = _FADE + (_FADE_AHEAD - _FADE) * ahead
        share = 1 - np.clip((self._distance.ravel() - _RIGID) / fade, 0, 1)
        share = share * share * (3 - 2 * share) * self._edge
        far = np.float32(self._size)  # the unmoved picture lies behind everything that moves
        moved = np.stack(
            [
                x + share * ((r[0, 0] - 1) * x + r[0, 1] * y + r[0, 2] * z),
                y + share * (r[1, 0] * x + (r[1, 1] - 1) * y + r[1, 2] * z),
                share * (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z) + (1 - share) * far,
            ],
            axis=1,
        )
        return np.asarray(moved + self._middle, np.float32)


def profile_face(
    image: NDArray[np.uint8],
    face_model: FaceModel,
    camera: ArrayLike,
    coefficients: ArrayLike,
    rotation: ArrayLike,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Turn a photographed face in 3D.

    Parameters
    ----------
    image : (H, W, 3) uint8
    face_model : FaceModel
    camera : (3, 4) array_like
        Model to image pixels: x right, y down, third away from the viewer (`radan_ros.fit_landmarks`).
    coefficients : (modes,) array_like
    rotation : (3, 3) array_like
        In the image's space: `turn` makes it from angles.

    Returns
    -------
    picture : (H, W, 3) uint8
    camera : (3, 4) float32
        Of the turned face, in the same pixels.

    Raises
    ------
    ValueError
        When the arguments do not fit, or the face lies outside the image.
    """
    face = TurnableFace(image, face_model, camera, coefficients)
    return face.picture(rotation), face.turned(rotation)


def _checked(rotation: ArrayLike) -> _Array:
    q = np.asarray(rotation, np.float64)
    if q.shape != (3, 3) or not np.isfinite(q).all():
        raise ValueError(f"the rotation is {q.shape}, not 3 x 3 finite numbers")
    return q


def _in_depth(affine: _Array) -> _Array:
    """A map of pixels (3, 3), of one scale, as one of pixels and depth (4, 4)."""
    placed = np.eye(4)
    placed[:2, :2], placed[:2, 3] = affine[:2, :2], affine[:2, 2]
    placed[2, 2] = np.sqrt(abs(np.linalg.det(affine[:2, :2])))
    return placed


def extended(image: NDArray[np.uint8], from_image: ArrayLike, height: int, width: int) -> NDArray[np.uint8]:
    """A part of an image, mirrored and the more blurred the farther beyond the image's edge.

    Parameters
    ----------
    image : (H, W, 3) uint8
    from_image : (3, 3) array_like
        Affine map, of one scale, from image pixels to those of the part.
    height, width : int
        Of the part.

    Returns
    -------
    (height, width, 3) uint8
    """
    import cv2

    affine = np.asarray(from_image, np.float64)
    scale = np.sqrt(abs(np.linalg.det(affine[:2, :2])))
    source = image
    if scale < 0.8:  # no aliasing where the part is coarser than the image
        source = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(1 / scale**2 - 1))
    size, half = (width, height), max(min(width, height) // 8, 1)
    part = cv2.warpAffine(source, affine[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    inside = cv2.warpAffine(np.ones(image.shape[:2], np.uint8), affine[:2], size, flags=cv2.INTER_NEAREST)
    if inside.all():
        return np.asarray(part, np.uint8)
    soft = cv2.blur(cv2.blur(part.astype(np.float32), (half, half)), (half, half))
    share = np.minimum(cv2.distanceTransform((inside == 0).astype(np.uint8), cv2.DIST_L2, 3) / half, 1)
    return np.asarray(np.rint(part + share[..., None] * (soft - part)), np.uint8)


@lru_cache(maxsize=4)
def _face_renderer(face_model: FaceModel) -> Renderer:
    return Renderer(face_model.triangles, face_model.codes)


@lru_cache(maxsize=8)
def _grid(
    side: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A sheet of side x side pixels: triangles, column and row of each pixel, and a factor that is 0 on its edge."""
    rows, columns = np.divmod(np.arange(side * side, dtype=np.int32), side)
    corner = np.flatnonzero((columns < side - 1) & (rows < side - 1)).astype(np.int32)
    right, below = corner + 1, corner + side
    triangles = np.concatenate([np.stack([corner, right, below], axis=1), np.stack([right, below + 1, below], axis=1)])
    inwards = np.minimum(np.minimum(rows, columns), side - 1 - np.maximum(rows, columns))
    edge = np.minimum(inwards / (side / 12), 1).astype(np.float32)
    return triangles, columns.astype(np.float32), rows.astype(np.float32), edge
