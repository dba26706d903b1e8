"""The RADAN network as a torch module (Zhou et al., FG 2021, T-BIOM 2023), entry names as in the authors' checkpoint.

The backbone is PyConvResNet-50 (Duta et al., "Pyramidal Convolution", 2020). Imports torch: import this module where
it is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from radan_ros.networks.architecture import (
    ASPP_CHANNELS,
    ASPP_DILATIONS,
    BATCH_NORM_EPS,
    HEAD_HIDDEN,
    HEADS,
    RADAN_STAGES,
    RADAN_STEM,
    SQUEEZE,
    NetworkSpec,
    Stage,
)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class PyramidConv(nn.Module):
    """Convolutions of several kernel sizes side by side, their outputs concatenated."""

    def __init__(self, stage: Stage, stride: int) -> None:
        super().__init__()
        self.parts: list[str] = []
        for number, level in enumerate(stage.levels, start=1):
            self.parts.append(f"conv2_{number}")
            self.add_module(self.parts[-1], _conv(stage.width, level.channels, level.kernel, stride, level.groups))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(part)(x) for part in self.parts], dim=1)


class Bottleneck(nn.Module):
    """1x1, pyramid and 1x1 convolution around a shortcut. The first block of a stage halves the image."""

    def __init__(self, stage: Stage, inputs: int, first: bool) -> None:
        super().__init__()
        stride = 2 if first else 1
        level = stage.levels[0]
        self.conv1 = _conv(inputs, stage.width, 1)
        self.bn1 = _norm(stage.width)
        self.conv2: nn.Module = PyramidConv(stage, stride)
        if len(stage.levels) == 1:
            self.conv2 = _conv(stage.width, stage.width, level.kernel, stride)
        self.bn2 = _norm(stage.width)
        self.conv3 = _conv(stage.width, stage.channels, 1)
        self.bn3 = _norm(stage.channels)
        self.downsample: nn.Module | None = None
        if first:
            pool = nn.MaxPool2d(3, stride, padding=1)
            self.downsample = nn.Sequential(pool, _conv(inputs, stage.channels, 1), _norm(stage.channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + shortcut).relu()


class ChannelGate(nn.Module):
    """CBAM's first half: one weight a channel, from its mean and its maximum (Woo et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // SQUEEZE
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        return x * gate.sigmoid()[:, :, None, None]


