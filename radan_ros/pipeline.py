"""Image to faces: detect, crop, regress in one batch, place in the image; dense vertices on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros import boxes
from radan_ros.detectors import Detector
from radan_ros.face import Detection, Face
from radan_ros.model import Model
from radan_ros.presence import confidence

# The networks of this family answer in Matlab's pixels of the crop: first centre at 1, y up. These bring a
# point (x, y, z, 1) of that frame to centres from 0, y down, third axis away from the viewer.
CROP_FROM_NETWORK = np.array([[1, 0, 0, -1], [0, -1, 0, boxes.CROP_SIZE], [0, 0, -1, 0], [0, 0, 0, 1]], np.float64)
# 3DDFA's code undoes it as y = 121 - y and leaves x, one pixel of the crop off.
_CROP_FROM_NETWORK_REFERENCE = np.array(
    [[1, 0, 0, 0], [0, -1, 0, boxes.CROP_SIZE + 1], [0, 0, -1, 0], [0, 0, 0, 1]], np.float64
)

_MOST_CROPS = 64  # of one run of the network: more at once are no faster, and take memory


class LandmarkFinder(Protocol):
    """Finds landmarks in a detector's box, to crop around (`detectors.dlib_landmarks`)."""

    def __call__(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image (H, W, 3) uint8 BGR and a box (4,) in it to landmarks (68, 2) in its pixels."""


class Pipeline:
    """Finds and reconstructs all faces of an image.

    Parameters
    ----------
    model : Model
    detector : Detector, optional
        Needed where boxes are not given.
    landmarks : LandmarkFinder, optional
        The first crop is then the square around the landmarks that it finds in the box, and not one guessed from the
        box itself.
    compat : bool
        Reproduce the pixel conventions of 3DDFA's code, mistakes included, for comparison with its figures.
    """

    def __init__(
        self,
        model: Model,
        detector: Detector | None = None,
        *,
        landmarks: LandmarkFinder | None = None,
        compat: bool = False,
    ) -> None:
        self.model = model
        self.detector = detector
        self.landmarks = landmarks
        self.compat = compat

    def __call__(
        self, image: NDArray[np.uint8], face_boxes: ArrayLike | None = None, *, two_step: bool = False
    ) -> list[Face]:
        """Reconstruct the faces of an image.

        Parameters
        ----------
        image : (H, W, 3) uint8
            BGR.
        face_boxes : (N, 4) array_like, optional
            Face boxes as a detector gives them: left, top, right, bottom in pixels. Without them the detector runs.
        two_step : bool
            Regress a second time on the square around the first answer's landmarks (3DDFA's ``bbox_init=two``).

        Returns
        -------
        list of Face
            In the order of the boxes; without boxes, the surest first.

        Raises
        ------
        ValueError
            When the image or the boxes have the wrong shape or type, or neither boxes nor a detector are there.
        """
        return self.many([image], [self.detections(image, face_boxes)], two_step=two_step)[0]

    def detections(self, image: NDArray[np.uint8], face_boxes: ArrayLike | None = None) -> list[Detection]:
        """What the detector finds, the surest first, or the given boxes; parameters and errors as of a call."""
        check_image(image)
        if face_boxes is None:
            if self.detector is None:
                raise ValueError("no boxes were given and the pipeline has no detector")
            return self.detector(image)
        given = np.asarray(face_boxes, np.float32)
        if given.size and (given.ndim != 2 or given.shape[1] != 4):
            raise ValueError(f"boxes have shape {given.shape}, not (N, 4)")
        return [Detection(box) for box in given.reshape(-1, 4)]

    def many(
        self,
        images: Sequence[NDArray[np.uint8]],
        detections: Sequence[Sequence[Detection]],
        *,
        two_step: bool = False,
    ) -> list[list[Face]]:
        """Reconstruct the faces of several images, of any sizes: the network runs once on all of them.

        Parameters
        ----------
        images : sequence of (H, W, 3) uint8
            BGR.
        detections : sequence of sequence of Detection
            For each image, of `detections`.
        two_step : bool
            As of a call.

        Returns
        -------
        list of list of Face
            For each image, in the order of its detections.
        """
        first = [
            [self._first_square(image, d.box) for d in found] for image, found in zip(images, detections, strict=True)
        ]
        answers = self.regress_many(images, first, [[d.score for d in found] for found in detections])
        if two_step:
            squares = [[self._around(face.landmarks) for face in faces] for faces in answers]
            answers = self.regress_many(images, squares, [[face.score for face in faces] for faces in answers])
        return answers

    def regress(
        self, image: NDArray[np.uint8], rois: Sequence[ArrayLike], scores: Sequence[float] | None = None
    ) -> list[Face]:
        """Crop squares, run the network once on all of them, and place the answers in the image.

        Parameters
        ----------
        image : (H, W, 3) uint8
            BGR.
        rois : sequence of (4,) array_like
            Squares in pixels; one that cannot be cropped (not finite, tiny, wholly outside) gives no face.
        scores : sequence of float, optional
            Copied to the faces.

        Returns
        -------
        list of Face
        """
        return self.regress_many([image], [rois], None if scores is None else [scores])[0]

    def regress_many(
        self,
        images: Sequence[NDArray[np.uint8]],
        rois: Sequence[Sequence[ArrayLike]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> list[list[Face]]:
        """`regress` on squares of several images at once; all parameters and the answer are a list of an image each."""
        given = [[float("nan")] * len(squares) for squares in rois] if scores is None else scores
        kept = [
            (i, np.asarray(roi, np.float32), score)
            for i, (image, squares, marks) in enumerate(zip(images, rois, given, strict=True))
            for roi, score in zip(squares, marks, strict=True)
            if boxes.usable(roi, image.shape[:2])
        ]
        faces: list[list[Face]] = [[] for _ in images]
        for start in range(0, len(kept), _MOST_CROPS):
            part = kept[start : start + _MOST_CROPS]
            for (i, _, _), face in zip(part, self._regress(images, part), strict=True):
                if np.isfinite(face.landmarks).all():
                    faces[i].append(face)
        return faces

    def _regress(
        self, images: Sequence[NDArray[np.uint8]], rois: Sequence[tuple[int, NDArray[np.float32], float]]
    ) -> list[Face]:
        """The faces in squares: number of the image, square, score."""
        take = boxes.crop_reference if self.compat else boxes.crop
        outputs, logits = self.model.network.run(np.stack([take(images[i], roi) for i, roi, _ in rois]))
        parameters = self.model.whitening.undo(outputs)
        cameras = np.stack([self._camera(p, roi) for p, (_, roi, _) in zip(parameters, rois, strict=True)])
        landmarks = transform(cameras, self.model.face_model.landmark_points(parameters[:, 12:]))
        sure = confidence(cameras, logits)
        return [
            Face(roi, score, p, camera, points, float(c))
            for (_, roi, score), p, camera, points, c in zip(rois, parameters, cameras, landmarks, sure, strict=True)
        ]

    def _first_square(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.landmarks is None:
            return boxes.square_from_detection(box)
        return self._around(self.landmarks(image, box))

    def _around(self, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        # The reference takes pixel centres for edges.
        return boxes.square_from_landmarks(landmarks) - np.float32(0.5 if self.compat else 0)

    def vertices(self, faces: Sequence[Face]) -> NDArray[np.float32]:
        """Dense meshes in the image.

        Returns
        -------
        (N, V, 3) float32
            x, y in image pixels, third in pixels away from the viewer.
        """
        face_model = self.model.face_model
        if not faces:
            return np.zeros((0, len(face_model.mean), 3), np.float32)
        shapes = face_model.vertices(np.stack([face.coefficients for face in faces]))
        return transform(np.stack([face.camera for face in faces]), shapes)

    def _camera(self, parameters: NDArray[np.float32], roi: NDArray[np.float32]) -> NDArray[np.float32]:
        camera = np.vstack([parameters[:12].reshape(3, 4).astype(np.float64), [0, 0, 0, 1]])
        return (_image_from_network(roi, self.compat)[:3] @ camera).astype(np.float32)


def _image_from_network(roi: NDArray[np.float32], compat: bool = False) -> NDArray[np.float64]:
    """Points (x, y, z, 1) of the network's frame of a crop to the image's: (4, 4)."""
    if compat:
        crop_from_network = _CROP_FROM_NETWORK_REFERENCE
        sx, sy = ((roi[2:] - roi[:2]).astype(np.float64)) / boxes.CROP_SIZE
        x, y = roi[:2].astype(np.float64)
    else:
        crop_from_network = CROP_FROM_NETWORK
        to_image = boxes.crop_to_image(roi)
        sx, sy, x, y = to_image[0, 0], to_image[1, 1], to_image[0, 2], to_image[1, 2]
    image_from_crop = np.array([[sx, 0, 0, x], [0, sy, 0, y], [0, 0, (sx + sy) / 2, 0], [0, 0, 0, 1]])
    return np.asarray(image_from_crop @ crop_from_network)


def camera_in_network(camera: NDArray[np.float32], roi: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first 12 parameters that a network would answer for a crop, from a camera in the image: (12,) float32.

    The inverse of how `Pipeline` places answers (without `compat`).

    Parameters
    ----------
    camera : (3, 4) float32
        Face model to image pixels, as in `Face`.
    roi : (4,) float32
        The crop: left, top, right, bottom in pixels.
    """
    placed = np.vstack([camera, [0, 0, 0, 1]])
    return np.linalg.solve(_image_from_network(roi), placed)[:3].reshape(-1).astype(np.float32)


def cameras_in_crop(parameters: NDArray[np.floating], compat: bool = False) -> NDArray[np.float32]:
    """Parameters (N, 62) as networks answer them to cameras (N, 3, 4): face model to pixels of the 120 px crop.

    Centres at integers, x right, y down, third axis away from the viewer; with `compat`, as 3DDFA's code has them.
    """
    cameras = np.asarray(parameters, np.float64)[:, :12].reshape(-1, 3, 4)
    to_crop = _CROP_FROM_NETWORK_REFERENCE if compat else CROP_FROM_NETWORK
    return (to_crop[:3, :3] @ cameras + to_crop[:3, 3:] * [0, 0, 0, 1]).astype(np.float32)


def transform(cameras: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply (N, 3, 4) cameras to (N, P, 3) points: (N, P, 3) float32."""
    return points @ cameras[:, :, :3].transpose(0, 2, 1) + cameras[:, None, :, 3]


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the image is (H, W, 3) uint8 and not empty."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"the image is {what}, not (H, W, 3) uint8 BGR")
    if image.size == 0:
        raise ValueError(f"the image is empty: {image.shape}")
