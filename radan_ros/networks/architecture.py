"""What the networks look like: their kinds, their tables, and the name and shape of every entry of their state dicts.

NumPy alone, so that a checkpoint is checked, and run by OpenVINO, on a machine without torch. The torch modules
(``mobilenet.py``, ``radan.py``, ``radan_mobile.py``) and the graphs (``openvino_graphs.py``) are built from the same
tables.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

PARAMETERS = 62  # 12 camera (row-major 3x4), 40 shape, 10 expression
HEADS = (12, 40, 10)
INPUT_SIZE = 120  # pixels a side
BATCH_NORM_EPS = 1e-5

MOBILENET_WIDTHS = (2.0, 1.0, 0.75, 0.5, 0.25)
# name, output channels at width 1, stride of the depthwise convolution
MOBILENET_BLOCKS = (
    ("dw2_1", 64, 1),
    ("dw2_2", 128, 2),
    ("dw3_1", 128, 1),
    ("dw3_2", 256, 2),
    ("dw4_1", 256, 1),
    ("dw4_2", 512, 2),
    ("dw5_1", 512, 1),
    ("dw5_2", 512, 1),
    ("dw5_3", 512, 1),
    ("dw5_4", 512, 1),
    ("dw5_5", 512, 1),
    ("dw5_6", 1024, 2),
    ("dw6", 1024, 1),
)
MOBILENET_STEM = 32  # channels of the first convolution at width 1


@dataclass(frozen=True)
class PyramidLevel:
    """One convolution of a pyramid: kernel size, groups, output channels."""

    kernel: int
    groups: int
    channels: int


@dataclass(frozen=True)
class Stage:
    """One stage of the PyConvResNet-50 backbone: bottleneck width, blocks, and the pyramid's kernels and groups."""

    name: str
    width: int
    blocks: int
    kernels: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Output channels: four times the bottleneck's width."""
        return 4 * self.width

    @property
    def levels(self) -> tuple[PyramidLevel, ...]:
        """The pyramid, smallest kernel first. The last of three levels has half the channels; else all are equal."""
        quarter, half = self.width // 4, self.width // 2
        channels = {1: (self.width,), 2: (half, half), 3: (quarter, quarter, half), 4: (quarter,) * 4}[
            len(self.kernels)
        ]
        return tuple(PyramidLevel(*level) for level in zip(self.kernels, self.groups, channels, strict=True))


RADAN_STEM = 64
RADAN_STAGES = (
    Stage("layer1", 64, 3, (3, 5, 7, 9), (1, 4, 8, 16)),
    Stage("layer2", 128, 4, (3, 5, 7), (1, 4, 8)),
    Stage("layer3", 256, 6, (3, 5), (1, 4)),
    Stage("layer4", 512, 3, (3,), (1,)),
)
RADAN_ENCODER = "encoder_coarse"
ASPP_CHANNELS = 256
ASPP_DILATIONS = (1, 6, 12, 18)
SQUEEZE = 16  # every squeeze-and-excitation reduces its channels by this
HEAD_HIDDEN = 512


@dataclass(frozen=True)
class MobileStage:
    """One stage of radan_mobile: a full 3x3 convolution that halves the image, then depthwise-separable blocks."""

    name: str
    channels: int
    blocks: int


MOBILE_STEM = 16
MOBILE_STAGES = (
    MobileStage("layer1", 48, 1),
    MobileStage("layer2", 96, 2),
    MobileStage("layer3", 192, 3),
    MobileStage("layer4", 256, 1),
)
MOBILE_REPLAY_AFTER = "layer2"
MOBILE_FINAL_SIDE = 4  # pixels a side of the last map
MOBILE_HEADS = ("pose", "shape", "expression")  # names of the linears of `HEADS` outputs
MOBILE_MARK = "pool.conv.weight"  # an entry that no other network has
# A linear of one output that radan_mobile may have besides: the logit of `radan_ros.presence`, its last answer.
PRESENCE_HEAD = "fc_presence"


@dataclass(frozen=True)
class NetworkSpec:
    """Which network: ``name`` is 'radan', 'radan_mobile' or 'mobilenet_v1'.

    ``width`` is one of `MOBILENET_WIDTHS` for the last, None for the others.
    """

    name: str
    width: float | None = None

    def __post_init__(self) -> None:
        if self.name in ("radan", "radan_mobile"):
            if self.width is not None:
                raise ValueError(f"{self.name} has no width multiplier (width {self.width})")
        elif self.name == "mobilenet_v1":
            if self.width not in MOBILENET_WIDTHS:
                raise ValueError(f"mobilenet_v1: width {self.width} is not one of {MOBILENET_WIDTHS}")
        else:
            raise ValueError(f"name: {self.name!r} is unknown ('radan', 'radan_mobile' and 'mobilenet_v1' are known)")

    def __str__(self) -> str:
        return self.name if self.width is None else f"{self.name} x{self.width:g}"


