"""The training loop: from a configuration to checkpoints, curves, pictures and a model folder.

Everything random is a function of the seed, the step and the process, so nothing of it is kept in a checkpoint, and a
training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import errno
import math
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from radan_ros.face_models import FaceModel, write_face_model
from radan_ros.files import whole_file, write_atomically
from radan_ros.model import Whitening, open_face_model, read_whitening
from radan_ros.networks import export_network, load_checkpoint, network_state, torch_module
from radan_ros.networks.runtime import MEAN, SCALE
from radan_ros.pipeline import cameras_in_crop
from radan_ros.threads import available_cores
from radan_ros.training import evaluation
from radan_ros.training.augmentation import AugmentationSettings, turn_of
from radan_ros.training.batches import Batches, loader, open_batches, open_samples
from radan_ros.training.config import Config, as_mapping, read_config
from radan_ros.training.datasets import Batch, SampleSet, project_landmarks
from radan_ros.training.losses import Geometry, total_loss
from radan_ros.training.pictures import prediction_grid
from radan_ros.training.samples import Samples

LOG_EVERY = 20  # steps
TELL_EVERY = 60.0  # seconds, where there is no terminal for a progress bar
BAD_STEPS = 10  # in a row, of a loss or gradient that is not finite, and the training stops
WHITENING_CROPS = 2048  # about so many, as they are trained on, for mean and standard deviation
LAST, BEST, WHITENING, CONFIG, METRICS = "last.pth", "best.pth", "whitening.npz", "config.yaml", "metrics.csv"


@dataclass(frozen=True)
class Process:
    """One of the processes that train together, and the device that it computes on."""

    number: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.number == 0


def train(config: Config, *, resume: bool = False) -> bool:
    """Train as configured.

    Parameters
    ----------
    config : Config
    resume : bool
        Go on from ``last.pth`` of the output folder.

    Returns
    -------
    bool
        Whether it came to its end; False when it was interrupted or its time was up.

    Raises
    ------
    ValueError, OSError, ImportError
        Configuration, data or checkpoint cannot be used, or the training diverged; the message says why.
    """
    with _processes(config) as process:
        try:
            try:
                training = Training(config, process, resume)
            except KeyboardInterrupt:
                if process.first:
                    tqdm.write("interrupted before the first step", file=sys.stderr)
                raise
            return training.run()
        except torch.OutOfMemoryError as error:
            raise ValueError(f"batch: {config.batch} is too large here: {str(error).partition('. ')[0]}") from None
        except RuntimeError as error:  # torch raises it wherever the training is when a worker dies
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise ValueError(f"workers: {error}; was there too little memory? Take fewer of them") from None


class Training:
    """A training that is under way.

    Parameters
    ----------
    config : Config
    process : Process
    resume : bool
    """

    def __init__(self, config: Config, process: Process, resume: bool = False) -> None:
        self.config, self.process = config, process
        self.folder = Path(config.output)
        if config.threads:
            torch.set_num_threads(min(config.threads, available_cores()))
        if sys.stderr.isatty():  # elsewhere a mistake in the configuration stays one line
            self._say("reading data ...")
        face_model = open_face_model(config.face_model)
        if face_model.modes != 50:
            modes = face_model.modes
            raise ValueError(f"face_model: {config.face_model} has {modes} modes; networks are trained for 50")
        self.face_model = face_model
        self.batches = open_batches(config, face_model, process.number, process.count)
        self.sets = {name: open_samples(folder, face_model) for name, folder in config.validation.sets.items()}
        self.steps = config.max_steps or (config.epochs or 0) * self.batches.steps_per_epoch
        saved = self._saved(resume)
        if process.first:
            self._write_config(resume)  # before the work, so that a folder that cannot be written to is no surprise
        self.network = self._network(saved)
        self.whitening = self._whitening(resume)
        self.geometry = Geometry(face_model, self.whitening).to(process.device)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False).eval() if config.ema else None
        self.model: nn.Module = self.network
        if process.count > 1:
            devices = [process.device.index] if process.device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(self.network, device_ids=devices)
        self.optimiser = _optimiser(self.network, config)
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=config.precision == "fp16")
        self.step, self.best, self.bad = 0, math.inf, 0
        if saved is not None:
            self._restore(saved)

    def run(self) -> bool:
        """Train to the end, or until Ctrl-C; True at the end."""
        if self.step >= self.steps:
            self._say(f"{self.folder}: all {self.steps} steps are done already")
            return True
        log = _Log(self.folder, self.step, self.process.first)
        started = time.monotonic()
        with _Interrupt() as interrupt, contextlib.closing(log):
            bar = tqdm(
                initial=self.step,
                total=self.steps,
                unit="step",
                disable=not (self.process.first and sys.stderr.isatty()),
                dynamic_ncols=True,
            )
            with bar:
                finished = self._steps(interrupt, log, bar, started)
        return finished

    def _steps(self, interrupt: _Interrupt, log: _Log, bar: Any, started: float) -> bool:
        config = self.config
        batches = loader(self.batches, self.step, self.steps, config.workers, pin=self.process.device.type == "cuda")
        meter, told = _Meter(), started
        while self.step < self.steps:
            waiting = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - waiting
            limit = config.time_limit_minutes
            stop = interrupt.seen or (limit is not None and time.monotonic() - started > 60 * limit)
            values, stop = self._train_step(batch, stop)
            meter.add(values, config.batch, waited)
            self.step += 1
            bar.update()
            if self.step % LOG_EVERY == 0:
                means = meter.means()
                log.scalars("train", means, self.step)
                how = f"loss {means['loss']:.3f}, {means['crops_per_second']:.0f} crops/s"
                bar.set_postfix_str(how)
                if bar.disable and time.monotonic() - told > TELL_EVERY:
                    self._say(f"step {self.step} of {self.steps}: {how}")
                    told = time.monotonic()
            due = self.step % config.validation.interval == 0 or self.step == self.steps
            if stop or due:
                if self.step % LOG_EVERY and meter.steps:
                    log.scalars("train", meter.means(), self.step)
                self._check_weights()
                if due:  # also when it is to stop: nobody would make up for it
                    self._validate(log, bar)
                if self.process.first:
                    self._write(LAST)
                _barrier(self.process)
                meter.restart()
            if stop and self.step < self.steps:
                why = "interrupted" if interrupt.seen else "time is up"
                again = shlex.join(["radan-train", "--resume", str(self.folder / CONFIG)])
                self._say(f"{why} after step {self.step} of {self.steps}; go on with: {again}")
                return False
        return True

    def _train_step(self, batch: dict[str, Tensor], stop: bool) -> tuple[dict[str, float], bool]:
        """One step; what the losses were (mean over processes), and whether any process wants to stop."""
        config, device = self.config, self.process.device
        torch.manual_seed(_seed(config.seed, self.step, self.process.number))  # of dropout
        generator = torch.Generator().manual_seed(_seed(config.seed, self.step))
        rate = config.optimiser.rate * config.schedule.rate(self.step, self.steps, self.batches.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        self.model.train()
        with _autocast(device, config.precision):
            prediction = self.model(_images(batch["crops"]))
        labels = {name: value for name, value in batch.items() if name != "crops"}
        losses = total_loss(
            prediction.float(), **labels, geometry=self.geometry, mix=config.losses, generator=generator
        )
        values = torch.stack([*losses.values(), losses["loss"].new_tensor(float(stop))]).detach()
        if self.process.count > 1:
            dist.all_reduce(values)
        *means, stops = (values / self.process.count).tolist()
        norm = math.nan
        if math.isfinite(means[0]):
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(losses["loss"]).backward()
            self.scaler.unscale_(self.optimiser)
            norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip or math.inf))
            if math.isfinite(norm):
                self.scaler.step(self.optimiser)
                self._average()
            self.scaler.update()
        self._count_bad(math.isfinite(norm), prediction)
        return {**dict(zip(losses, means, strict=True)), "rate": rate, "gradient": norm}, stops > 0

    def _count_bad(self, good: bool, prediction: Tensor) -> None:
        """Let a few steps without a finite loss go by: one bad crop, or half precision that finds its scale."""
        self.bad = 0 if good else self.bad + 1
        if good:
            return
        diverged = not bool(prediction.isfinite().all())
        if diverged or self.bad >= BAD_STEPS:
            raise self._diverged(
                "the network's answer" if diverged else f"the loss or its gradient, {BAD_STEPS} times in a row,"
            )
        self._say(f"step {self.step} is left out: its loss or gradient is not finite")

    def _check_weights(self) -> None:
        """Before anything is written: a checkpoint that cannot be gone on from would take the place of one that can."""
        for network in (self.network, self.averaged):
            if network is not None and not all(bool(t.isfinite().all()) for t in network.state_dict().values()):
                raise self._diverged("a weight")
        if self.bad == self.step == self.steps:
            raise ValueError(f"no step of {self.steps} had a finite loss and gradient: nothing was learned")

    def _diverged(self, what: str) -> ValueError:
        saved = f"; {self.folder / LAST} is from before" if (self.folder / LAST).is_file() else ""
        return ValueError(
            f"step {self.step}: {what} is not finite: the training diverged; lower optimiser.rate or set "
            f"optimiser.clip{saved}"
        )

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        # Nearer to the weights while there are few to average.
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        new, old = self.network.state_dict().values(), self.averaged.state_dict().values()
        floats = [(a, b) for a, b in zip(old, new, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - keep)
        for a, b in zip(old, new, strict=True):
            if not a.is_floating_point():
                a.copy_(b)

    # --- validation ---

    def _validate(self, log: _Log, bar: Any) -> None:
        """Measure on the validation sets, keep the best weights, draw; the first process alone."""
        if not (self.process.first and self.sets):
            return
        network = (self.averaged if self.averaged is not None else self.network).eval()
        errors = []
        for name, samples in self.sets.items():
            seen = seen_by_detector(samples)
            parameters = predict(network, seen.crops, self.whitening, self.process.device)
            with np.errstate(all="ignore"):  # of a training that diverges
                figures = measure(parameters, seen, self.face_model)
            if not math.isfinite(figures["mean"]):
                raise self._diverged(f"the error on {name}")
            log.scalars(name, figures, self.step)
            errors.append(figures["mean"])
            text = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
            bar.write(f"step {self.step}: {name}: NME % {text}", file=sys.stderr)
            if self.config.validation.pictures:
                which = spread_over_yaw(seen.parameters, self.config.validation.pictures)
                picture = prediction_grid(seen.crops[which], seen.landmarks[which], parameters[which], self.face_model)
                log.picture(name, picture, self.step)
        if errors[0] < self.best:
            self.best = errors[0]
            self._write(BEST)

    # --- files ---

    def _saved(self, resume: bool) -> dict[str, Any] | None:
        """What ``last.pth`` holds, where it is to be gone on from."""
        path = self.folder / LAST
        if not resume:
            if path.is_file():
                raise ValueError(f"{path}: a training is there already; take --resume or another --output")
            return None
        if not path.is_file():
            raise ValueError(f"{path} is missing: there is nothing to resume")
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # torch raises many kinds on a damaged file, with advice that is not for it
            raise ValueError(f"{path}: not a checkpoint of a training, or damaged") from None
        wanted = self._identity()
        if not isinstance(saved, dict) or not isinstance(saved.get("training"), dict):
            raise ValueError(f"{path}: a checkpoint, but without the state of a training")
        for key, value in wanted.items():
            if saved["training"].get(key) != value:
                raise ValueError(f"{path}: was trained with {key} {saved['training'].get(key)}, not {value}")
        if saved["training"]["step"] > self.steps:
            raise ValueError(
                f"{path}: is at step {saved['training']['step']} already, and {self.steps} are configured; what it was "
                f"trained with is in {self.folder / CONFIG}"
            )
        groups = saved["training"]["optimiser_state"]["param_groups"]
        if (len(groups) == 1) != self.config.optimiser.decay_norms:
            raise ValueError(f"{path}: was trained with another optimiser.decay_norms")
        return saved

    def _identity(self) -> dict[str, Any]:
        return {
            "network": str(self.config.network),
            "face_model": self.face_model.version,
            "ema": bool(self.config.ema),
            "optimiser": self.config.optimiser.kind,
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        training = saved["training"]
        if self.averaged is not None:
            self.averaged.load_state_dict(_without_prefix(saved["state_dict"]))
        # The settings of the optimiser are those that are configured now.
        settings = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict(training["optimiser_state"] | {"param_groups": settings})
        if training["scaler"]:
            self.scaler.load_state_dict(training["scaler"])
        self.step, self.best = training["step"], training["best"]

    def _write(self, name: str) -> None:
        """Write a checkpoint, whole or not at all: what is evaluated as 'state_dict', for `last.pth` also the rest."""
        evaluated = self.averaged if self.averaged is not None else self.network
        # The authors' checkpoints have this prefix, which their loader needs and ours takes away.
        content: dict[str, Any] = {
            "state_dict": {f"module.{key}": value for key, value in evaluated.state_dict().items()}
        }
        if name == LAST:
            content["training"] = {
                **self._identity(),
                "step": self.step,
                "best": self.best,
                "weights": self.network.state_dict() if self.averaged is not None else None,
                "optimiser_state": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        save_whole(content, self.folder / name)

    def _write_config(self, resume: bool) -> None:
        """Write the configuration; where it is not the one that the training was begun with, say what is another."""
        import yaml

        path, now = self.folder / CONFIG, as_mapping(self.config)
        if resume and path.is_file():
            before = as_mapping(read_config(path))
            began = ("output", "init", "whitening")  # how it began is not read again
            other = [key for key, value in now.items() if before[key] != value and key not in began]
            if other:
                self._say(f"{self.folder}: goes on with another {', '.join(other)} than before")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, yaml.safe_dump(now, sort_keys=False, allow_unicode=True).encode())

    def _whitening(self, resume: bool) -> Whitening:
        """The whitening of this training, written by its first process where it is not there yet."""
        path = self.folder / WHITENING
        if self.process.first and not resume:
            config = self.config
            beside = Path(config.init).parent / WHITENING if config.init else None
            if config.whitening:
                whitening = read_whitening(config.whitening)
            elif beside is not None and beside.is_file():
                whitening = read_whitening(beside)
            else:
                if beside is not None:
                    self._say(f"{beside} is missing: the whitening is that of the training data, not that of init")
                self._say("measuring the whitening ...")
                whitening = measure_whitening(self.batches, self.steps, config.workers)
            with whole_file(path) as part:
                np.savez(part, mean=whitening.mean, std=whitening.std)
        _barrier(self.process)
        return read_whitening(path)

    def _network(self, saved: dict[str, Any] | None) -> nn.Module:
        config = self.config
        torch.manual_seed(config.seed)
        network: nn.Module = torch_module(config.network)
        if saved is not None:
            weights = saved["training"]["weights"]
            network.load_state_dict(_without_prefix(saved["state_dict"]) if weights is None else weights)
        elif config.init:
            spec, state = network_state(load_checkpoint(config.init))
            if spec != config.network:
                raise ValueError(f"{config.init}: a {spec}, not a {config.network}")
            # A head for presence belongs to the weights that it was trained on: it is left out.
            network.load_state_dict({name: torch.tensor(state[name]) for name in network.state_dict()})
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        return network.to(self.process.device, memory_format=layout)

    def _say(self, text: str) -> None:
        if self.process.first:
            tqdm.write(text, file=sys.stderr)


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in state.items()}


def save_whole(content: dict[str, Any], path: Path) -> None:
    """As `torch.save`, but the file appears whole or, with an OSError, not at all."""
    with whole_file(path) as part:
        try:
            torch.save(content, part)
        except RuntimeError as error:  # torch's own for a full disk
            raise OSError(errno.EIO, f"cannot be written: {str(error).partition(chr(10))[0]}") from None


def _seed(*numbers: int) -> int:
    """One seed of several numbers, without a pattern between neighbours."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def measure_whitening(batches: Batches, steps: int, workers: int = 0) -> Whitening:
    """Mean and standard deviation of the parameters as trained on: of `WHITENING_CROPS`, at most so many steps.

    A parameter that never changes gets a deviation of 1. Processes make the crops: `workers`, or this one where 0.
    """
    made = loader(batches, 0, min(steps, math.ceil(WHITENING_CROPS / batches.batch)), workers)
    values = np.concatenate([b["parameters"][b["parameter_weights"] > 0].numpy() for b in made]).astype(np.float64)
    if not len(values):
        raise ValueError("whitening: no crop has parameters to measure it on; name a file")
    mean, std = values.mean(axis=0), values.std(axis=0)
    return Whitening(
        mean.astype(np.float32), np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-3), std, 1).astype(np.float32)
    )


