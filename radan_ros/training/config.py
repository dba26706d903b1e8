"""The configuration of a training: one YAML file, read strictly into dataclasses.

Paths in it are relative to the folder that the training is started in.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from radan_ros.networks import NetworkSpec
from radan_ros.training.augmentation import AugmentationSettings
from radan_ros.training.losses import LossMix
from radan_ros.training.synthetic import SyntheticSettings


@dataclass(frozen=True)
class Source:
    """One of the things trained on; exactly one of `samples`, `list` and `synthetic` is given.

    Attributes
    ----------
    samples : str, optional
        Folder of labelled crops (`samples.read_samples`).
    list : str, optional
        3DDFA's list of picture names, a line each; with `parameters` (its pickle) and `crops` (folder of the pictures).
    parameters, crops : str, optional
    whitening : str, optional
        Where that pickle holds whitened parameters: mean and standard deviation to undo it.
    synthetic : SyntheticSettings, optional
        Rendered as they are needed. Empty for the defaults.
    share : float
        Of the batch, relative to the other sources.
    """

    samples: str | None = None
    list: str | None = None
    parameters: str | None = None
    crops: str | None = None
    whitening: str | None = None
    synthetic: SyntheticSettings | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.samples, self.list, self.synthetic)) != 1:
            raise ValueError("exactly one of samples, list and synthetic is needed")
        for name in ("parameters", "crops"):
            if (getattr(self, name) is None) != (self.list is None):
                raise ValueError(f"{name}: " + ("is missing beside list" if self.list else "goes with list alone"))
        if self.whitening is not None and self.list is None:
            raise ValueError("whitening: goes with list alone")
        _check("share", self.share, above=0)


@dataclass(frozen=True)
class Validation:
    """When and on what the training is measured.

    Attributes
    ----------
    sets : mapping of str to str
        Name to folder of labelled crops. The first decides which checkpoint is the best.
    interval : int
        Steps between validations; also between writings of ``last.pth``.
    pictures : int
        Crops drawn for each set.
    """

    sets: Mapping[str, str] = field(default_factory=dict)
    interval: int = 500
    pictures: int = 16

    def __post_init__(self) -> None:
        for name, folder in self.sets.items():
            if not isinstance(folder, str):
                raise ValueError(f"sets.{name}: {folder!r} is not a folder")
        _check("interval", self.interval, low=1)
        _check("pictures", self.pictures, low=0)


@dataclass(frozen=True)
class Optimiser:
    """How weights follow gradients.

    Attributes
    ----------
    kind : {'sgd', 'adamw'}
        SGD is with Nesterov momentum.
    rate : float
        Learning rate before the schedule.
    momentum : float
        Of SGD; of AdamW the decay of the first moment.
    weight_decay : float
    decay_norms : bool
        Decay also biases and batch norms (as the authors of RADAN do) instead of the other weights alone.
    clip : float
        Longest gradient (norm over all weights); 0 does not clip.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_norms: bool = True
    clip: float = 0.0

    def __post_init__(self) -> None:
        _check("rate", self.rate, above=0)
        _check("momentum", self.momentum, low=0, below=1)
        _check("weight_decay", self.weight_decay, low=0)
        _check("clip", self.clip, low=0)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes.

    Attributes
    ----------
    kind : {'steps', 'cosine'}
    warm_up : int
        Steps in which it rises from 0.
    epochs : tuple of int
        Of 'steps': after each of these epochs it is multiplied by `factor`.
    factor : float
    final : float
        Of 'cosine': where it ends, as a part of where it began.
    """

    kind: Literal["steps", "cosine"] = "steps"
    warm_up: int = 0
    epochs: tuple[int, ...] = (15, 25, 30)
    factor: float = 0.2
    final: float = 0.01

    def __post_init__(self) -> None:
        _check("warm_up", self.warm_up, low=0)
        _check("factor", self.factor, above=0, high=1)
        _check("final", self.final, low=0, high=1)
        if any(epoch < 1 for epoch in self.epochs) or list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"epochs: {list(self.epochs)} do not rise from 1 or more")

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What the base rate is multiplied by at a step (from 0) of a training of so many steps."""
        rise = min((step + 1) / self.warm_up, 1.0) if self.warm_up else 1.0
        if self.kind == "steps":
            return rise * self.factor ** sum(step >= epoch * steps_per_epoch for epoch in self.epochs)
        done = min(max(step - self.warm_up, 0) / max(steps - self.warm_up, 1), 1.0)
        return rise * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Config:
    """Everything about a training.

    Attributes
    ----------
    output : str
        Folder for checkpoints, curves, pictures and the exported model.
    train : tuple of Source
    network : NetworkSpec
    name : str
        Of the exported model; by default the network's.
    face_model : str
        'builtin', a face model of our format (``.npz``), 3DDFA's folder, or 3DDFA_V2's ``.pkl``.
    validation : Validation
    augmentation : AugmentationSettings
    losses : LossMix
    optimiser : Optimiser
    schedule : Schedule
    epochs, max_steps : int, optional
        How long; exactly one of them.
    epoch_crops : int, optional
        Crops in an epoch; by default as many as are labelled. Needed with synthetic faces alone.
    time_limit_minutes : float, optional
        After it the training is left as by Ctrl-C, to be resumed.
    batch : int
        Crops a step, over all processes, before `tile_swaps` doubles them.
    tile_swaps : bool
        RADAN's doubled batch: every crop also with tiles swapped.
    ema : float
        Decay of the running mean of the weights, which is then what is evaluated and exported; 0 for none.
    init : str, optional
        Checkpoint to start from. Like `whitening` not read again when a training is resumed.
    whitening : str, optional
        Whitening to train with; by default ``whitening.npz`` beside `init`, or else that of the training data.
    device : {'auto', 'cpu', 'cuda'}
    precision : {'fp32', 'bf16', 'fp16'}
        Of the network's arithmetic; the weights are float32.
    channels_last : bool
        Keep images with their channels together: faster on most processors.
    workers : int
        Processes that make batches, for each process that trains; 0 makes them between the steps.
    threads : int
        Threads of the arithmetic on a CPU, at most one for each of its cores; 0 leaves it to torch.
    export : {'best', 'last'}
        Which weights become the model at the end: those that were best on the first validation set, or the last ones,
        which that set had no part in choosing. Without validation sets always the last ones.
    seed : int
    """

    output: str
    train: tuple[Source, ...]
    network: NetworkSpec
    name: str | None = None
    face_model: str = "builtin"
    validation: Validation = field(default_factory=Validation)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    losses: LossMix = field(default_factory=LossMix)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    epochs: int | None = None
    max_steps: int | None = None
    epoch_crops: int | None = None
    time_limit_minutes: float | None = None
    batch: int = 128
    tile_swaps: bool = True
    ema: float = 0.0
    init: str | None = None
    whitening: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    workers: int = 2
    threads: int = 0
    export: Literal["best", "last"] = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.output.strip():
            raise ValueError("output: is empty; name a folder")
        if not self.train:
            raise ValueError("train: there is nothing to train on")
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("exactly one of epochs and max_steps is needed")
        for name in ("epochs", "max_steps", "epoch_crops"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), low=1)
        if self.time_limit_minutes is not None:
            _check("time_limit_minutes", self.time_limit_minutes, above=0)
        if self.epoch_crops is None and all(source.synthetic is not None for source in self.train):
            raise ValueError("epoch_crops: is needed with synthetic faces alone")
        _check("batch", self.batch, low=2)
        _check("ema", self.ema, low=0, below=1)
        _check("workers", self.workers, low=0)
        _check("threads", self.threads, low=0)
        _check("seed", self.seed, low=0, high=2**31 - 1)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path : path
        YAML, with the keys of `Config`.
    overrides : sequence of str
        ``key=value`` that replace what the file says: dots go into sections and lists (``optimiser.rate=0.01``,
        ``train.0.share=2``), values are YAML.

    Raises
    ------
    ValueError
        Names the file, the key, and what is wrong: unknown, of the wrong type or out of range.
    OSError
        The file cannot be read.
    """
    import yaml

    source = Path(path)
    if not source.exists() or source.is_dir():
        what = "a folder, not a configuration file" if source.is_dir() else "no such configuration file"
        raise ValueError(f"{source}: {what}")
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{source}: is not a list of key: value")
    for override in overrides:
        key, equals, text = override.partition("=")
        try:
            if not (equals and key.strip()):
                raise ValueError("is not key=value")
            _put(content, key.strip().split("."), yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"--set {override}: {' '.join(str(error).split())}") from None
    try:
        return cast(Config, _build(Config, content, ""))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def as_mapping(config: Config) -> dict[str, Any]:
    """A configuration as plain dictionaries and lists, as `read_config` takes them from a file."""
    return cast("dict[str, Any]", _plain(dataclasses.asdict(config)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _put(content: Any, keys: list[str], value: Any) -> None:
    """Set an entry deep in nested dictionaries and lists; dictionaries that are missing on the way are made."""
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(content, list):
            if not key.isdecimal() or int(key) >= len(content):
                raise ValueError(f"{'.'.join(keys[:depth])} is a list of {len(content)}: it has no {key!r}")
            content[int(key)] = value if last else content[int(key)]
            content = content[int(key)]
        elif isinstance(content, dict):
            if last:
                content[key] = value
            elif content.get(key) is None:
                content[key] = {}
            content = content[key]
        else:
            raise ValueError(f"{'.'.join(keys[:depth])} has no keys below it")


def _build(kind: type[Any], content: Any, where: str) -> Any:
    """Make a dataclass of a mapping, strictly; `where` is the dotted key that stands before messages."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{where.rstrip('.') or 'the file'}: {content!r} is not a list of key: value")
    known = {f.name: f for f in fields(kind) if f.init}
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        raise ValueError(f"{where}{unknown[0]}: unknown; known here: {', '.join(known)}")
    missing = [
        name
        for name, f in known.items()
        if name not in content and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where}{missing[0]}: is missing")
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], value, f"{where}{name}") for name, value in content.items()}
    try:
        return kind(**values)
    except ValueError as error:
        names_key = re.match(r"[\w.]+: ", str(error)) or not where
        raise ValueError(f"{where}{error}" if names_key else f"{where.rstrip('.')}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check a value against a type hint, and make tuples and dataclasses of lists and mappings."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        # True == 1, but no choice here is a number
        if not isinstance(value, str) or value not in arguments:
            raise ValueError(f"{where}: {value!r} is none of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: {value!r} is not a list")
        return tuple(_value(arguments[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{where}.")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{where}: {value!r} is not a list of key: value")
        return dict(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 takes 1e-3, without a dot, for text
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{where}: {value!r} is not a number") from None
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    fits = isinstance(value, int | float) if hint is float else isinstance(value, hint)
    if not fits or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{where}: {value!r} is not {names[hint]}")
    if hint is float:
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not finite")
    return value


def _check(
    name: str,
    value: float,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError unless low <= value <= high and above < value < below, as far as these are given."""
    for bad, what in (
        (low is not None and value < low, f"at least {low}"),
        (above is not None and value <= above, f"more than {above}"),
        (high is not None and value > high, f"at most {high}"),
        (below is not None and value >= below, f"less than {below}"),
    ):
        if bad:
            raise ValueError(f"{name}: {value} is not {what}")
