"""Losses of the regression networks, on whitened parameters (B, 62), labelled landmarks and weights.

PDC, VDC and WPDC are 3DDFA's (Zhu et al., "Face Alignment in Full Pose Range", TPAMI 2019), Wing is Feng et al.'s
("Wing Loss for Robust Facial Landmark Localisation", CVPR 2018), and half WPDC with Wing is RADAN's mix (Zhou et al.,
T-BIOM 2023). Every loss is the mean over the batch of each sample's loss times the sample's weight, so what a sample
contributes does not depend on its company. Points are in pixels of the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from radan_ros.boxes import CROP_SIZE
from radan_ros.face_models import FaceModel
from radan_ros.model import Whitening
from radan_ros.networks import PARAMETERS

CAMERA = 12  # the first of the parameters, row-major (3, 4)
OFFSET_Z = 11

# Upper and lower lids of both eyes, upper and lower inner lip: their distances are how far eyes and mouth are open.
OPENINGS = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))


@dataclass(frozen=True)
class LossMix:
    """What the training minimises: the weight of each loss (0 leaves it out), and their shapes.

    Attributes
    ----------
    pdc, vdc, wpdc, wing : float
        On the parameters; `vdc` and `wing` on the 68 landmarks and random vertices, in pixels.
    landmarks : float
        On the labelled landmarks, in pixels.
    openings : float
        On the openings of eyes and mouth as the labelled landmarks show them, in pixels.
    rigidity : float
        On cameras that are no scaled rotations: without it, landmarks are reached by stretching the face.
    wing_width, wing_curvature : float
        w and epsilon of `wing`, pixels.
    random_vertices : int
        Drawn anew for every step.
    landmark_loss : {'wing', 'smooth_l1'}
        Shape of `landmarks` and `openings`.
    landmark_width, landmark_curvature : float
        w and epsilon where that is Wing; of Smooth-L1, `landmark_width` is where it becomes linear. Pixels.
    """

    pdc: float = 0.0
    vdc: float = 0.0
    wpdc: float = 0.5
    wing: float = 1.0
    landmarks: float = 0.0
    openings: float = 0.0
    rigidity: float = 0.0
    wing_width: float = 10.0
    wing_curvature: float = 2.0
    random_vertices: int = 132
    landmark_loss: Literal["wing", "smooth_l1"] = "wing"
    landmark_width: float = 10.0
    landmark_curvature: float = 2.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, str) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{f.name}: {value} is not 0 or more")
        for name in ("wing_width", "wing_curvature", "landmark_width", "landmark_curvature"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}: must be more than 0")
        if not any((self.pdc, self.vdc, self.wpdc, self.wing, self.landmarks, self.openings, self.rigidity)):
            raise ValueError("all weights are 0: there is nothing to train for")


class Geometry(nn.Module):
    """Whitened parameters to points of the face model: what the losses need of whitening and model, as buffers.

    Parameters
    ----------
    face_model : FaceModel
        With 50 modes.
    whitening : Whitening

    Raises
    ------
    ValueError
        The face model has another number of modes.
    """

    mean: Tensor  # (62,)
    std: Tensor  # (62,)
    neutral: Tensor  # (V, 3)
    basis: Tensor  # (V, 3, 50)
    landmarks: Tensor  # (68,) int64
    moved: Tensor  # (62,)

    def __init__(self, face_model: FaceModel, whitening: Whitening) -> None:
        super().__init__()
        if face_model.modes != PARAMETERS - CAMERA:
            raise ValueError(
                f"face model {face_model.name} has {face_model.modes} modes; networks are trained for "
                f"{PARAMETERS - CAMERA}"
            )
        neutral = torch.tensor(face_model.mean)
        basis = torch.cat([torch.tensor(face_model.shape_basis), torch.tensor(face_model.expression_basis)], dim=2)
        self.register_buffer("mean", torch.tensor(whitening.mean))
        self.register_buffer("std", torch.tensor(whitening.std))
        self.register_buffer("neutral", neutral)
        self.register_buffer("basis", basis)
        self.register_buffer("landmarks", torch.tensor(face_model.landmarks, dtype=torch.int64))
        self.register_buffer("moved", _moved(neutral.double(), basis.double()).float())

    def parameters_of(self, whitened: Tensor) -> Tensor:
        """Whitened (B, 62) to parameters (B, 62)."""
        return whitened * self.std + self.mean

    def whiten(self, parameters: Tensor) -> Tensor:
        """Parameters (B, 62) to whitened (B, 62)."""
        return (parameters - self.mean) / self.std

    def points(self, parameters: Tensor, vertices: Tensor) -> Tensor:
        """Vertices (P,) int64 of the faces with these parameters (B, 62): (B, P, 3) in the networks' frame of the crop.

        That frame has its first pixel's centre at 1, y up and the third axis towards the viewer; see `crop_pixels`.
        """
        camera = parameters[:, :CAMERA].reshape(-1, 3, 4)
        rows = self.basis[vertices].reshape(-1, self.basis.shape[2])
        shape = parameters[:, CAMERA:] @ rows.T + self.neutral[vertices].reshape(-1)
        return shape.reshape(len(parameters), -1, 3) @ camera[:, :, :3].transpose(1, 2) + camera[:, None, :, 3]

    def landmark_pixels(self, parameters: Tensor) -> Tensor:
        """The 68 landmarks of parameters (B, 62) as (B, 68, 2) pixels of the crop, centres at integers, y down."""
        return crop_pixels(self.points(parameters, self.landmarks))

    def draw_vertices(self, count: int, generator: torch.Generator) -> Tensor:
        """The landmarks and `count` random vertices: (68 + count,) int64."""
        drawn = torch.randint(len(self.neutral), (count,), generator=generator)
        return torch.cat([self.landmarks, drawn.to(self.landmarks.device)])


def _moved(neutral: Tensor, basis: Tensor) -> Tensor:
    """How far one unit of each parameter moves the mean face (norm over its vertices), seen at a scale of 1: (62,)."""
    row = torch.cat([neutral.norm(dim=0), neutral.new_tensor([math.sqrt(len(neutral))])])
    moved = torch.cat([row, row, row, basis.flatten(0, 1).norm(dim=0)])
    moved[OFFSET_Z] = 0  # nothing in a crop tells how far away the face is
    return moved


def crop_pixels(points: Tensor) -> Tensor:
    """Points (..., 3) in the networks' frame (see `pipeline`) to x, y pixels of the crop (..., 2)."""
    return torch.stack([points[..., 0] - 1, CROP_SIZE - points[..., 1]], dim=-1)