def predict(
    network: nn.Module, crops: NDArray[np.uint8], whitening: Whitening, device: torch.device, batch: int = 256
) -> NDArray[np.float32]:
    """Parameters (N, 62) that a network in torch answers to crops (N, 120, 120, 3) uint8, in float32 arithmetic."""
    answers = [np.zeros((0, 62), np.float32)]
    with torch.inference_mode():
        for first in range(0, len(crops), batch):
            part = torch.from_numpy(np.ascontiguousarray(crops[first : first + batch])).to(device)
            answers.append(network(_images(part)).cpu().numpy())
    return whitening.undo(np.concatenate(answers))


def export_model(run: str | Path, folder: str | Path, *, graph: bool = False) -> Path:
    """Write what a training made as a model folder that `radan_ros.open_model` opens.

    Parameters
    ----------
    run : path
        Output folder of a training; its configuration says which of its checkpoints (`Config.export`).
    folder : path
        Made where missing.
    graph : bool
        Write the network as an OpenVINO graph in float32 instead of a checkpoint in half precision.

    Returns
    -------
    Path
        ``folder``.

    Raises
    ------
    ValueError, OSError
        Say what is missing or wrong.
    """
    import yaml

    run, folder = Path(run), Path(folder)
    config = read_config(run / CONFIG)
    best = config.export == "best" and config.validation.sets and (run / BEST).is_file()
    source = run / (BEST if best else LAST)
    spec, state = network_state(load_checkpoint(source))
    folder.mkdir(parents=True, exist_ok=True)
    if graph:
        export_network(source, folder / "network.xml")
    else:
        # Vectors are few, and running variances may be beyond half precision.
        tensors = {name: torch.from_numpy(value) for name, value in state.items()}
        half = {name: value.half() if value.ndim > 1 else value for name, value in tensors.items()}
        save_whole({"state_dict": half}, folder / "network.pth")
    shutil.copyfile(run / WHITENING, folder / WHITENING)
    write_face_model(folder / "face_model.npz", open_face_model(config.face_model))
    lines = {
        "name": config.name or spec.name,
        "network": "network.xml" if graph else "network.pth",
        "whitening": WHITENING,
        "face_model": "face_model.npz",
    }
    write_atomically(folder / "model.yaml", yaml.safe_dump(lines, sort_keys=False, allow_unicode=True).encode())
    return folder


