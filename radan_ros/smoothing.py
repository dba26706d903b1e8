"""Causal smoothing of a followed face, on image stamps: still while the face is still, and with it when it moves.

Every number of a face is followed by a constant-velocity filter (alpha-beta filter): each image, what the last ones
lead to expect is corrected by a share of what was missed, so that steady motion is followed without lag. The share for
the value follows from a cutoff frequency, the one for the velocity from that share (Benedict and Bordner, *Synthesis of
an optimal set of radar track-while-scan smoothing equations*, IRE Trans. Automatic Control, 1962). The cutoff is low at
rest and rises with the speed, as in the One Euro filter (Casiez, Roussel and Vogel, CHI 2012), and with the surprise,
which is how much was missed just now: the speed alone answers late to a blink, or to a head that starts to move.

Speed and surprise are counted in face sizes, by how far they move the landmarks: no setting depends on the image or on
the face model. They are measured, and open the filter, for each of turn, size and place of the head together, and for
each expression alone: a moving mouth does not make the brows tremble.

The shape is a person's and does not change: it is the mean of all answers so far, later of the last seconds. What an
answer's shape has beyond that mean is not lost: as far as an expression or a move of the head would look the same, it
is that (`_Look`). Networks put much of a blink into the shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from radan_ros.face import Face
from radan_ros.face_models import FaceModel
from radan_ros.pipeline import camera_in_network, transform
from radan_ros.pose import nearest_rotation

_Array = NDArray[np.float64]

SHAPE = 40  # coefficients; the other 10 are expressions
# The filtered numbers of a face, in this order.
_TURN, _SCALE, _PLACE, _STRETCH, _EXPRESSION = slice(0, 3), slice(3, 4), slice(4, 7), slice(7, 16), slice(16, 26)
_NUMBERS = 26
# Where a group begins that opens its filter together: turn, scale, place, stretch, each expression.
_GROUPS = np.array([0, 3, 4, 7, *range(16, 26)])
_GROUP_OF = np.repeat(np.arange(len(_GROUPS)), np.diff([*_GROUPS, _NUMBERS]))
# Landmarks move by this much, in face sizes, for a turn of one radian and for a relative change of the size by one.
_ARM = 0.4
# An answer that is further than this from what was expected is not that motion going on. On clips of heads that shake
# as fast as they can, or turn by 70 degrees within half a second, the largest were 0.28 and 0.23.
_JUMP = 1.0  # face sizes
_TURNED = 1.0  # radians
# The picture hardly shows depth: to look the same counts this much along it.
_DEPTH = 0.3
# A mode that moves the landmarks by less than this (root mean square, of the face size) for a coefficient of one is
# trusted the less.
_LEAST = 0.003


@dataclass(frozen=True)
class Smoothing:
    """How much is smoothed. The defaults were chosen on clips (`benchmark/smoothing.py`).

    A filter's cutoff is ``rest + surprise * (sizes missed) + speed * (sizes a second)``, at most `fastest`.

    Attributes
    ----------
    strength : float
        A factor on all time constants; 0 is off.
    pose_rest, expression_rest : float
        Hz: cutoff of a face that stands still.
    pose_surprise, expression_surprise : float
        Hz for each face size that the landmarks are away from where they were expected.
    pose_speed, expression_speed : float
        Hz for each face size a second that they move.
    fastest : float
        Hz.
    shape_time : float
        Seconds that the mean of the shape reaches back.
    longest_gap : float
        Seconds without a face after which motion is not continued.

    Raises
    ------
    ValueError
        Names the setting that is not finite or out of its range.
    """

    strength: float = 1.0
    pose_rest: float = 0.2
    pose_surprise: float = 34.0
    pose_speed: float = 4.0
    expression_rest: float = 0.2
    expression_surprise: float = 250.0
    expression_speed: float = 1.3
    fastest: float = 1.8
    shape_time: float = 5.0
    longest_gap: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and (value > 0 or (value == 0 and name == "strength"))):
                least = "0 or more" if name == "strength" else "above 0"
                raise ValueError(f"smoothing: {name} is {value}, not {least}")


class FaceSmoother:
    """Smooths one followed face.

    The motion starts again from the face as it is seen, with nothing carried over, when

    - the stamp repeats, goes back or is not finite: the time that passed is unknown, and with it the speed;
    - more than `Smoothing.longest_gap` has passed: the speed from before says nothing any more;
    - the face is over a face size or a radian away from where it was expected: no head moves like that, and the way
      between was never taken.

    `restart` does the same for callers that know of a break by other means. The mean of the shape goes on, since the
    track is still one person's; `reset` forgets that, too.

    Parameters
    ----------
    face_model : FaceModel
        Of the 62-parameter family: 40 shape and 10 expression modes.
    smoothing : Smoothing, optional
    """

    def __init__(self, face_model: FaceModel, smoothing: Smoothing | None = None) -> None:
        self.face_model = face_model
        self.smoothing = smoothing or Smoothing()
        self._look = _Look(face_model)
        s = self.smoothing
        if s.strength:
            gains = (
                [s.pose_rest] * 4 + [s.expression_rest] * 10,
                [s.pose_surprise] * 4 + [s.expression_surprise] * 10,
                [s.pose_speed] * 4 + [s.expression_speed] * 10,
                [s.fastest] * 14,
            )
            self._rest, self._per_surprise, self._per_speed, self._fastest = np.array(gains) / s.strength
        self.reset()

    def reset(self) -> None:
        """Forget the face."""
        self.restart()
        self._images = 0
        self._shape = np.zeros(SHAPE)
        self._rotation = np.eye(3)
        self._numbers = np.zeros(_NUMBERS)
        self._velocity = np.zeros(_NUMBERS)

    def restart(self) -> None:
        """Start the motion again from the next face, as after a stamp that repeats; the shape goes on."""
        self._stamp = math.nan

    def __call__(self, face: Face, stamp: float) -> Face:
        """The next image's face, smoothed.

        Parameters
        ----------
        face : Face
            As the network sees it (without `compat`).
        stamp : float
            Seconds of the image's header.

        Returns
        -------
        Face
            `camera`, `landmarks` and `parameters` (its camera in the crop of `roi`, as a network gives it) are of one
            and the same smoothed face; all else is the given face's. With strength 0, the given face itself.
        """
        settings = self.smoothing
        if not settings.strength:
            return face
        span = stamp - self._stamp
        self._stamp = stamp
        rotation, numbers = self._seen(face, span)
        if not (0 < span <= settings.longest_gap and self._follow(rotation, numbers, span)):
            self._rotation, self._numbers = rotation, numbers
            self._velocity = np.zeros(_NUMBERS)
        return self._face(face)

    def _seen(self, face: Face, span: float) -> tuple[_Array, _Array]:
        """Rotation and numbers of an answer; what its shape has beyond the mean is in them, as far as it can be."""
        look = self._look
        camera = face.camera.astype(np.float64)
        linear = camera[:, :3]
        rotation, scale = nearest_rotation(linear[:2])
        coefficients = face.coefficients.astype(np.float64)
        self._images += 1
        newest = -math.expm1(-span / (self.smoothing.shape_time * self.smoothing.strength)) if span > 0 else 0.0
        self._shape += max(1 / self._images, newest) * (coefficients[:SHAPE] - self._shape)
        beyond = look.instead_of_shape @ (coefficients[:SHAPE] - self._shape)
        numbers = np.zeros(_NUMBERS)
        numbers[_SCALE] = math.log(scale) + beyond[6]
        numbers[_PLACE] = linear @ (look.centre + look.size * beyond[:3]) + camera[:, 3]
        numbers[_STRETCH] = (rotation.T @ linear / scale).ravel()
        numbers[_EXPRESSION] = coefficients[SHAPE:] + beyond[7:]
        return rotation @ _turn(beyond[3:6]), numbers

    def _follow(self, rotation: _Array, numbers: _Array, span: float) -> bool:
        """One step of the filter; False where the face jumped, and nothing was done."""
        in_sizes = self._look.in_sizes.copy()
        in_sizes[_PLACE] = np.array([1, 1, 0]) / (self._look.size * math.exp(numbers[3]))  # depth is not seen
        step = self._velocity * span
        expected = _turn(step[_TURN]) @ self._rotation
        missed = numbers - self._numbers - step
        missed[_TURN] = _axis(rotation @ expected.T)
        surprise = _by_group(missed * in_sizes)
        if surprise[2] > _JUMP or np.linalg.norm(missed[_TURN]) > _TURNED:
            return False
        cutoff = self._rest + self._per_surprise * surprise + self._per_speed * _by_group(self._velocity * in_sizes)
        kept = np.exp(-2 * math.pi * span * np.minimum(cutoff, self._fastest))[_GROUP_OF]
        share = 1 - kept**2
        correction = share * missed
        self._rotation = _turn(correction[_TURN]) @ expected
        self._numbers = self._numbers + step + correction
        self._velocity = self._velocity + share / (2 - share) / span * correction
        return True

    def _face(self, face: Face) -> Face:
        """The face of the filter's state."""
        numbers = self._numbers
        linear = math.exp(numbers[3]) * self._rotation @ numbers[_STRETCH].reshape(3, 3)
        camera = np.column_stack([linear, numbers[_PLACE] - linear @ self._look.centre]).astype(np.float32)
        coefficients = np.concatenate([self._shape, numbers[_EXPRESSION]]).astype(np.float32)
        return replace(
            face,
            parameters=np.concatenate([camera_in_network(camera, face.roi), coefficients]),
            camera=camera,
            landmarks=transform(camera[None], self.face_model.landmark_points(coefficients[None]))[0],
        )