class _ConvNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv(2, 1, 7)
        self.bn = _norm(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SpatialGate(nn.Module):
    """CBAM's second half: one weight a pixel, from the maximum and the mean over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = _ConvNorm()

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(summary).sigmoid()


class Cbam(nn.Module):
    """Channel gate, then spatial gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class Guider(nn.Module):
    """Plays the attended map ``g`` back over ``x``: a mask from g on fitted x, fused with both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.estimate_weight = nn.Sequential(
            nn.MaxPool2d(3, 2, padding=1), _conv(channels, channels, 3), _norm(channels)
        )
        self.fitting = nn.Sequential(_conv(channels, channels, 3), _norm(channels))
        self.dynamic_fusion = nn.Sequential(_conv(3 * channels, channels, 3), _norm(channels))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        mask = functional.interpolate(self.estimate_weight(g), size=x.shape[2:], mode="nearest").sigmoid()
        fitted = self.fitting(x) * mask
        return self.dynamic_fusion(torch.cat([fitted, g, x], dim=1))


class ReplayAttention(nn.Module):
    """CBAM, and its answer replayed over its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = Cbam(channels)
        self.guider = Guider(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.guider(x, self.attention(x))


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: the image's mean and convolutions of growing dilation, concatenated and mixed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        for dilation in ASPP_DILATIONS:
            kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
            block = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
            self.add_module(f"atrous_block{dilation}", block)
        self.conv_1x1_output = nn.Conv2d((1 + len(ASPP_DILATIONS)) * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        # A bilinear resize of one pixel is that pixel everywhere.
        pooled = self.conv(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        blocks = [self.get_submodule(f"atrous_block{dilation}")(x) for dilation in ASPP_DILATIONS]
        return self.conv_1x1_output(torch.cat([pooled, *blocks], dim=1))


class ResidualSe(nn.Module):
    """Two 3x3 convolutions, channels gated by their means, around a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3)
        self.bn1 = _norm(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = _norm(outputs)
        self.shortcut = nn.Sequential(_conv(inputs, outputs, 1), _norm(outputs))
        self.fc1 = nn.Conv2d(outputs, outputs // SQUEEZE, 1)
        self.fc2 = nn.Conv2d(outputs // SQUEEZE, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        gate = self.fc2(self.fc1(y.mean(dim=(2, 3), keepdim=True)).relu()).sigmoid()
        return (y * gate + self.shortcut(x)).relu()


class AttentionTransformer(nn.Module):
    """ASPP, then the residual SE block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.aspp = Aspp(channels, ASPP_CHANNELS)
        self.se = ResidualSe(ASPP_CHANNELS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.se(self.aspp(x))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate from their means (Hu et al., 2018), without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // SQUEEZE
        squeeze, excite = nn.Linear(channels, hidden, bias=False), nn.Linear(hidden, channels, bias=False)
        self.fc = nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


def _stage(stage: Stage, inputs: int) -> nn.Sequential:
    first = Bottleneck(stage, inputs, first=True)
    return nn.Sequential(first, *(Bottleneck(stage, stage.channels, first=False) for _ in range(stage.blocks - 1)))


class Encoder(nn.Module):
    """Everything: backbone, attention, heads. Members in the order of the authors' state dict."""

    def __init__(self) -> None:
        super().__init__()
        stage1, stage2, stage3, stage4 = RADAN_STAGES
        self.conv1 = _conv(3, RADAN_STEM, 7, stride=2)
        self.bn1 = _norm(RADAN_STEM)
        self.transformer1 = AttentionTransformer(stage2.channels)
        self.transformer2 = AttentionTransformer(stage2.channels)
        self.layer1 = _stage(stage1, RADAN_STEM)
        self.replay_attention1 = ReplayAttention(stage1.channels)
        self.layer2 = _stage(stage2, stage1.channels)
        self.replay_attention2 = ReplayAttention(stage2.channels)
        self.layer3 = _stage(stage3, stage2.channels)
        self.seLayer3 = SqueezeExcite(stage3.channels)
        self.layer4 = _stage(stage4, stage3.channels)
        self.seLayer4 = SqueezeExcite(stage4.channels)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.3)
        self.fc1 = nn.Linear(stage4.channels, HEAD_HIDDEN)
        self.fc2 = nn.Linear(stage4.channels, HEAD_HIDDEN)
        self.fc3 = nn.Linear(stage4.channels, HEAD_HIDDEN)
        self.fc11 = nn.Linear(HEAD_HIDDEN, HEADS[0])
        self.fc21 = nn.Linear(HEAD_HIDDEN, HEADS[1])
        self.fc31 = nn.Linear(HEAD_HIDDEN, HEADS[2])

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.replay_attention1(self.layer1(x))
        x = self.replay_attention2(self.layer2(x))
        x = self.transformer2(self.transformer1(x))
        x = self.seLayer3(self.layer3(x))
        x = self.seLayer4(self.layer4(x))
        x = self.dropout(self.avgpool(x).flatten(1))
        return torch.cat([self.fc11(self.fc1(x)), self.fc21(self.fc2(x)), self.fc31(self.fc3(x))], dim=1)


class Radan(nn.Module):
    """The full RADAN network, 57.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = NetworkSpec("radan")
        self.encoder_coarse = Encoder()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 120, 120) float32 crops, BGR, (pixel - 127.5) / 128, to (N, 62) whitened parameters."""
        return self.encoder_coarse(x)