def seen_by_detector(samples: Samples, seed: int = 0) -> Batch:
    """Samples cropped as a detector's box and a followed face would be, the same ones each time."""
    never: dict[str, Any] = {f.name: 0.0 for f in fields(AugmentationSettings) if f.name.endswith("_share")}
    settings = AugmentationSettings(**never | {"detector_share": 0.6, "rotation_std": 0.0, "box_spread": 1.0})
    return SampleSet(samples, settings, seed=seed).batch(np.arange(len(samples)), 0)


def measure(parameters: NDArray[np.float32], labels: Batch, face_model: FaceModel) -> dict[str, float]:
    """Figures of predicted parameters (N, 62) against labels.

    Returns
    -------
    dict of str to float
        'mean' and 'median' of the NME, percent; its mean by yaw, 'yaw 0-30' and so on, for bins that have faces;
        correlations of the openings of 'eyes' and 'mouth'.
    """
    predicted, given = project_landmarks(parameters, face_model), labels.landmarks
    errors = 100 * evaluation.nme(predicted, given)
    whole = evaluation.spread(errors)
    bins = evaluation.by_yaw(errors, evaluation.head_angles(cameras_in_crop(labels.parameters))[:, 0])
    return {
        "mean": whole.mean,
        "median": whole.median,
        **{f"yaw {low}-{high}": found.mean for (low, high), found in bins.items() if found.count},
        "eyes": evaluation.correlation(evaluation.eye_openings(predicted), evaluation.eye_openings(given)),
        "mouth": evaluation.correlation(evaluation.mouth_openings(predicted), evaluation.mouth_openings(given)),
    }


