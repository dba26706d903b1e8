"""The networks as OpenVINO graphs, built from NumPy weights: what a CPU without torch runs.

Every batch norm follows a convolution directly and is folded into it. Input: (N, 120, 120, 3) uint8, BGR; the
normalisation is the graph's first step. Output: (N, 62) float32, or (N, 63) with the head for presence. Imports
openvino: import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from radan_ros.networks.architecture import (
    ASPP_CHANNELS,
    ASPP_DILATIONS,
    BATCH_NORM_EPS,
    INPUT_SIZE,
    MOBILE_HEADS,
    MOBILE_REPLAY_AFTER,
    MOBILE_STAGES,
    MOBILENET_BLOCKS,
    PRESENCE_HEAD,
    RADAN_ENCODER,
    RADAN_STAGES,
    NetworkSpec,
    Stage,
    State,
    has_presence,
)

Node = Any  # openvino.Node or Output; the package has no useful types for them
Array = NDArray[np.float32]

INPUT_NAME = "crops"
OUTPUT_NAME = "parameters"
RT_INFO = ["radan_ros", "network"]  # where an exported file says which network it is

_SPATIAL = np.array([2, 3], np.int64)
_CHANNELS = np.array([1], np.int64)


def build(spec: NetworkSpec, state: State) -> Any:
    """Build the graph of a network.

    Parameters
    ----------
    spec : NetworkSpec
    state : dict of float32 arrays
        Its weights, as `checkpoint.network_state` returns them.

    Returns
    -------
    openvino.Model
        Input 'crops' (?, 120, 120, 3) uint8 BGR, output 'parameters' (?, 62) float32, whitened; (?, 63) where the
        weights have the head for presence, whose logit is the last.
    """
    crops = ops.parameter([-1, INPUT_SIZE, INPUT_SIZE, 3], np.uint8, name=INPUT_NAME)
    crops.output(0).set_names({INPUT_NAME})
    pixels = ops.convert(crops, "f32")
    normalised = ops.multiply(ops.subtract(pixels, _constant(127.5)), _constant(1 / 128))
    x = ops.transpose(normalised, np.array([0, 3, 1, 2], np.int64))
    if spec.name == "radan":
        y = _radan(_Weights(state, f"{RADAN_ENCODER}."), x)
    elif spec.name == "radan_mobile":
        y = _radan_mobile(_Weights(state), x)
    else:
        y = _mobilenet(_Weights(state), x)
    result = ops.result(y, name=OUTPUT_NAME)
    result.output(0).set_names({OUTPUT_NAME})
    model = ov.Model([result], [crops], spec.name)
    model.set_rt_info(str(spec), RT_INFO)
    return model


class _Weights:
    """A state dict seen from one module: names are relative to a prefix."""

    def __init__(self, state: State, prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __truediv__(self, name: str) -> _Weights:
        return _Weights(self.state, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return f"{self.prefix}{name}" in self.state

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self.state[f"{self.prefix}{name}"], np.float32)

    def scale_and_shift(self) -> tuple[Array, Array]:
        """This batch norm as y = scale * x + shift, (C,) each."""
        scale = self["weight"] / np.sqrt(self["running_var"] + np.float32(BATCH_NORM_EPS))
        return scale, self["bias"] - self["running_mean"] * scale


def _constant(value: Any) -> Node:
    return ops.constant(np.ascontiguousarray(value, np.float32))


def _convolution(
    x: Node, weight: Array, bias: Array | None = None, stride: int = 1, groups: int = 1, dilation: int = 1
) -> Node:
    """'Same'-padded convolution; ``weight`` (out, in / groups, k, k) as torch has it, ``bias`` (out,)."""
    pad = dilation * (weight.shape[2] // 2)
    steps, pads, dilations = [stride] * 2, [pad] * 2, [dilation] * 2
    if groups == 1:
        y = ops.convolution(x, _constant(weight), steps, pads, pads, dilations)
    else:
        parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        y = ops.group_convolution(x, _constant(parts), steps, pads, pads, dilations)
    return y if bias is None else ops.add(y, _constant(bias.reshape(1, -1, 1, 1)))


def _conv_norm(x: Node, conv: _Weights, norm: _Weights, stride: int = 1, groups: int = 1) -> Node:
    scale, shift = norm.scale_and_shift()
    return _convolution(x, conv["weight"] * scale[:, None, None, None], shift, stride, groups)


def _linear(x: Node, weights: _Weights) -> Node:
    y = ops.matmul(x, _constant(weights["weight"]), False, True)
    return ops.add(y, _constant(weights["bias"])) if "bias" in weights else y


def _mean(x: Node, keep: bool = True) -> Node:
    return ops.reduce_mean(x, _SPATIAL, keep)


def _half_max_pool(x: Node) -> Node:
    return ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)


# MobileNet-V1


def _mobilenet(w: _Weights, x: Node) -> Node:
    x = ops.relu(_conv_norm(x, w / "conv1", w / "bn1", stride=2))
    for name, _, stride in MOBILENET_BLOCKS:
        block = w / name
        channels = block["bn_dw.weight"].size
        x = ops.relu(_conv_norm(x, block / "conv_dw", block / "bn_dw", stride, groups=channels))
        x = ops.relu(_conv_norm(x, block / "conv_sep", block / "bn_sep"))
    return _linear(_mean(x, keep=False), w / "fc")


# RADAN


def _radan(w: _Weights, x: Node) -> Node:
    stage1, stage2, stage3, stage4 = RADAN_STAGES
    x = ops.relu(_conv_norm(x, w / "conv1", w / "bn1", stride=2))
    x = _replay_attention(w / "replay_attention1", _stage(w, stage1, x))
    x = _replay_attention(w / "replay_attention2", _stage(w, stage2, x))
    side = INPUT_SIZE // 8
    x = _transformer(w / "transformer2", _transformer(w / "transformer1", x, side), side)
    x = _squeeze_excite(w / "seLayer3" / "fc", _stage(w, stage3, x))
    x = _squeeze_excite(w / "seLayer4" / "fc", _stage(w, stage4, x))
    x = _mean(x, keep=False)
    return ops.concat([_linear(_linear(x, w / f"fc{n}"), w / f"fc{n}1") for n in (1, 2, 3)], 1)


def _stage(w: _Weights, stage: Stage, x: Node) -> Node:
    for block in range(stage.blocks):
        x = _bottleneck(w / stage.name / str(block), stage, x, first=block == 0)
    return x


def _bottleneck(w: _Weights, stage: Stage, x: Node, first: bool) -> Node:
    stride = 2 if first else 1
    shortcut = _conv_norm(_half_max_pool(x), w / "downsample" / "1", w / "downsample" / "2") if first else x
    y = ops.relu(_conv_norm(x, w / "conv1", w / "bn1"))
    y = ops.relu(_pyramid(w, stage, y, stride))
    return ops.relu(ops.add(_conv_norm(y, w / "conv3", w / "bn3"), shortcut))


def _pyramid(w: _Weights, stage: Stage, x: Node, stride: int) -> Node:
    """The pyramid convolution and its batch norm, folded level by level."""
    if len(stage.levels) == 1:
        return _conv_norm(x, w / "conv2", w / "bn2", stride)
    scale, shift = (w / "bn2").scale_and_shift()
    parts, start = [], 0
    for number, level in enumerate(stage.levels, start=1):
        stop = start + level.channels
        weight = (w / "conv2" / f"conv2_{number}")["weight"] * scale[start:stop, None, None, None]
        parts.append(_convolution(x, weight, shift[start:stop], stride, level.groups))
        start = stop
    return ops.concat(parts, 1)


def _replay_attention(w: _Weights, x: Node) -> Node:
    g = _cbam(w / "attention", x)
    guider = w / "guider"
    mask = _half_max_pool(g)
    mask = _conv_norm(mask, guider / "estimate_weight" / "1", guider / "estimate_weight" / "2")
    mask = _nearest_resize(ops.sigmoid(mask), x)  # the sigmoid of fewer pixels, before they are repeated
    fitted = ops.multiply(_conv_norm(x, guider / "fitting" / "0", guider / "fitting" / "1"), mask)
    # The convolution of a concatenation is a sum of three convolutions: 4 % off the whole network's time.
    scale, shift = (guider / "dynamic_fusion" / "1").scale_and_shift()
    weight = (guider / "dynamic_fusion" / "0")["weight"] * scale[:, None, None, None]
    from_fitted, from_g, from_x = np.split(weight, 3, axis=1)
    return _sum([_convolution(fitted, from_fitted, shift), _convolution(g, from_g), _convolution(x, from_x)])


def _cbam(w: _Weights, x: Node) -> Node:
    mlp = w / "ChannelGate" / "mlp"
    summaries = (ops.reduce_mean(x, _SPATIAL, False), ops.reduce_max(x, _SPATIAL, False))
    first, second = (_linear(ops.relu(_linear(v, mlp / "1")), mlp / "3") for v in summaries)
    gate = ops.sigmoid(ops.add(first, second))
    x = ops.multiply(x, _as_image(gate))
    spatial = w / "SpatialGate" / "spatial"
    summary = ops.concat([ops.reduce_max(x, _CHANNELS, True), ops.reduce_mean(x, _CHANNELS, True)], 1)
    return ops.multiply(x, ops.sigmoid(_conv_norm(summary, spatial / "conv", spatial / "bn")))


def _as_image(vector: Node) -> Node:
    """(N, C) to (N, C, 1, 1)."""
    return ops.unsqueeze(vector, _SPATIAL)


def _nearest_resize(x: Node, like: Node) -> Node:
    size = like.get_output_partial_shape(0)
    target = np.array([size[2].get_length(), size[3].get_length()], np.int64)
    return ops.interpolate(
        x,
        target,
        mode="nearest",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=_SPATIAL,
    )


def _transformer(w: _Weights, x: Node, side: int) -> Node:
    y = _aspp(w / "aspp", x, side)
    se = w / "se"
    z = ops.relu(_conv_norm(y, se / "conv1", se / "bn1"))
    z = _conv_norm(z, se / "conv2", se / "bn2")
    gate = ops.relu(_convolution(_mean(z), (se / "fc1")["weight"], (se / "fc1")["bias"]))
    gate = ops.sigmoid(_convolution(gate, (se / "fc2")["weight"], (se / "fc2")["bias"]))
    shortcut = _conv_norm(y, se / "shortcut" / "0", se / "shortcut" / "1")
    return ops.relu(ops.add(ops.multiply(z, gate), shortcut))


def _aspp(w: _Weights, x: Node, side: int) -> Node:
    """ASPP of a square map, with everything that is constant worked out beforehand.

    There is no activation between the branches and the 1x1 convolution over their concatenation, so that one is
    multiplied into each of them and the branches are summed. A dilation of the map's side or more leaves a 3x3 kernel
    only its centre inside the image; such a branch is a 1x1 convolution, and all of those are one.
    """
    mix = w["conv_1x1_output.weight"][:, :, 0, 0].astype(np.float64)
    branches = ["conv", *(f"atrous_block{dilation}" for dilation in ASPP_DILATIONS)]
    columns = [mix[:, i * ASPP_CHANNELS : (i + 1) * ASPP_CHANNELS] for i in range(len(branches))]
    bias = w["conv_1x1_output.bias"].astype(np.float64)
    weights = []
    for name, column in zip(branches, columns, strict=True):
        weights.append(np.einsum("om,mikl->oikl", column, w[f"{name}.weight"].astype(np.float64), optimize=True))
        bias = bias + column @ w[f"{name}.bias"].astype(np.float64)
    pooled, *convolutions = weights
    pointwise = np.zeros_like(pooled)
    wide: list[tuple[int, NDArray[np.float64]]] = []
    for dilation, weight in zip(ASPP_DILATIONS, convolutions, strict=True):
        if weight.shape[2] == 1 or dilation >= side:
            middle = weight.shape[2] // 2
            pointwise += weight[:, :, middle : middle + 1, middle : middle + 1]
        else:
            wide.append((dilation, weight))
    y = _convolution(x, _float(pointwise), _float(bias))
    y = ops.add(y, _convolution(_mean(x), _float(pooled)))
    return _sum([y, *(_convolution(x, _float(weight), dilation=dilation) for dilation, weight in wide)])


def _float(value: NDArray[np.float64]) -> Array:
    return np.asarray(value, np.float32)


def _sum(nodes: Sequence[Node]) -> Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = ops.add(total, node)
    return total


def _squeeze_excite(w: _Weights, x: Node) -> Node:
    gate = ops.sigmoid(_linear(ops.relu(_linear(_mean(x, keep=False), w / "0")), w / "2"))
    return ops.multiply(x, _as_image(gate))


# radan_mobile


def _radan_mobile(w: _Weights, x: Node) -> Node:
    x = _halving_conv(w / "stem", x)
    for stage in MOBILE_STAGES:
        x = _halving_conv(w / stage.name / "0", x)
        for block in range(1, stage.blocks + 1):
            x = _mobile_block(w / stage.name / str(block), x)
        if stage.name == MOBILE_REPLAY_AFTER:
            x = _light_replay(w / "replay_attention", x)
    scale, shift = (w / "pool" / "bn").scale_and_shift()
    weight = w["pool.conv.weight"][None, :, 0] * scale[:, None, None]
    x = ops.add(ops.reduce_sum(ops.multiply(x, _constant(weight)), _SPATIAL, False), _constant(shift))
    heads = [f"fc_{head}" for head in MOBILE_HEADS] + [PRESENCE_HEAD] * has_presence(w.state)
    return ops.concat([_linear(x, w / head) for head in heads], 1)


def _halving_conv(w: _Weights, x: Node) -> Node:
    return ops.relu(_conv_norm(x, w / "conv", w / "bn", stride=2))


def _mobile_block(w: _Weights, x: Node) -> Node:
    depthwise = w["conv_dw.weight"]
    y = _convolution(x, depthwise, groups=len(depthwise))
    return ops.relu(ops.add(_conv_norm(y, w / "conv_sep", w / "bn"), x))


def _light_replay(w: _Weights, x: Node) -> Node:
    g = _cbam(w / "attention", x)
    estimate, fitting, fusion = (w / "guider" / part for part in ("estimate_weight", "fitting", "dynamic_fusion"))
    channels = len(fitting["0.weight"])
    mask = ops.sigmoid(_conv_norm(_half_max_pool(g), estimate / "1", estimate / "2", groups=channels))
    fitted = _conv_norm(x, fitting / "0", fitting / "1", groups=channels)
    fitted = ops.multiply(fitted, _nearest_resize(mask, x))
    fused = _conv_norm(ops.concat([fitted, g], 1), fusion / "0", fusion / "1")
    return ops.relu(ops.add(fused, x))