class _Look:
    """How the numbers of a face move its landmarks.

    Attributes
    ----------
    centre : (3,) float64
        Middle of the mean landmarks, model units: the place of a face is where that is. Errors of turn and place are
        then hardly related.
    size : float
        Of the mean landmarks from the front: root of the area of their box, model units.
    in_sizes : (26,) float64
        Face sizes that the landmarks move by for each number (root mean square); of the place, it depends on the scale.
    instead_of_shape : (17, 40) float64
        The move (sizes, along the model's axes), turn (radians, about them), relative change of size and expressions
        that look most like each shape coefficient: regularised least squares over the landmarks.
    """

    def __init__(self, face_model: FaceModel) -> None:
        points = face_model.landmark_points(np.zeros((1, face_model.modes)))[0].astype(np.float64)
        self.centre = points.mean(axis=0)
        self.size = float(np.sqrt(np.prod(np.ptp(points[:, :2], axis=0))))
        around = (points - self.centre) / self.size
        shape = face_model.shape_basis[face_model.landmarks].astype(np.float64) / self.size
        expression = face_model.expression_basis[face_model.landmarks].astype(np.float64) / self.size
        moves = np.broadcast_to(np.eye(3), (len(points), 3, 3))
        turns = np.cross(np.eye(3)[None], around[:, None]).transpose(0, 2, 1)  # an axis a column
        effects = np.concatenate([moves, turns, around[..., None], expression], axis=2)
        self.in_sizes = np.full(_NUMBERS, _ARM)
        self.in_sizes[_EXPRESSION] = np.linalg.norm(expression, axis=(0, 1)) / math.sqrt(len(points))
        seen = np.array([1, 1, _DEPTH])[:, None] / math.sqrt(len(points))
        a, b = ((m * seen).reshape(3 * len(points), -1) for m in (effects, shape))
        self.instead_of_shape = np.linalg.solve(a.T @ a + _LEAST**2 * np.eye(a.shape[1]), a.T @ b)


def _by_group(numbers: _Array) -> _Array:
    """Lengths of the groups of numbers: (26,) to (14,)."""
    return np.asarray(np.sqrt(np.add.reduceat(numbers * numbers, _GROUPS)))


def _turn(axis: _Array) -> _Array:
    """Rotation matrix of an axis times its angle."""
    import cv2

    return np.asarray(cv2.Rodrigues(axis)[0])


def _axis(rotation: _Array) -> _Array:
    """Axis times angle of a rotation matrix."""
    import cv2

    return np.asarray(cv2.Rodrigues(rotation)[0]).reshape(3)
