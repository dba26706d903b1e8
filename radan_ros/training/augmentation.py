"""Augmentation of labelled crops: how a detector's box, a camera and the world spoil the picture of a face.

All of it is NumPy and OpenCV on one crop at a time, seeded by the caller's generator. Inner crop pixels (120 x 120),
wide crops (184 x 184) and the frame of the parameters are those of `radan_ros.training.samples`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.boxes import CROP_SIZE, crop_to_image, square_from_landmarks
from radan_ros.pipeline import CROP_FROM_NETWORK
from radan_ros.training.samples import MARGIN

# Landmark i of a mirrored face is landmark MIRRORED[i] of the face (iBUG order).
MIRRORED: NDArray[np.intp] = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
])  # fmt: skip

MOST_TURN = 0.75  # sine of the largest yaw at which a detector's boxes were measured: beyond, they go no farther

_NETWORK_FROM_CROP = np.linalg.inv(CROP_FROM_NETWORK)
_MIRROR_IN_CROP = np.array([[-1.0, 0.0, CROP_SIZE - 1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
_LUMA = np.array([0.114, 0.587, 0.299])  # of B, G, R (ITU-R BT.601)
_BORDERS = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class BoxJitter:
    """How the square that is cropped differs from `boxes.square_from_landmarks` of the true points.

    Shifts are in sides of the true square, image axes (x right, y down); `size` is the logarithm of the ratio of the
    sides. All are normal; the shift to the side also grows with the turn of the head, because a detector's box lies
    around eyes, nose and mouth and the landmarks reach to the farther ear.

    Attributes
    ----------
    x, y, size : float
        Means.
    x_turn : float
        Added to x times the sine (at most `MOST_TURN`) of the angle that the head is turned to the image's right.
    x_std, y_std, size_std : float
    """

    x: float
    y: float
    size: float
    x_turn: float
    x_std: float
    y_std: float
    size_std: float

    def draw(
        self, square: NDArray[np.float32], turn: float, rng: np.random.Generator, spread: float = 1.0
    ) -> NDArray[np.float64]:
        """A square (left, top, right, bottom) that is off as one of these is.

        Parameters
        ----------
        square : (4,) float32
            The true one.
        turn : float
            Sine of the angle that the head is turned to the image's right, see `turn_of`.
        rng : numpy.random.Generator
        spread : float
            Multiplies the standard deviations.
        """
        side = float(square[2] - square[0])
        dx, dy, size = rng.standard_normal(3) * spread
        dx = self.x + self.x_turn * np.clip(turn, -MOST_TURN, MOST_TURN) + self.x_std * dx
        dy = self.y + self.y_std * dy
        half = side / 2 * np.exp(self.size + self.size_std * size)
        x, y = (square[0] + square[2]) / 2 + side * dx, (square[1] + square[3]) / 2 + side * dy
        return np.array([x - half, y - half, x + half, y + half])


# Measured on 685 photographs of YouTube Faces with 68 given points: the squares of dlib's HOG boxes, and of a MobileNet
# of 3DDFA_V2 that follows its own landmarks for two steps. The same on 528 portraits: size 0.15, y 0.04.
DETECTOR = BoxJitter(x=0.0, y=0.03, size=0.12, x_turn=0.23, x_std=0.03, y_std=0.04, size_std=0.10)
FOLLOWER = BoxJitter(x=0.0, y=0.0, size=-0.03, x_turn=0.0, x_std=0.025, y_std=0.02, size_std=0.05)


@dataclass(frozen=True)
class AugmentationSettings:
    """What is done to crops, and how often; everything can be switched off with 0.

    Every `..._share` is the share of samples that it is done to, 0 .. 1.

    Attributes
    ----------
    jitter_boxes : bool
        False leaves the crops where they are.
    detector_share : float
        Squares that are off as a detector's (`DETECTOR`); the others as a follower's (`FOLLOWER`).
    box_spread : float
        Multiplies the standard deviations of both, 0 .. 4.
    rotation_std : float
        Degrees of the usual turn in the picture, normal, 0 .. 45.
    large_rotation_share, large_rotation : float
        Samples turned evenly within plus and minus so many degrees (0 .. 180) instead.
    mirror_share : float
        Mirrored left to right; only where the mirror matrix of the face model is given.
    light_share : float
        One side lit or in shadow: from a soft gradient to a hard edge.
    occlusion_share : float
        One to three patches of another picture, of one colour or of noise, rectangles or blobs, cover the face.
    largest_patch : float
        Longest side of such a patch over the crop's side, 0.1 .. 1.
    colour_share : float
        Brightness, contrast, gamma, white balance, saturation and hue at once.
    grey_share : float
        Without colour.
    blur_share : float
        Out of focus or, as often, moved.
    low_resolution_share : float
        Reduced and enlarged again.
    smallest_resolution : int
        Side to which such crops are reduced at most, pixels, 8 .. 120.
    noise_share : float
        Normal noise, by channel or in brightness.
    noise_std : float
        Its largest standard deviation, grey levels, 0 .. 64.
    jpeg_share : float
        Compressed and read again.
    lowest_quality : int
        JPEG quality of these at least, 1 .. 95.

    Raises
    ------
    ValueError
        Names the field that is out of its range.
    """

    jitter_boxes: bool = True
    detector_share: float = 0.6
    box_spread: float = 1.3
    rotation_std: float = 8.0
    large_rotation_share: float = 0.15
    large_rotation: float = 45.0
    mirror_share: float = 0.5
    light_share: float = 0.25
    occlusion_share: float = 0.35
    largest_patch: float = 0.5
    colour_share: float = 0.8
    grey_share: float = 0.1
    blur_share: float = 0.25
    low_resolution_share: float = 0.25
    smallest_resolution: int = 24
    noise_share: float = 0.25
    noise_std: float = 14.0
    jpeg_share: float = 0.25
    lowest_quality: int = 15

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "box_spread": (0, 4),
            "rotation_std": (0, 45),
            "large_rotation": (0, 180),
            "largest_patch": (0.1, 1),
            "smallest_resolution": (8, CROP_SIZE),
            "noise_std": (0, 64),
            "lowest_quality": (1, 95),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name}: {value!r} is not true or false")
                continue
            low, high = ranges.get(field.name, (0, 1))
            whole = isinstance(field.default, int)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"{field.name}: {value!r} is not {kind} from {low} to {high}")


class Augmented(NamedTuple):
    """A crop (120, 120, 3) uint8, its parameters (62,) and landmarks (68, 2) float32; whether it was mirrored.

    Whatever else belongs to single landmarks (weights) is to be permuted by `MIRRORED` where it was.
    """

    crop: NDArray[np.uint8]
    parameters: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    mirrored: bool


def inner_crop(wide_crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The canonical crops (..., 120, 120, 3) in the middle of wide ones (..., 184, 184, 3)."""
    return wide_crops[..., MARGIN:-MARGIN, MARGIN:-MARGIN, :]