def scaled(channels: int, width: float) -> int:
    """Channels of a MobileNet layer at a width multiplier."""
    return int(channels * width)


def state_shapes(spec: NetworkSpec, presence: bool = False) -> Shapes:
    """Name and shape of every entry of a network's state dict, in torch's order.

    RADAN's 481 names are those of the authors' checkpoint without ``module.``; MobileNet's are those of 3DDFA
    (the output layer is ``fc``). With `presence`, radan_mobile has its `PRESENCE_HEAD`, too; the others never have one.
    """
    if spec.width is not None:
        return dict(_mobilenet(spec.width))
    return dict(_radan() if spec.name == "radan" else _radan_mobile(presence))


def has_presence(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has a `PRESENCE_HEAD`."""
    return any(name.startswith(f"{PRESENCE_HEAD}.") for name in state)


def seeded_state(spec: NetworkSpec) -> State:
    """Weights that depend on the entries' names alone, of a sane size: for tests and timings without a checkpoint.

    Returns
    -------
    dict of float32 arrays (``num_batches_tracked``: int64 zeros)
    """
    return {name: _seeded(name, shape) for name, shape in state_shapes(spec).items()}


def _seeded(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    random = np.random.RandomState(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))
    if name.endswith("running_var"):
        value = random.uniform(0.8, 1.2, shape)
    elif name.endswith("running_mean"):
        value = random.uniform(-0.1, 0.1, shape)
    elif len(shape) == 1:
        low, high = (0.4, 0.6) if name.endswith("weight") else (-0.05, 0.05)
        value = random.uniform(low, high, shape)
    else:
        value = random.standard_normal(shape) * math.sqrt(1 / math.prod(shape[1:]))
    return np.asarray(value, np.float32)


Entries = Iterator[tuple[str, tuple[int, ...]]]


def _conv(name: str, shape: tuple[int, ...], bias: bool = False) -> Entries:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _norm(name: str, channels: int) -> Entries:
    for entry in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{entry}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def _mobilenet(width: float) -> Entries:
    channels = scaled(MOBILENET_STEM, width)
    yield from _conv("conv1", (channels, 3, 3, 3))
    yield from _norm("bn1", channels)
    for name, out, _ in MOBILENET_BLOCKS:
        yield from _conv(f"{name}.conv_dw", (channels, 1, 3, 3))
        yield from _norm(f"{name}.bn_dw", channels)
        yield from _conv(f"{name}.conv_sep", (scaled(out, width), channels, 1, 1))
        channels = scaled(out, width)
        yield from _norm(f"{name}.bn_sep", channels)
    yield from _conv("fc", (PARAMETERS, channels), bias=True)


def _radan() -> Entries:
    e = RADAN_ENCODER
    yield from _conv(f"{e}.conv1", (RADAN_STEM, 3, 7, 7))
    yield from _norm(f"{e}.bn1", RADAN_STEM)
    for number in (1, 2):
        yield from _transformer(f"{e}.transformer{number}", RADAN_STAGES[1].channels)
    channels = RADAN_STEM
    for stage in RADAN_STAGES:
        for block in range(stage.blocks):
            yield from _bottleneck(f"{e}.{stage.name}.{block}", stage, channels, first=block == 0)
            channels = stage.channels
        if stage.name in ("layer1", "layer2"):
            yield from _replay(f"{e}.replay_attention{stage.name[-1]}", channels)
        else:
            yield f"{e}.seLayer{stage.name[-1]}.fc.0.weight", (channels // SQUEEZE, channels)
            yield f"{e}.seLayer{stage.name[-1]}.fc.2.weight", (channels, channels // SQUEEZE)
    for number in (1, 2, 3):
        yield from _conv(f"{e}.fc{number}", (HEAD_HIDDEN, channels), bias=True)
    for number, out in enumerate(HEADS, start=1):
        yield from _conv(f"{e}.fc{number}1", (out, HEAD_HIDDEN), bias=True)


def _bottleneck(name: str, stage: Stage, channels: int, first: bool) -> Entries:
    yield from _conv(f"{name}.conv1", (stage.width, channels, 1, 1))
    yield from _norm(f"{name}.bn1", stage.width)
    for number, level in enumerate(stage.levels, start=1):
        part = f"{name}.conv2.conv2_{number}" if len(stage.levels) > 1 else f"{name}.conv2"
        yield from _conv(part, (level.channels, stage.width // level.groups, level.kernel, level.kernel))
    yield from _norm(f"{name}.bn2", stage.width)
    yield from _conv(f"{name}.conv3", (stage.channels, stage.width, 1, 1))
    yield from _norm(f"{name}.bn3", stage.channels)
    if first:
        yield from _conv(f"{name}.downsample.1", (stage.channels, channels, 1, 1))
        yield from _norm(f"{name}.downsample.2", stage.channels)


def _cbam(name: str, channels: int) -> Entries:
    hidden = channels // SQUEEZE
    yield from _conv(f"{name}.ChannelGate.mlp.1", (hidden, channels), bias=True)
    yield from _conv(f"{name}.ChannelGate.mlp.3", (channels, hidden), bias=True)
    yield from _conv(f"{name}.SpatialGate.spatial.conv", (1, 2, 7, 7))
    yield from _norm(f"{name}.SpatialGate.spatial.bn", 1)


def _replay(name: str, channels: int) -> Entries:
    yield from _cbam(f"{name}.attention", channels)
    for part, first, inputs in (("estimate_weight", 1, 1), ("fitting", 0, 1), ("dynamic_fusion", 0, 3)):
        yield from _conv(f"{name}.guider.{part}.{first}", (channels, inputs * channels, 3, 3))
        yield from _norm(f"{name}.guider.{part}.{first + 1}", channels)


def _transformer(name: str, channels: int) -> Entries:
    middle = ASPP_CHANNELS
    yield from _conv(f"{name}.aspp.conv", (middle, channels, 1, 1), bias=True)
    for dilation in ASPP_DILATIONS:
        kernel = 1 if dilation == 1 else 3
        yield from _conv(f"{name}.aspp.atrous_block{dilation}", (middle, channels, kernel, kernel), bias=True)
    yield from _conv(f"{name}.aspp.conv_1x1_output", (middle, (1 + len(ASPP_DILATIONS)) * middle, 1, 1), bias=True)
    yield from _conv(f"{name}.se.conv1", (channels, middle, 3, 3))
    yield from _norm(f"{name}.se.bn1", channels)
    yield from _conv(f"{name}.se.conv2", (channels, channels, 3, 3))
    yield from _norm(f"{name}.se.bn2", channels)
    yield from _conv(f"{name}.se.shortcut.0", (channels, middle, 1, 1))
    yield from _norm(f"{name}.se.shortcut.1", channels)
    yield from _conv(f"{name}.se.fc1", (channels // SQUEEZE, channels, 1, 1), bias=True)
    yield from _conv(f"{name}.se.fc2", (channels, channels // SQUEEZE, 1, 1), bias=True)


def _conv_norm(name: str, shape: tuple[int, ...]) -> Entries:
    yield from _conv(f"{name}.conv", shape)
    yield from _norm(f"{name}.bn", shape[0])


def _radan_mobile(presence: bool) -> Entries:
    channels = MOBILE_STEM
    yield from _conv_norm("stem", (channels, 3, 5, 5))
    for stage in MOBILE_STAGES:
        yield from _conv_norm(f"{stage.name}.0", (stage.channels, channels, 3, 3))
        channels = stage.channels
        for block in range(1, stage.blocks + 1):
            yield from _conv(f"{stage.name}.{block}.conv_dw", (channels, 1, 3, 3))
            yield from _conv(f"{stage.name}.{block}.conv_sep", (channels, channels, 1, 1))
            yield from _norm(f"{stage.name}.{block}.bn", channels)
        if stage.name == MOBILE_REPLAY_AFTER:
            yield from _light_replay("replay_attention", channels)
    yield from _conv("pool.conv", (channels, 1, MOBILE_FINAL_SIDE, MOBILE_FINAL_SIDE))
    yield from _norm("pool.bn", channels)
    for head, out in zip(MOBILE_HEADS, HEADS, strict=True):
        yield from _conv(f"fc_{head}", (out, channels), bias=True)
    if presence:
        yield from _conv(PRESENCE_HEAD, (1, channels), bias=True)


def _light_replay(name: str, channels: int) -> Entries:
    yield from _cbam(f"{name}.attention", channels)
    for part, first, shape in (
        ("estimate_weight", 1, (channels, 1, 3, 3)),
        ("fitting", 0, (channels, 1, 3, 3)),
        ("dynamic_fusion", 0, (channels, 2 * channels, 1, 1)),
    ):
        yield from _conv(f"{name}.guider.{part}.{first}", shape)
        yield from _norm(f"{name}.guider.{part}.{first + 1}", channels)