def spread_over_yaw(parameters: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of faces (at most `count`) from the farthest turned to one side to the farthest to the other."""
    turns = np.array([turn_of(row) for row in parameters])
    places = np.linspace(0, len(turns) - 1, min(count, len(turns)))
    return np.argsort(turns, kind="stable")[np.rint(places).astype(np.intp)]


def _images(crops: Tensor) -> Tensor:
    """Crops (B, 120, 120, 3) uint8 as the networks see them: (B, 3, 120, 120) float32, channels last in memory."""
    return crops.permute(0, 3, 1, 2).float().sub_(MEAN).div_(SCALE)


def _autocast(device: torch.device, precision: str) -> Any:
    types = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[precision], enabled=precision != "fp32")


def _optimiser(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    chosen = config.optimiser
    weights = list(network.parameters())
    groups: list[dict[str, Any]] = [{"params": weights}]
    if not chosen.decay_norms:
        groups = [
            {"params": [weight for weight in weights if weight.ndim > 1]},
            {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
        ]
    # One pass over all weights instead of a loop in Python.
    common: dict[str, Any] = {"lr": chosen.rate, "weight_decay": chosen.weight_decay, "fused": True}
    if chosen.kind == "sgd":
        return torch.optim.SGD(groups, momentum=chosen.momentum, nesterov=chosen.momentum > 0, **common)
    return torch.optim.AdamW(groups, betas=(chosen.momentum, 0.999), **common)


@contextlib.contextmanager
def _processes(config: Config) -> Iterator[Process]:
    """Join the processes that torchrun started, if it did, and choose the device."""
    count, number = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise ValueError("device: torch finds no CUDA device; take 'cpu' or 'auto'")
    if config.device == "cpu" or not cuda:
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("precision: fp16 is for CUDA; take bf16 or fp32 on the CPU")
    if count > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(number, count, device)
    finally:
        if count > 1:
            dist.destroy_process_group()


def _barrier(process: Process) -> None:
    if process.count > 1:
        dist.barrier()


class _Interrupt:
    """While it is entered, Ctrl-C and SIGTERM only leave word: a step is finished; a later one ends at once."""

    def __init__(self) -> None:
        self.seen = False
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as Ctrl-C is in a background job
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        # A terminal and torchrun may both pass on the same Ctrl-C.
        if self.seen and time.monotonic() - self._at > 2:
            raise KeyboardInterrupt
        if not self.seen:
            self.seen, self._at = True, time.monotonic()


class _Meter:
    """Means of what the steps report."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.steps, self._crops, self._waited = 0, 0, 0.0
        self._sums: dict[str, float] = {}
        self._since = time.monotonic()

    def add(self, values: dict[str, float], crops: int, waited: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.steps, self._crops, self._waited = self.steps + 1, self._crops + crops, self._waited + waited

    def means(self) -> dict[str, float]:
        """The means since the last call, and how fast it went; the share of time spent waiting for data."""
        elapsed = max(time.monotonic() - self._since, 1e-9)
        means = {name: value / self.steps for name, value in self._sums.items()}
        means |= {"crops_per_second": self._crops / elapsed, "waiting": self._waited / elapsed}
        self.restart()
        return means


class _Log:
    """Curves in ``metrics.csv`` (step, set, name, value) and TensorBoard, pictures there and in ``pictures/``.

    A training that is resumed drops what lies after the step it resumes from.
    """

    def __init__(self, folder: Path, step: int, enabled: bool) -> None:
        self._folder, self._board, self._file = folder, None, None
        if not enabled:
            return
        path = folder / METRICS
        kept = []
        if step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.reader(file) if len(row) == 4 and row[0].isdecimal() and int(row[0]) <= step]
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerows([("step", "set", "name", "value"), *kept])
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            tqdm.write("no TensorBoard here (pip install tensorboard): curves go into metrics.csv alone", sys.stderr)
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        if self._file is None:
            return
        self._rows.writerows((step, group, name, f"{value:.6g}") for name, value in values.items())
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        pictures = self._folder / "pictures"
        pictures.mkdir(exist_ok=True)
        cv2.imwrite(str(pictures / f"{name}_{step:07d}.jpg"), picture)
        if self._board is not None:
            self._board.add_image(name, picture[..., ::-1].copy(), step, dataformats="HWC")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