def wing(error: Tensor, width: float, curvature: float) -> Tensor:
    """Wing's penalty of each error: width * log(1 + |error| / curvature) up to |error| = width, linear beyond."""
    size = error.abs()
    beyond = width - width * math.log1p(width / curvature)
    return torch.where(size < width, width * torch.log1p(size / curvature), size - beyond)


def smooth_l1(error: Tensor, width: float) -> Tensor:
    """Each error's Smooth-L1: error^2 / (2 width) up to |error| = width, |error| - width / 2 beyond."""
    size = error.abs()
    return torch.where(size < width, size * size / (2 * width), size - width / 2)


def pdc(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Parameter distance cost: the mean squared error of whitened parameters (B, 62); weights (B,)."""
    return ((prediction - target).square().mean(dim=1) * weights).mean()


def wpdc(prediction: Tensor, target: Tensor, geometry: Geometry, weights: Tensor) -> Tensor:
    """Weighted parameter distance cost: squared errors of whitened parameters (B, 62), each as it moves the face.

    Weights (B,). The importance of the parameters is taken as given: no gradient flows through it.
    """
    importance = wpdc_importance(prediction, target, geometry)
    return ((importance * (prediction - target).square()).mean(dim=1) * weights).mean()


@torch.no_grad()
def wpdc_importance(prediction: Tensor, target: Tensor, geometry: Geometry) -> Tensor:
    """How far each parameter's error moves the vertices, over the farthest of the sample: (B, 62), 0 .. 1.

    Shape and expression move the face in model units; the scale of the target's camera makes pixels of them. (3DDFA's
    code has the mean scale of its training set there, as a number.)
    """
    far = ((prediction - target) * geometry.std).abs() * geometry.moved
    camera = geometry.parameters_of(target)[:, :CAMERA].reshape(-1, 3, 4)
    far[:, CAMERA:] *= camera[:, :2, :3].square().sum(dim=2).mean(dim=1).sqrt()[:, None]
    return far / far.amax(dim=1, keepdim=True).clamp_min(torch.finfo(far.dtype).tiny)


def vertex_errors(prediction: Tensor, target: Tensor, geometry: Geometry, vertices: Tensor) -> Tensor:
    """Errors of vertices (P,) of whitened parameters (B, 62), the predicted z offset replaced by the target's.

    Returns
    -------
    (B, P, 3)
        Pixels.
    """
    given = geometry.parameters_of(target)
    answer = geometry.parameters_of(prediction)
    answer = torch.cat([answer[:, :OFFSET_Z], given[:, OFFSET_Z : OFFSET_Z + 1], answer[:, OFFSET_Z + 1 :]], dim=1)
    return geometry.points(answer, vertices) - geometry.points(given, vertices)


def vdc(errors: Tensor, weights: Tensor) -> Tensor:
    """Vertex distance cost: the mean square of `vertex_errors` (B, P, 3); weights (B,)."""
    return (errors.square().mean(dim=(1, 2)) * weights).mean()


def vertex_wing(errors: Tensor, weights: Tensor, width: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Wing of `vertex_errors` (B, P, 3); weights (B,)."""
    return (wing(errors, width, curvature).mean(dim=(1, 2)) * weights).mean()


