"""MobileNet-V1 that regresses the 62 parameters, as a torch module (Howard et al., "MobileNets", 2017; 3DDFA).

Imports torch: import this module where it is used.
"""

from __future__ import annotations

from torch import Tensor, nn

from radan_ros.networks.architecture import (
    BATCH_NORM_EPS,
    MOBILENET_BLOCKS,
    MOBILENET_STEM,
    PARAMETERS,
    NetworkSpec,
    scaled,
)


class DepthwiseSeparable(nn.Module):
    """A 3x3 convolution of each channel, then a 1x1 convolution across them; each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.bn_dw = nn.BatchNorm2d(inputs, eps=BATCH_NORM_EPS)
        self.conv_sep = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn_sep = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_dw(self.conv_dw(x)).relu()
        return self.bn_sep(self.conv_sep(x)).relu()


class MobileNetV1(nn.Module):
    """MobileNet-V1 with the entry names of 3DDFA; 3DDFA_V2's ``fc_param`` is ``fc`` here.

    Parameters
    ----------
    width : float
        Channel multiplier: 2, 1, 0.75, 0.5 or 0.25.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.spec = NetworkSpec("mobilenet_v1", width)
        channels = scaled(MOBILENET_STEM, width)
        self.conv1 = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)
        for name, outputs, stride in MOBILENET_BLOCKS:
            self.add_module(name, DepthwiseSeparable(channels, scaled(outputs, width), stride))
            channels = scaled(outputs, width)
        self.fc = nn.Linear(channels, PARAMETERS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 120, 120) float32 crops, BGR, (pixel - 127.5) / 128, to (N, 62) whitened parameters."""
        x = self.bn1(self.conv1(x)).relu()
        for name, _, _ in MOBILENET_BLOCKS:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean(dim=(2, 3)))
