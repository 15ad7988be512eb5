"""WRN-28-2, the classifier of the semi-supervised literature."""

import torch
import torch.nn.functional as F
from torch import nn

from ssl_runner.errors import InputError

# B = images, C = channels, H and W = height and width, K = classes

_SLOPE = 0.1  # of the leaky ReLU


class WideResNet(nn.Module):
    """WRN-28-2: a wide residual network of depth 28 and width 2 (Zagoruyko and Komodakis 2016), as
    Oliver et al. (2018, "Realistic evaluation of deep semi-supervised learning algorithms") and
    Sohn et al. (2020, FixMatch; `libml/models.py` of google-research/fixmatch) use it.

    Of the original it keeps the pre-activation blocks without dropout; theirs are the leaky ReLU of
    slope 0.1, He's normal initial weights by fan-out, batch normalization with ε = 0.001 and running
    averages of decay 0.999, and the first block's shortcut, which begins after the activation. Its
    convolutions have no bias, which the next normalization would undo: 1,467,610 weights with three
    channels and ten classes, the papers' 1.5 million.

    A decay of 0.999 is for trainings of many thousand steps. Until then the running averages, by which
    images are evaluated, are partly what they were at first.

    Args:
        channels: Channels of an image, C.
        size: Height and width of an image, each at least 8.
        classes: Number of classes, K.
        dropout: Not used.

    Raises:
        InputError: If the images are too small.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], classes: int, dropout: float | None = None
    ) -> None:
        super().__init__()
        if min(size) < 8:
            raise InputError(
                f"images must be at least 8×8 for WRN-28-2, got {size[0]}×{size[1]}. "
                "Try CNN, or name a model of your own as package.module:Class."
            )
        self.first = _convolution(channels, 16, 3)
        blocks: list[nn.Module] = []
        inner = 16
        for group, width in enumerate((32, 64, 128)):
            for place in range(4):  # (28 − 4) / 6 blocks in each of the three groups
                stride = 2 if group and not place else 1
                blocks.append(_Block(inner, width, stride, is_first=not blocks))
                inner = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm(inner)
        self.classifier = nn.Linear(inner, classes)
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, K), of float images in [0, 1]."""
        features_BCHW = self.blocks(self.first(images_BCHW))
        features_BCHW = F.leaky_relu(self.norm(features_BCHW), _SLOPE)
        logits_BK: torch.Tensor = self.classifier(features_BCHW.mean((2, 3)))
        return logits_BK


class _Block(nn.Module):
    """Two convolutions, each after a normalization and an activation, and a shortcut around them."""

    def __init__(self, inner: int, width: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.norm_1 = _norm(inner)
        self.convolution_1 = _convolution(inner, width, 3, stride)
        self.norm_2 = _norm(width)
        self.convolution_2 = _convolution(width, width, 3)
        self.shortcut = nn.Identity() if inner == width else _convolution(inner, width, 1, stride)
        self.is_first = is_first

    def forward(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        active_BCHW = F.leaky_relu(self.norm_1(features_BCHW), _SLOPE)
        around_BCHW = self.shortcut(active_BCHW if self.is_first else features_BCHW)
        active_BCHW = F.leaky_relu(self.norm_2(self.convolution_1(active_BCHW)), _SLOPE)
        made_BCHW: torch.Tensor = self.convolution_2(active_BCHW) + around_BCHW
        return made_BCHW


def _convolution(inner: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    made = nn.Conv2d(inner, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001, momentum=0.001)
