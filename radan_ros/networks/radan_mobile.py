"""``radan_mobile``: a small network in RADAN's spirit, as a torch module.

A backbone of full convolutions that halve the image and depthwise-separable blocks between them, replay attention
(Zhou et al., FG 2021) with depthwise and 1x1 convolutions in place of full ones, a global depthwise convolution in
place of average pooling (Chen et al., "MobileFaceNets", 2018), and RADAN's three heads. Imports torch: import this
module where it is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from radan_ros.networks.architecture import (
    BATCH_NORM_EPS,
    HEADS,
    MOBILE_FINAL_SIDE,
    MOBILE_HEADS,
    MOBILE_REPLAY_AFTER,
    MOBILE_STAGES,
    MOBILE_STEM,
    PRESENCE_HEAD,
    MobileStage,
    NetworkSpec,
)
from radan_ros.networks.radan import Cbam

SMALL = 0.1  # of torch's own initialisation: the whitened parameters start near zero, which is the mean face


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class HalvingConv(nn.Module):
    """A full convolution that halves the image, with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel, stride=2)
        self.bn = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu_()


class MobileBlock(nn.Module):
    """3x3 depthwise convolution, 1x1 convolution, batch norm, around a shortcut; then ReLU.

    Nothing lies between the two convolutions: it learns better so (Chollet, "Xception", 2017; here the error after an
    equal short training was a quarter higher with batch norm and ReLU there), and on a CPU those two take as long in
    training as the convolutions. The kernels are 3x3: larger or dilated depthwise ones gained nothing measurable, and
    their gradient takes 20 to 100 times as long in torch on a CPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_dw = _conv(channels, channels, 3, groups=channels)
        self.conv_sep = _conv(channels, channels, 1)
        self.bn = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (self.bn(self.conv_sep(self.conv_dw(x))) + x).relu_()


class LightGuider(nn.Module):
    """Plays the attended map ``g`` back over ``x`` by depthwise and 1x1 convolutions, around a shortcut.

    A mask from g on fitted x, as in RADAN; then both are fused and added to x, where RADAN fuses all three by a 3x3
    convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        mask = _conv(channels, channels, 3, groups=channels)
        self.estimate_weight = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), mask, _norm(channels))
        self.fitting = nn.Sequential(_conv(channels, channels, 3, groups=channels), _norm(channels))
        self.dynamic_fusion = nn.Sequential(_conv(2 * channels, channels, 1), _norm(channels))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        mask = functional.interpolate(self.estimate_weight(g).sigmoid(), size=x.shape[2:], mode="nearest")
        fitted = self.fitting(x) * mask
        return (self.dynamic_fusion(torch.cat([fitted, g], dim=1)) + x).relu_()


class LightReplayAttention(nn.Module):
    """CBAM as in RADAN, and its answer replayed over its input by the light guider."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = Cbam(channels)
        self.guider = LightGuider(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.guider(x, self.attention(x))


class GlobalDepthwise(nn.Module):
    """One weight a channel and pixel: pooling that knows where things are. It begins as a plain mean, nearly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, MOBILE_FINAL_SIDE, groups=channels, bias=False)
        self.bn = _norm(channels)
        with torch.no_grad():
            self.conv.weight.mul_(SMALL).add_(1 / MOBILE_FINAL_SIDE**2)

    def forward(self, x: Tensor) -> Tensor:
        # The convolution has one window, so it is a weighted sum, whose gradient is much faster.
        return self.bn((x * self.conv.weight[:, 0]).sum(dim=(2, 3), keepdim=True)).flatten(1)


def _stage(stage: MobileStage, inputs: int) -> nn.Sequential:
    blocks = (MobileBlock(stage.channels) for _ in range(stage.blocks))
    return nn.Sequential(HalvingConv(inputs, stage.channels, 3), *blocks)


class RadanMobile(nn.Module):
    """The whole network; members in the order of `architecture.state_shapes`.

    Parameters
    ----------
    presence : bool
        With the head for presence.
    """

    def __init__(self, presence: bool = False) -> None:
        super().__init__()
        self.spec = NetworkSpec("radan_mobile")
        self.stem = HalvingConv(3, MOBILE_STEM, 5)
        channels = MOBILE_STEM
        self.parts = ["stem"]
        for stage in MOBILE_STAGES:
            self.parts.append(stage.name)
            self.add_module(stage.name, _stage(stage, channels))
            channels = stage.channels
            if stage.name == MOBILE_REPLAY_AFTER:
                self.parts.append("replay_attention")
                self.replay_attention = LightReplayAttention(channels)
        self.pool = GlobalDepthwise(channels)
        for name, outputs in zip(MOBILE_HEADS, HEADS, strict=True):
            head = nn.Linear(channels, outputs)
            with torch.no_grad():
                head.weight.mul_(SMALL)
                head.bias.zero_()
            self.add_module(f"fc_{name}", head)
        self.heads = [f"fc_{name}" for name in MOBILE_HEADS]
        if presence:
            self.heads.append(PRESENCE_HEAD)
            self.add_module(PRESENCE_HEAD, nn.Linear(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 120, 120) float32 crops, BGR, (pixel - 127.5) / 128, to (N, 62) whitened parameters.

        With the head for presence (N, 63): the last is its logit.
        """
        for part in self.parts:
            x = self.get_submodule(part)(x)
        x = self.pool(x)
        return torch.cat([self.get_submodule(name)(x) for name in self.heads], dim=1)
