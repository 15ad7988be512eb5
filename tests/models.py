"""Models and methods of one's own, as a user would bring them, and some that go wrong on purpose."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_runner.methods import Method, Networks, UnlabeledBatch


class Linear(nn.Module):
    """The smallest classifier."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * size[0] * size[1], classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(images.flatten(1))
        return logits


class SmallCNN(nn.Sequential):
    """The layers of `CNN`, with a hundredth of its weights."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        height, width = size
        super().__init__(
            *(nn.Conv2d(channels, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
            nn.Flatten(),
            nn.Linear(8 * (height // 4) * (width // 4), classes),
        )


class FromZero(Linear):
    """Its weights are zero at first: every class is as likely."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)


class Diverging(Linear):
    """Its loss is not a number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * torch.nan


class Raising(Linear):
    """It breaks in mid-training."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the weights are tired")


class FailingLater(Linear):
    """It fails at its third step, unless there is a file SSL_RUNNER_TEST_MARK."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        if self.steps == 3 and not Path(os.environ["SSL_RUNNER_TEST_MARK"]).exists():
            raise RuntimeError("three steps are too many")
        return super().forward(images)


class DyingLater(FailingLater):
    """Its process is killed at its third step, always, unless there is a file SSL_RUNNER_TEST_MARK."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        try:
            return super().forward(images)
        except RuntimeError:
            os.kill(os.getpid(), signal.SIGKILL)
            raise


class Convolutions(nn.Sequential):
    """No linear layer."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Killed(Linear):
    """Its process is killed in its second epoch, the first time; SSL_RUNNER_TEST_MARK is the mark."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mark = Path(os.environ["SSL_RUNNER_TEST_MARK"])
        self.steps += self.training
        if self.steps == 25 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


class Waiting(Linear):
    """It waits at its 25th step until there is a file SSL_RUNNER_TEST_MARK."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        while self.steps == 25 and not Path(os.environ["SSL_RUNNER_TEST_MARK"]).exists():
            time.sleep(0.05)
        return super().forward(images)


class Pacing(Linear):
    """From its 25th step on it takes a second for each, until there is a file SSL_RUNNER_TEST_MARK; a
    file beside it is named after its process."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        mark = Path(os.environ["SSL_RUNNER_TEST_MARK"])
        if self.training and self.steps >= 25 and not mark.exists():
            mark.with_name(f"{os.getpid()}.pid").touch()
            time.sleep(1)
        return super().forward(images)


class Rationed(Linear):
    """At its fifth batch it takes a file from the folder SSL_RUNNER_TEST_MARK, and waits until there is
    one; where there is no such folder it goes on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches += self.training
        folder = Path(os.environ.get("SSL_RUNNER_TEST_MARK", os.devnull))
        if self.training and self.batches == 5:
            while folder.is_dir() and not _took_one(folder):
                time.sleep(0.05)
        return super().forward(images)


def _took_one(folder: Path) -> bool:
    """Whether there was a file to take; no two processes take the same."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            return True
    return False


class Normed(nn.Sequential):
    """Batch normalization, then one linear layer."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        pixels = channels * size[0] * size[1]
        super().__init__(
            nn.Identity(), nn.BatchNorm2d(channels), nn.Flatten(), nn.Linear(pixels, classes)
        )


class NormedPixels(nn.Sequential):
    """`SmallCNN` with batch normalization over the pixels.

    As in any such model, nothing that a normalization undoes is trained: the gradient of a bias there
    is zero but for rounding, which Adam would make a step of full length from.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        height, width = size
        features = 8 * (height // 4) * (width // 4)
        conv_1 = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        conv_2 = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        super().__init__(
            *(conv_1, nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(conv_2, nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), *self.head(features, classes)),
        )

    def head(self, features: int, classes: int) -> tuple[nn.Module, ...]:
        return (nn.Linear(features, classes),)


class NormedFeatures(NormedPixels):
    """The same and over features, which takes more than one image; with plain running means."""

    def head(self, features: int, classes: int) -> tuple[nn.Module, ...]:
        norm = nn.BatchNorm1d(6, momentum=None)
        return nn.Linear(features, 6, bias=False), norm, nn.LeakyReLU(), nn.Linear(6, classes)


class Silent(Method):
    """Asks for the unlabeled images, and learns nothing from them."""

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> None:
        return None


class Hanging(Linear):
    """It stops in mid-training, and never goes on."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(10_000)
        return super().forward(images)