def turn_of(parameters: NDArray[np.float32]) -> float:
    """Sine of the angle between where a face looks and the plane of the camera's axis and the crop's vertical.

    Positive to the image's right; the sine of the yaw for a head that is neither nodded nor tilted.
    """
    rows = parameters[:12].reshape(3, 4)[:2, :3].astype(np.float64)
    scale = np.linalg.norm(rows) / np.sqrt(2)
    return float(np.clip(rows[0, 2] / scale, -1, 1)) if scale > 0 else 0.0


def move_parameters(parameters: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Parameters of a crop that an affine map of its pixels has moved.

    Parameters
    ----------
    parameters : (..., 62) float32
    affine : (2, 3) or (3, 3) float64
        From old crop pixels to new ones. The third axis is scaled by the square root of its determinant's size.

    Returns
    -------
    (..., 62) float32
        Their projections are the mapped projections of the given ones. After a map that mirrors they are those of a
        mirrored face: see `mirror_parameters`.
    """
    move = np.eye(4)
    move[:2, [0, 1, 3]] = affine[:2]
    move[2, 2] = np.sqrt(abs(np.linalg.det(affine[:2, :2])))
    in_network = _NETWORK_FROM_CROP @ move @ CROP_FROM_NETWORK
    # Homogeneous cameras: their last row is 0 0 0 1.
    cameras = parameters[..., :12].reshape(*parameters.shape[:-1], 3, 4).astype(np.float64)
    moved = in_network[:3, :3] @ cameras
    moved[..., 3] += in_network[:3, 3]
    out = parameters.copy()
    out[..., :12] = moved.reshape(*parameters.shape[:-1], 12)
    return out


def mirror_parameters(
    parameters: NDArray[np.float32], mirror: NDArray[np.floating], affine: NDArray[np.float64] = _MIRROR_IN_CROP
) -> NDArray[np.float32]:
    """Parameters of a mirrored crop.

    Parameters
    ----------
    parameters : (..., 62) float32
    mirror : (50, 50) floating
        ``coefficients @ mirror`` are those of the mirrored face (`radan_ros.face_models.mirror`).
    affine : (2, 3) or (3, 3) float64
        From old crop pixels to new ones, with a negative determinant; x to 119 - x where it is not given.

    Returns
    -------
    (..., 62) float32
        Projected landmark MIRRORED[i] of the given ones, mapped, is landmark i of these.
    """
    out = move_parameters(parameters, affine)
    out[..., [0, 4, 8]] *= -1  # x of the model
    out[..., 12:] = parameters[..., 12:] @ mirror.astype(np.float32)
    return out


def augment(
    wide_crop: NDArray[np.uint8],
    parameters: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    rng: np.random.Generator,
    settings: AugmentationSettings,
    *,
    mirror: NDArray[np.floating] | None = None,
    donor: NDArray[np.uint8] | None = None,
) -> Augmented:
    """Move, turn and mirror a labelled crop with its labels, then spoil its picture.

    Parameters
    ----------
    wide_crop : (184, 184, 3) uint8
        BGR.
    parameters : (62,) float32
        Of the inner crop.
    landmarks : (68, 2) float32
        Inner crop pixels.
    rng : numpy.random.Generator
        The same state gives the same answer.
    settings : AugmentationSettings
    mirror : (50, 50) floating, optional
        Mirror matrix of the face model's coefficients; without it (a model that is not symmetric) nothing is mirrored.
    donor : (H, W, 3) uint8, optional
        Picture that occluding patches are cut from; without it, the wide crop itself, upside down.

    Returns
    -------
    Augmented
    """
    affine = _box_and_turn(parameters, landmarks, rng, settings)
    mirrored = mirror is not None and rng.random() < settings.mirror_share
    if mirrored:
        affine = _MIRROR_IN_CROP @ affine
    crop = _warp(wide_crop, affine, rng)
    points = (landmarks @ affine[:2, :2].T + affine[:2, 2]).astype(np.float32)
    if mirrored and mirror is not None:
        points, moved = points[MIRRORED], mirror_parameters(parameters, mirror, affine)
    else:
        moved = move_parameters(parameters, affine)
    crop = spoil(crop, wide_crop[::-1] if donor is None else donor, rng, settings)
    return Augmented(crop, moved, points, mirrored)


def spoil(
    crop: NDArray[np.uint8], donor: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentationSettings
) -> NDArray[np.uint8]:
    """Spoil the picture of a crop as `augment` does: (120, 120, 3) uint8; `donor` as there."""
    # In the order in which light, things in the way, the camera and the compression come.
    if rng.random() < settings.light_share:
        crop = light(crop, rng)
    if rng.random() < settings.occlusion_share:
        crop = occlude(crop, donor, rng, settings.largest_patch)
    coloured, grey = rng.random() < settings.colour_share, rng.random() < settings.grey_share
    if coloured or grey:
        crop = recolour(crop, rng, coloured=coloured, grey=grey)
    if rng.random() < settings.blur_share:
        crop = blur(crop, rng)
    if rng.random() < settings.low_resolution_share:
        crop = reduce_resolution(crop, rng, settings.smallest_resolution)
    if rng.random() < settings.noise_share:
        crop = add_noise(crop, rng, settings.noise_std)
    if rng.random() < settings.jpeg_share:
        crop = compress(crop, rng, settings.lowest_quality)
    return crop


def _box_and_turn(
    parameters: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    rng: np.random.Generator,
    settings: AugmentationSettings,
) -> NDArray[np.float64]:
    """The (3, 3) map from inner crop pixels to those of a turned picture, cropped by a square that is a little off."""
    if rng.random() < settings.large_rotation_share:
        degrees = rng.uniform(-settings.large_rotation, settings.large_rotation)
    else:
        degrees = settings.rotation_std * rng.standard_normal()
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D(((CROP_SIZE - 1) / 2, (CROP_SIZE - 1) / 2), degrees, 1.0)
    if not settings.jitter_boxes:
        return turn
    # The square follows from the turned landmarks, as it would in a picture of a tilted head.
    square = square_from_landmarks(landmarks @ turn[:2, :2].T + turn[:2, 2])
    jitter = DETECTOR if rng.random() < settings.detector_share else FOLLOWER
    side = turn_of(move_parameters(parameters, turn))
    square_off = jitter.draw(square, side, rng, settings.box_spread)
    return np.linalg.inv(crop_to_image(square_off)) @ turn


def _warp(wide_crop: NDArray[np.uint8], affine: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    from_wide = affine[:2].copy()
    from_wide[:, 2] -= affine[:2, :2] @ [MARGIN, MARGIN]
    border = _BORDERS[rng.choice(3, p=(0.5, 0.25, 0.25))]
    warped = cv2.warpAffine(wide_crop, from_wide, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(warped, np.uint8)


def light(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A light from one side, or a shadow on it: the picture is brightened across a line, softly or with an edge."""
    coarse = np.linspace(-1, 1, CROP_SIZE // 3, dtype=np.float32)
    angle, edge, width = rng.uniform(0, 2 * np.pi), rng.uniform(-0.7, 0.7), np.exp(rng.uniform(np.log(0.02), 0))
    ramp = (np.cos(angle) * coarse + np.sin(angle) * coarse[:, None] - edge) / width
    blend = 0.5 + 0.5 * np.tanh(ramp).astype(np.float32)
    dark, bright = rng.uniform(0.25, 0.9), rng.uniform(1.0, 1.7)
    tint = np.exp(0.06 * rng.standard_normal(3))  # lights and shadows differ in colour
    gain = (dark + (bright * tint - dark) * blend[..., None]).astype(np.float32)
    gain = cv2.resize(gain, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(crop, gain, dtype=cv2.CV_8U), np.uint8)


def occlude(
    crop: NDArray[np.uint8], donor: NDArray[np.uint8], rng: np.random.Generator, largest: float = 0.5
) -> NDArray[np.uint8]:
    """Cover parts of a crop by one to three patches: cut from another picture, of one colour, or of noise.

    After the cut-and-paste of RADAN (Zhou et al., FG 2021), whose patches are rectangles.
    """
    out = crop.copy()
    for _ in range(rng.integers(1, 4)):
        width, height = (int(v) for v in CROP_SIZE * rng.uniform(0.1, largest, 2) + 0.5)
        left = int(rng.integers(-(width // 2), CROP_SIZE - width // 2))
        top = int(rng.integers(-(height // 2), CROP_SIZE - height // 2))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, CROP_SIZE), min(top + height, CROP_SIZE)
        size = (y1 - y0, x1 - x0)
        region = out[y0:y1, x0:x1]
        patch = _patch(size, donor, rng)
        if rng.random() < 0.5:
            region[:] = patch
        else:
            cv2.copyTo(patch, _blob(size, rng), region)
    return out


def _patch(size: tuple[int, int], donor: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    kind = rng.random()
    if kind < 0.6:
        top = int(rng.integers(0, max(donor.shape[0] - size[0], 0) + 1))
        left = int(rng.integers(0, max(donor.shape[1] - size[1], 0) + 1))
        piece = np.ascontiguousarray(donor[top : top + size[0], left : left + size[1]])
        if piece.shape[:2] == size:
            return piece
    if kind < 0.85:
        return np.full((*size, 3), rng.integers(0, 256, 3), np.uint8)
    return rng.integers(0, 256, (*size, 3), np.uint8)


def _blob(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A mask of a star-shaped, smooth patch: 255 inside."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    waves = rng.uniform(-0.12, 0.12, (3, 2))
    radius = 0.8 + sum(a * np.cos(k * angles) + b * np.sin(k * angles) for k, (a, b) in enumerate(waves, start=1))
    points = np.stack([np.cos(angles) * size[1], np.sin(angles) * size[0]], axis=1) * radius[:, None] / 2
    corners = np.rint(points + [size[1] / 2, size[0] / 2]).astype(np.int32)
    return np.asarray(cv2.fillPoly(np.zeros(size, np.uint8), [corners], 255), np.uint8)


def recolour(
    crop: NDArray[np.uint8], rng: np.random.Generator, *, coloured: bool = True, grey: bool = False
) -> NDArray[np.uint8]:
    """Another camera: brightness, contrast, gamma and white balance by one table, saturation and hue by one matrix.

    With `coloured` false and `grey` true only the colour is taken away.
    """
    saturation = 0.0 if grey else 1.0
    hue = 0.0
    if coloured:
        gamma, contrast, brightness = np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(0.6, 1.4), rng.uniform(-0.18, 0.18)
        balance = np.exp(0.07 * rng.standard_normal(3))
        saturation *= rng.uniform(0.4, 1.6)
        hue = np.radians(rng.uniform(-12, 12))
        levels = np.linspace(0, 1, 256)[:, None] ** gamma
        table = ((levels - 0.5) * contrast + 0.5 + brightness) * balance * 255
        crop = cv2.LUT(crop, np.clip(table, 0, 255).astype(np.uint8)[None])
    # A turn about the grey axis (Rodrigues' formula), then towards or away from grey.
    a, b = np.cos(hue) + (1 - np.cos(hue)) / 3, (1 - np.cos(hue)) / 3
    c = np.sin(hue) / np.sqrt(3)
    turned = np.array([[a, b - c, b + c], [b + c, a, b - c], [b - c, b + c, a]])
    matrix = (saturation * np.eye(3) + (1 - saturation) * _LUMA) @ turned
    return np.asarray(cv2.transform(crop, matrix.astype(np.float32)), np.uint8)


def blur(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Out of focus (Gaussian, sigma up to 2 px) or moved (along a line of up to 11 px), as often as each other."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.4, 2.0)
        reach = 2 * int(np.ceil(2 * sigma)) + 1
        return np.asarray(cv2.GaussianBlur(crop, (reach, reach), sigma), np.uint8)
    half, angle = int(rng.integers(1, 6)), rng.uniform(0, np.pi)
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    dx, dy = round(half * np.cos(angle)), round(half * np.sin(angle))
    cv2.line(kernel, (half - dx, half - dy), (half + dx, half + dy), 1)
    return np.asarray(cv2.filter2D(crop, -1, kernel / np.float32(kernel.sum())), np.uint8)


def reduce_resolution(crop: NDArray[np.uint8], rng: np.random.Generator, smallest: int = 24) -> NDArray[np.uint8]:
    """A face that was few pixels wide: reduced to a side from `smallest` to 90 pixels and enlarged again."""
    side = int(rng.integers(smallest, max(90, smallest) + 1))
    down = (cv2.INTER_AREA, cv2.INTER_LINEAR)[rng.integers(2)]  # smooth, or with the aliasing of cheap cameras
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.choice(3, p=(0.6, 0.3, 0.1))]
    small = cv2.resize(crop, (side, side), interpolation=down)
    return np.asarray(cv2.resize(small, (CROP_SIZE, CROP_SIZE), interpolation=up), np.uint8)


def add_noise(crop: NDArray[np.uint8], rng: np.random.Generator, largest_std: float = 14.0) -> NDArray[np.uint8]:
    """Normal noise of a standard deviation up to `largest_std` grey levels, by channel or the same in all."""
    bank, count = _noise(), CROP_SIZE * CROP_SIZE
    start = int(rng.integers(0, len(bank) - 3 * count))
    if rng.random() < 0.5:
        noise = bank[start : start + 3 * count].reshape(CROP_SIZE, CROP_SIZE, 3)
    else:
        one = bank[start : start + count].reshape(CROP_SIZE, CROP_SIZE)
        noise = cv2.merge([one, one, one])
    return np.asarray(cv2.add(crop, noise * np.float32(rng.uniform(0, largest_std)), dtype=cv2.CV_8U), np.uint8)


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    """Normal numbers to cut from: drawing 43,200 of them for every crop costs more than all the rest."""
    return np.random.default_rng(0).standard_normal(1 << 18, np.float32)


def compress(crop: NDArray[np.uint8], rng: np.random.Generator, lowest_quality: int = 15) -> NDArray[np.uint8]:
    """JPEG of a quality from `lowest_quality` to 95."""
    quality = int(rng.integers(lowest_quality, 96))
    _, content = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)


def swap_tiles(crops: NDArray[np.uint8], rng: np.random.Generator, max_tiles: int = 4) -> NDArray[np.uint8]:
    """RADAN's tile swaps: in each crop, one to `max_tiles` tiles one after the other change places with the first one.

    The tiles are those of a 4 x 4 grid, 30 pixels a side; the first is the top left one (Zhou et al., FG 2021).

    Parameters
    ----------
    crops : (B, 120, 120, 3) uint8
    rng : numpy.random.Generator
    max_tiles : int
        1 .. 15.

    Returns
    -------
    (B, 120, 120, 3) uint8
        New; the given crops stay as they are.
    """
    if not 1 <= max_tiles <= 15:
        raise ValueError(f"max_tiles is {max_tiles}, not from 1 to 15")
    count, tile = len(crops), CROP_SIZE // 4
    rows = np.arange(count)
    order = np.tile(np.arange(16), (count, 1))
    swaps = rng.integers(1, max_tiles + 1, count)
    for step in range(max_tiles):
        # Tile 0 with itself where a crop has had its swaps.
        other = np.where(step < swaps, rng.integers(1, 16, count), 0)
        order[rows, other], order[rows, 0] = order[rows, 0], order[rows, other]
    tiles = crops.reshape(count, 4, tile, 4, tile, 3).transpose(0, 1, 3, 2, 4, 5).reshape(count, 16, tile, tile, 3)
    swapped = tiles[rows[:, None], order].reshape(count, 4, 4, tile, tile, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(swapped.reshape(crops.shape))