def landmark_loss(pixels: Tensor, labels: Tensor, weights: Tensor, mix: LossMix) -> Tensor:
    """Loss of landmarks (B, 68, 2) against labels, pixels; weights (B, 68)."""
    return (_penalty(_believed_errors(pixels, labels, weights), mix).mean(dim=2) * weights).mean()


def opening_loss(pixels: Tensor, labels: Tensor, weights: Tensor, mix: LossMix) -> Tensor:
    """Loss of the vectors between the `OPENINGS` of landmarks (B, 68, 2) against labels, pixels; weights (B, 68).

    A pair is believed as far as the less sure of its landmarks.
    """
    upper, lower = torch.tensor(OPENINGS, device=pixels.device).unbind(dim=1)
    error = _believed_errors(pixels, labels, weights)
    believed = torch.minimum(weights[:, upper], weights[:, lower])
    return (_penalty(error[:, upper] - error[:, lower], mix).mean(dim=2) * believed).mean()


def rigidity(parameters: Tensor) -> Tensor:
    """How far the cameras of parameters (B, 62) are from scaled rotations: the mean of |A A^T / s^2 - I|^2.

    A are a camera's first three columns, s^2 the mean square of the lengths of its first two rows: 0 for a rotation at
    any scale.
    """
    rows = parameters[:, :CAMERA].reshape(-1, 3, 4)[:, :, :3]
    square = rows[:, :2].square().sum(dim=2).mean(dim=1)
    products = rows @ rows.transpose(1, 2) / square[:, None, None]
    unit = torch.eye(3, dtype=rows.dtype, device=rows.device)
    return (products - unit).square().sum(dim=(1, 2)).mean()


def _believed_errors(pixels: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Errors (B, 68, 2), 0 where the weight is: what is not labelled may hold anything, also NaN."""
    return torch.where(weights[:, :, None] > 0, pixels - labels, 0.0)


def _penalty(error: Tensor, mix: LossMix) -> Tensor:
    if mix.landmark_loss == "wing":
        return wing(error, mix.landmark_width, mix.landmark_curvature)
    return smooth_l1(error, mix.landmark_width)


def total_loss(
    prediction: Tensor,
    parameters: Tensor,
    landmarks: Tensor,
    landmark_weights: Tensor,
    parameter_weights: Tensor,
    geometry: Geometry,
    mix: LossMix,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The losses of a mix, each times its weight in it.

    Parameters
    ----------
    prediction : (B, 62)
        Whitened, as the network answers.
    parameters : (B, 62)
        Labels, not whitened.
    landmarks : (B, 68, 2)
        Labels, pixels of the crop.
    landmark_weights : (B, 68)
    parameter_weights : (B,)
    geometry : Geometry
    mix : LossMix
    generator : torch.Generator
        On the CPU; draws the random vertices.

    Returns
    -------
    dict of str to scalar
        Only losses of a weight other than 0, and their sum as 'loss'.
    """
    # What is not labelled may hold anything, also NaN.
    target = torch.where(parameter_weights[:, None] > 0, geometry.whiten(parameters), 0.0)
    parts: dict[str, Tensor] = {}
    if mix.pdc:
        parts["pdc"] = mix.pdc * pdc(prediction, target, parameter_weights)
    if mix.wpdc:
        parts["wpdc"] = mix.wpdc * wpdc(prediction, target, geometry, parameter_weights)
    if mix.vdc or mix.wing:
        vertices = geometry.draw_vertices(mix.random_vertices, generator)
        errors = vertex_errors(prediction, target, geometry, vertices)
        if mix.vdc:
            parts["vdc"] = mix.vdc * vdc(errors, parameter_weights)
        if mix.wing:
            parts["wing"] = mix.wing * vertex_wing(errors, parameter_weights, mix.wing_width, mix.wing_curvature)
    if mix.rigidity:
        parts["rigidity"] = mix.rigidity * rigidity(geometry.parameters_of(prediction))
    if mix.landmarks or mix.openings:
        pixels = geometry.landmark_pixels(geometry.parameters_of(prediction))
        if mix.landmarks:
            parts["landmarks"] = mix.landmarks * landmark_loss(pixels, landmarks, landmark_weights, mix)
        if mix.openings:
            parts["openings"] = mix.openings * opening_loss(pixels, landmarks, landmark_weights, mix)
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}
