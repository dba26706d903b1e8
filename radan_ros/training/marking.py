"""A network that marks the 68 points of a crop, learned from marked points: a teacher for eyes and mouths of our own.

Networks that answer parameters of a face model follow lids and lips only in part, and so do labels that come from them.
Heatmaps follow them further (Sun et al., "Integral Human Pose Regression", ECCV 2018, have the centre of mass): this
network is three times as large as the built-in one, and used for labels alone. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from radan_ros.boxes import crop, crop_to_image, square_from_landmarks
from radan_ros.training.augmentation import MIRRORED, AugmentationSettings
from radan_ros.training.batches import Batches, loader
from radan_ros.training.datasets import MixedSet, SampleSet, TrainingSet
from radan_ros.training.evaluation import face_sizes
from radan_ros.training.losses import OPENINGS
from radan_ros.training.preparation import OPENING, LabelledPictures, common_offset, read_photograph
from radan_ros.training.samples import Samples

EYES_AND_MOUTH = np.arange(36, 68)
BATCH = 64
_CHANNELS = (24, 48, 96, 160, 224)
_STRIDE = 4  # pixels of the crop between those of a heatmap
_RATE, _DECAY, _CLIP, _AVERAGE = 2e-3, 0.05, 5.0, 0.997
_OPENING_WEIGHT = 2.0  # of the openings of eyes and mouth beside the points themselves
_TAUGHT_SHARE = 0.3  # of the crops that only a teacher has labelled
_AUGMENTATION = AugmentationSettings(
    detector_share=0.0, large_rotation_share=0.1, light_share=0.1, low_resolution_share=0.2
)


class Marker(nn.Module):
    """A small U-Net; the centres of mass of its 68 heatmaps are the points.

    Takes crops as `as_input` makes them, (B, 3, 120, 120), and answers (B, 68, 2) in pixels of the crop.
    """

    def __init__(self) -> None:
        super().__init__()
        c = _CHANNELS
        self.stem = _conv(3, c[0], 2)
        self.down = nn.ModuleList(nn.Sequential(_conv(i, o, 2), Residual(o)) for i, o in zip(c, c[1:], strict=False))
        self.up = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in ((c[4], c[3]), (c[3], c[2]), (c[2], c[1])))
        self.mixed = nn.ModuleList(Residual(o) for o in (c[3], c[2], c[1]))
        self.maps = nn.Conv2d(c[1], 68, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 120, 120) float32 to (B, 68, 2) float32."""
        x = self.stem(x)
        sides = [x := part(x) for part in self.down]
        for up, mixed, side in zip(self.up, self.mixed, reversed(sides[:-1]), strict=True):
            x = mixed(side + functional.interpolate(up(x), size=side.shape[2:]))
        maps = self.maps(x).float()
        places = torch.arange(maps.shape[2], device=x.device) * _STRIDE + (_STRIDE - 1) / 2
        maps = maps.flatten(2).softmax(dim=2).unflatten(2, maps.shape[2:])
        return torch.stack([maps.sum(dim=2) @ places, maps.sum(dim=3) @ places], dim=2)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(channels, channels), *_conv(channels, channels)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.convs(x))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def as_input(crops: Tensor) -> Tensor:
    """(B, 120, 120, 3) uint8 BGR to what `Marker` takes."""
    return ((crops.permute(0, 3, 1, 2).float() - 127.5) / 64).contiguous(memory_format=torch.channels_last)


