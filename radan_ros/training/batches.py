"""From the sources of a configuration to batches as tensors, made ahead of the training by processes.

A batch depends on nothing but the configuration and the step, so a training that is resumed goes on as it was.
"""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from radan_ros.face_models import FaceModel
from radan_ros.face_models.mirror import mirror_coefficients
from radan_ros.model import read_whitening
from radan_ros.training.augmentation import swap_tiles
from radan_ros.training.config import Config, Source
from radan_ros.training.datasets import Batch, MixedSet, SampleSet, SyntheticSet, ThreeDDFASet, TrainingSet
from radan_ros.training.evaluation import face_sizes
from radan_ros.training.samples import Samples, read_samples
from radan_ros.training.synthetic import SyntheticFaces


class Batches:
    """The batch of every step of a training, for one of its processes.

    Parameters
    ----------
    mix : MixedSet
        Its epochs are whole batches.
    batch : int
        Crops of a step, over all processes.
    tile_swaps : bool
        Append to each batch its copy with tiles swapped (RADAN's doubled batch).
    process, processes : int
        Which part of each batch is made: one of `processes` equal parts.

    Raises
    ------
    ValueError
        The batch cannot be parted equally.
    """

    def __init__(self, mix: MixedSet, batch: int, tile_swaps: bool, process: int = 0, processes: int = 1) -> None:
        if batch % processes:
            raise ValueError(f"batch: {batch} crops cannot be parted equally over {processes} processes")
        self.mix, self.batch, self.tile_swaps = mix, batch, tile_swaps
        self.process, self.processes = process, processes
        self.steps_per_epoch = len(mix) // batch

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """The attributes of `datasets.Batch` as tensors."""
        epoch, place = divmod(step, self.steps_per_epoch)
        indices = place * self.batch + np.arange(self.process, self.batch, self.processes)
        made = self.mix.batch(indices, epoch)
        values = {f.name: getattr(made, f.name) for f in fields(Batch)}
        if self.tile_swaps:
            swapped = swap_tiles(made.crops, np.random.default_rng((self.mix.seed, step, self.process)))
            values = {
                name: np.concatenate([value, swapped if name == "crops" else value]) for name, value in values.items()
            }
        return {name: torch.from_numpy(value) for name, value in values.items()}


def open_batches(config: Config, face_model: FaceModel, process: int = 0, processes: int = 1) -> Batches:
    """Open all sources of a configuration; the first process says so where nothing can be mirrored.

    Raises
    ------
    ValueError, OSError
        Say which file, setting or key is missing or wrong.
    """
    settings = config.augmentation
    mirror: NDArray[np.floating] | None = None
    if settings.mirror_share:
        try:
            mirror = mirror_coefficients(face_model)
        except ValueError as error:  # not every model is symmetric
            if process == 0:
                tqdm.write(f"nothing is mirrored (augmentation.mirror_share): {error}", file=sys.stderr)
    options: list[dict[str, Any]] = [
        {"settings": settings, "seed": 1000 * config.seed + i, "mirror": mirror} for i in range(len(config.train))
    ]
    labelled = {
        i: _labelled(source, face_model, options[i])
        for i, source in enumerate(config.train)
        if source.synthetic is None
    }
    crops = config.epoch_crops or sum(len(part) for part in labelled.values())
    if crops < config.batch:
        raise ValueError(f"batch: {config.batch} is more than the {crops} crops of an epoch (epoch_crops)")
    size = crops // config.batch * config.batch
    total = sum(source.share for source in config.train)
    parts: list[tuple[TrainingSet, float]] = []
    for i, source in enumerate(config.train):
        if source.synthetic is None:
            parts.append((labelled[i], source.share))
        else:
            renderer = SyntheticFaces(face_model, source.synthetic)
            length = max(round(size * source.share / total), 1)
            parts.append((SyntheticSet(renderer, length, **options[i]), source.share))
    return Batches(MixedSet(parts, size, config.seed), config.batch, config.tile_swaps, process, processes)


def open_samples(folder: str, face_model: FaceModel) -> Samples:
    """Read samples of a face model as `read_samples`, and make sure that there are some and that each shows a face.

    Raises
    ------
    ValueError
        Names the folder and what is wrong.
    """
    samples = read_samples(folder, face_model)
    if not len(samples):
        raise ValueError(f"{folder}: no samples in it")
    flat = samples.names[face_sizes(samples.landmarks) == 0]
    if len(flat):
        raise ValueError(f"{folder}: {len(flat)} samples have all landmarks on one line: {', '.join(flat[:3])}")
    return samples


def _labelled(source: Source, face_model: FaceModel, options: dict[str, Any]) -> SampleSet | ThreeDDFASet:
    if source.samples is not None:
        return SampleSet(open_samples(source.samples, face_model), **options)
    whitening = None if source.whitening is None else read_whitening(source.whitening)
    return ThreeDDFASet(
        str(source.list), str(source.parameters), str(source.crops), face_model, whitening=whitening, **options
    )


def loader(batches: Batches, first: int, end: int, workers: int, pin: bool = False) -> Iterator[dict[str, Tensor]]:
    """The batches of the steps `first` .. `end` - 1 in order, made ahead by worker processes (0: when asked for).

    Processes and not threads: two threads were slower than one, because much of the augmentation holds the interpreter.
    """
    options: dict[str, Any] = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}
    try:
        with warnings.catch_warnings():
            # How many workers there are was chosen in the configuration; torch says it again for every iterator.
            warnings.filterwarnings("ignore", message=r"This DataLoader will create \d+ worker processes in total")
            made = iter(
                DataLoader(
                    batches,  # type: ignore[arg-type]
                    sampler=range(first, end),
                    batch_size=None,
                    num_workers=workers,
                    worker_init_fn=_start_worker,
                    pin_memory=pin,
                    **options,
                )
            )
        yield from made
    except (OSError, ValueError) as error:
        if "Traceback (most recent call last)" not in str(error):
            raise
        # What torch raised holds on to its frames, and they to the workers, which were then waited for in vain.
        traceback.clear_frames(error.__traceback__)
        # From a worker it comes with the worker's traceback: its own words are in the last line, behind their kind.
        raise ValueError(str(error).strip().splitlines()[-1].partition(": ")[2]) from None


def _start_worker(_: int) -> None:
    # Ctrl-C reaches the whole group of processes; the training finishes its step and ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a copy of the training's handler would not end it
    cv2.setNumThreads(0)  # the workers are the threads
