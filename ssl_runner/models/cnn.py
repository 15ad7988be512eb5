"""The built-in classifiers."""

import torch
from torch import nn

from ssl_runner.errors import InputError
from ssl_runner.models import blocked

# B = images, C = channels, H and W = height and width, K = classes


class CNN(nn.Module):
    """Two convolutions, two linear layers: the notebook's classifier, with its pools in use.

    Pooling comes before ReLU: the two commute, and ReLU then has a quarter of the work.

    Args:
        channels: Channels of an image, C.
        size: Height and width of an image, each at least 4.
        classes: Number of classes, K.
        dropout: Share of the 128 hidden features that is dropped while training.

    Raises:
        InputError: If the images are too small.
    """

    convolution: type[nn.Conv2d] = blocked.Conv2d

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__()
        height, width = size
        if min(size) < 4:
            raise InputError(
                f"images must be at least 4×4 for {type(self).__name__}, which halves them twice, got "
                f"{height}×{width}. Name a model of your own as package.module:Class."
            )
        halves, quarters = (height // 2, width // 2), (height // 4, width // 4)
        pool_1, pool_2 = self.pools(halves, quarters)
        self.features = nn.Sequential(
            self.convolution(channels, 32, 3, padding=1),
            pool_1,
            nn.ReLU(),
            self.convolution(32, 64, 3, padding=1),
            pool_2,
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * quarters[0] * quarters[1], 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, classes),
        )

    def pools(self, halves: tuple[int, int], quarters: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
        """The two pooling layers, which bring H×W to `halves` and then to `quarters`."""
        return nn.MaxPool2d(2), nn.MaxPool2d(2)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, K), of float images in [0, 1]."""
        features_BCHW: torch.Tensor = self.features(images_BCHW)
        if features_BCHW.is_mkldnn:
            features_BCHW = features_BCHW.to_dense()
        logits_BK: torch.Tensor = self.classifier(features_BCHW)
        return logits_BK


class AdaptiveCNN(CNN):
    """`CNN` with adaptive average pooling in place of max-pooling.

    Average pooling and ReLU do not commute, so here ReLU comes before the pool. The convolutions
    are plain ones: oneDNN's adaptive pooling takes only sizes that divide.
    """

    convolution = nn.Conv2d

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__(channels, size, classes, dropout)
        conv_1, pool_1, relu_1, conv_2, pool_2, relu_2 = self.features
        self.features = nn.Sequential(conv_1, relu_1, pool_1, conv_2, relu_2, pool_2)

    def pools(self, halves: tuple[int, int], quarters: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
        """Adaptive average pooling to 14×14 and to 7×7 for images of 28×28."""
        return nn.AdaptiveAvgPool2d(halves), nn.AdaptiveAvgPool2d(quarters)