def learn(
    marked: Sequence[Samples],
    taught: Sequence[Samples],
    steps: int,
    *,
    batch: int = BATCH,
    seed: int = 0,
    workers: int = 1,
    progress: bool = False,
) -> Marker:
    """Train a network; its weights are the running mean of the training's.

    Parameters
    ----------
    marked : sequence of Samples
        Whose points are marked.
    taught : sequence of Samples
        Whose points a teacher has placed: their lids and inner lips count nothing. So the network knows such pictures,
        too.
    steps : int
    batch : int
        Crops of a step.
    seed : int
    workers : int
        Processes that make the crops.
    progress : bool
        Show a bar on standard error.
    """
    torch.manual_seed(seed)
    network = Marker().to(memory_format=torch.channels_last)
    averaged = torch.optim.swa_utils.AveragedModel(network, avg_fn=_towards, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    batches = Batches(_mixed(marked, taught, batch, seed), batch, tile_swaps=False)
    for made in tqdm(loader(batches, 0, steps, workers), total=steps, unit="step", disable=not progress):
        with torch.autocast("cpu", torch.bfloat16):
            points = network(as_input(made["crops"]))
        loss = marking_loss(points, made["landmarks"], made["landmark_weights"])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(network)
    marker = averaged.module
    assert isinstance(marker, Marker)
    return marker.eval()


def _towards(average: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
    """A running mean over ever more of the last steps, up to what `_AVERAGE` stands for."""
    if not average.is_floating_point():  # the count of a batch norm
        return now
    return average.lerp(now, 1 - min(_AVERAGE, (1 + int(count)) / (10 + int(count))))


def marking_loss(points: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Smooth L1 of points (B, 68, 2), and of the openings of eyes and mouth, by the labels' weights (B, 68)."""
    above, below = (torch.tensor(side) for side in zip(*OPENINGS, strict=True))
    off, believed = points - labels, weights[..., None]
    apart = off[:, above] - off[:, below]
    return (believed * _smooth(off)).mean() + _OPENING_WEIGHT * (believed[:, above] * _smooth(apart)).mean()


def _smooth(off: Tensor) -> Tensor:
    return functional.smooth_l1_loss(off, torch.zeros_like(off), reduction="none")


def _mixed(marked: Sequence[Samples], taught: Sequence[Samples], batch: int, seed: int) -> MixedSet:
    """Marked and taught crops in their shares; a set counts by its size."""
    parts: list[tuple[TrainingSet, float]] = []
    for sets, share in ((marked, 1 - _TAUGHT_SHARE), (taught, _TAUGHT_SHARE)):
        total = sum(len(samples) for samples in sets)
        for samples in sets:
            if sets is taught:
                weights = samples.landmark_weights.copy()
                weights[:, OPENING] = 0
                samples = replace(samples, landmark_weights=weights)
            # The parameters, of which nothing is learned here, may be mirrored anyhow.
            part = SampleSet(samples, _AUGMENTATION, seed=seed + len(parts), mirror=np.eye(50))
            parts.append((part, share * len(samples) / total))
    return MixedSet(parts, max(sum(len(part) for part, _ in parts) // batch, 1) * batch, seed)


@torch.no_grad()
def mark(network: Marker, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Points of crops (N, 120, 120, 3) uint8 BGR: (N, 68, 2), means over each and its mirror image."""
    answers = [np.zeros((0, 68, 2), np.float32)]
    for part in torch.from_numpy(crops).split(BATCH):
        plain, mirrored = network(as_input(part)), network(as_input(part.flip(2)))[:, MIRRORED]
        mirrored[..., 0] = crops.shape[2] - 1 - mirrored[..., 0]
        answers.append(((plain + mirrored) / 2).numpy())
    return np.concatenate(answers)


def mark_pictures(network: Marker, pictures: LabelledPictures, block: int = 256) -> Iterator[NDArray[np.float64]]:
    """Points of pictures, (n, 68, 2) image pixels, by the block; NaN where no point is known to crop around.

    Raises
    ------
    ValueError
        Names a picture that cannot be read.
    """
    for first in range(0, len(pictures), block):
        part = pictures.take(slice(first, first + block))
        points = np.full((len(part), 68, 2), np.nan)
        rois = {i: square_from_landmarks(known) for i, known in enumerate(_known(part)) if len(known)}
        if rois:
            images = (read_photograph(part.folder / "images" / str(part.names[i])) for i in rois)
            crops = np.stack([crop(image, roi) for image, roi in zip(images, rois.values(), strict=True)])
            to_image = np.stack([crop_to_image(roi) for roi in rois.values()])
            points[[*rois]] = mark(network, crops) @ to_image[:, :2, :2].swapaxes(1, 2) + to_image[:, None, :2, 2]
        yield points


def _known(pictures: LabelledPictures) -> Iterator[NDArray[np.float64]]:
    """The points of each picture that are known, (P, 2): the teacher's, or else the marked ones."""
    for i in range(len(pictures)):
        for labels in (pictures.teacher, pictures.marked):
            points = np.zeros((0, 2)) if labels is None else labels[i, :, :2]
            points = points[np.isfinite(points).all(axis=1)]
            if len(points):
                break
        yield points


def corrected(pictures: LabelledPictures, points: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Labels with what a network has marked, (n, 68, 2) image pixels: keys of ``labels.npz``.

    Marked points become the mean of what they were and of the network's, which lie off as the marked ones do
    (`common_offset`). Of a teacher's points those of eyes and mouth become the network's.
    """
    marked, teacher = pictures.marked, pictures.teacher
    labels: dict[str, NDArray[np.float64]] = {}
    if marked is not None:
        off = np.zeros(2) if teacher is None else common_offset(marked, teacher)
        moved = points + off * face_sizes(points)[:, None, None]
        labels["landmarks68_2d"] = np.where(np.isfinite(moved), (marked + moved) / 2, marked)
    if teacher is not None:
        theirs = teacher * [1, 1, -1]
        if marked is None:
            ours = points[:, EYES_AND_MOUTH]
            theirs[:, EYES_AND_MOUTH, :2] = np.where(np.isfinite(ours), ours, theirs[:, EYES_AND_MOUTH, :2])
            labels["opening_weight"] = np.ones(len(theirs))
        labels["teacher_landmarks68_3d"] = theirs
    if pictures.spread is not None:
        labels["teacher_spread"] = pictures.spread
    return labels
