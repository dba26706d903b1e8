"""How far can lids and lips be followed at all, by these labels? A network that does nothing else, to compare with.

usage: openings.py [--train FOLDER] [--validation FOLDER]

First the face model, fitted to the given points (what the samples hold as parameters): how far it follows them.

The network sees 40x40 patches of the eyes (or the mouth) cut at the given points, and answers how far they are open;
printed is its correlation on people kept back, beside which those of `make evaluate` can be judged. The folders are
made by `make model`. About four minutes on four cores; says so and ends where there are no folders.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from radan_ros.model import open_face_model
from radan_ros.training.datasets import project_landmarks
from radan_ros.training.evaluation import correlation, eye_openings, face_sizes, mouth_openings
from radan_ros.training.samples import MARGIN, Samples, read_samples

SIDE = 40  # pixels of a patch
PARTS = {"eyes": (((36, 42), (42, 48)), 0.30), "mouth": (((48, 68),), 0.55)}  # landmarks, patch over the face's size
EPOCHS, BATCH, COPIES = 5, 128, 6


def patches(samples: Samples, part: str, copies: int, jitter: float, seed: int) -> NDArray[np.float32]:
    """Patches (copies, N, parts, 3, SIDE, SIDE), -1..1, moved, scaled and turned by `jitter` of the face's size."""
    rng = np.random.default_rng(seed)
    places, share = PARTS[part]
    out = np.empty((copies, len(samples), len(places), 3, SIDE, SIDE), np.float32)
    for i, (crop, points) in enumerate(zip(samples.crops, samples.landmarks, strict=True)):
        size = float(face_sizes(points))
        for copy in range(copies):
            for k, (first, end) in enumerate(places):
                x, y = points[first:end].mean(axis=0) + MARGIN + 0.5 * jitter * size * rng.normal(size=2)
                scale = SIDE / (share * size * np.exp(1.5 * jitter * rng.normal()))
                matrix = cv2.getRotationMatrix2D(
                    (float(x), float(y)), float(np.degrees(2 * jitter * rng.normal())), scale
                )
                matrix[:, 2] += SIDE / 2 - np.array([x, y])
                out[copy, i, k] = cv2.warpAffine(crop, matrix, (SIDE, SIDE)).transpose(2, 0, 1)
    return out / 127.5 - 1


def network() -> nn.Sequential:
    """Eight convolutions, halving after every second one: 0.5 M parameters for this alone."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 48), (48, 96), (96, 128)):
        for i in (inputs, outputs):
            layers += [nn.Conv2d(i, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(128 * 4, 1))


def bound(train: Samples, validation: Samples, part: str) -> float:
    """Correlation on the validation people after training on the others."""
    measure = eye_openings if part == "eyes" else mouth_openings
    x = torch.from_numpy(patches(train, part, COPIES, 0.1, seed=0))
    places = x.shape[2]
    x = x.reshape(-1, 3, SIDE, SIDE)
    y = torch.from_numpy(np.tile(np.repeat(measure(train.landmarks), places), COPIES).astype(np.float32))
    y = (y - y.mean()) / y.std()
    torch.manual_seed(0)
    net = network()
    steps = EPOCHS * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            mirrored = x[chosen].flip(3) if torch.rand(()) < 0.5 else x[chosen]
            loss = functional.smooth_l1_loss(net(mirrored)[:, 0], y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval()
    seen = torch.from_numpy(patches(validation, part, 1, 0.0, seed=1)[0])
    with torch.no_grad():
        answers = net(seen.reshape(-1, 3, SIDE, SIDE))[:, 0].reshape(-1, places).mean(dim=1).numpy()
    return correlation(answers, measure(validation.landmarks))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=Path("out/data/ytf68_plain"))
    parser.add_argument("--validation", type=Path, default=Path("out/data/ytf68_val"))
    options = parser.parse_args()
    if not (options.train.is_dir() and options.validation.is_dir()):
        print(f"skipped: {options.train} and {options.validation} are made by `make model`")
        return 0
    train, validation = read_samples(options.train), read_samples(options.validation)
    print(f"correlations on {len(validation)} faces of people kept back")
    fitted = project_landmarks(validation.parameters, open_face_model("builtin"))
    for part in PARTS:
        measure = eye_openings if part == "eyes" else mouth_openings
        followed = correlation(measure(fitted), measure(validation.landmarks))
        print(f"{part}: face model fitted to the given points {followed:.2f}")
    for part in PARTS:
        print(f"{part}: network {bound(train, validation, part):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
