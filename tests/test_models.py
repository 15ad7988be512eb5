"""The classifiers: a row of logits per image, the pools in use, the notebook's sizes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_runner.models import CNN, AdaptiveCNN, build_model
from ssl_runner.models.settings import ModelSettings

CNNS = ("CNN", "AdaptiveCNN")

# B = images, C = channels, K = classes

SHAPES = [
    (1, (28, 28), 10),  # Fashion-MNIST
    (3, (32, 32), 100),
    (1, (4, 4), 2),  # the smallest
    (2, (5, 7), 3),  # halves that are not whole
    (4, (31, 66), 1),
]


def build(
    name: str, channels: int, size: tuple[int, int], classes: int, dropout: float | None = None
) -> nn.Module:
    settings = ModelSettings(model=name, dropout=dropout)
    return build_model(settings, channels, size, classes)


def images(count: int, channels: int = 1, size: tuple[int, int] = (28, 28)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(count, channels, *size, generator=generator)


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize(("channels", "size", "classes"), SHAPES)
@pytest.mark.parametrize("count", [64, 1, 7])
def test_a_batch_gives_as_many_rows(
    name: str, channels: int, size: tuple[int, int], classes: int, count: int
) -> None:
    # The notebook's pools stood unused, and its batch of 64 became 1,024 rows.
    logits_BK = build(name, channels, size, classes, 0.25)(images(count, channels, size))
    assert logits_BK.shape == (count, classes)


@pytest.mark.parametrize("name", CNNS)
def test_a_row_is_of_its_own_image(name: str) -> None:
    model = build(name, 1, (28, 28), 10, 0.25).double().eval()
    batch = images(64).double()
    alone = torch.cat([model(batch[i : i + 1]) for i in (0, 1, 63)])
    torch.testing.assert_close(model(batch)[[0, 1, 63]], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize(
    ("size", "halves", "quarters"),
    [
        ((28, 28), (14, 14), (7, 7)),
        ((32, 32), (16, 16), (8, 8)),
        ((5, 31), (2, 15), (1, 7)),
    ],
)
def test_the_pools_are_in_use(
    name: str, size: tuple[int, int], halves: tuple[int, int], quarters: tuple[int, int]
) -> None:
    model = build(name, 1, size, 10, 0.25)
    seen: dict[type, list[tuple[int, ...]]] = {nn.Conv2d: [], nn.Linear: []}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(
                lambda layer, given, made: seen[
                    nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
                ].append(tuple(given[0].shape[1:]))
            )
    model(images(2, 1, size))
    assert seen[nn.Conv2d] == [(1, *size), (32, *halves)]
    assert seen[nn.Linear] == [(64 * quarters[0] * quarters[1],), (128,)]


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize(
    ("channels", "size", "classes", "parameters"),
    [
        # conv 1→32: 9·32 + 32; conv 32→64: 9·32·64 + 64; 3136→128; 128→10
        (1, (28, 28), 10, 320 + 18_496 + 401_536 + 1_290),
        # conv 3→32: 27·32 + 32; 64·8·8 = 4096→128; 128→100
        (3, (32, 32), 100, 896 + 18_496 + 524_416 + 12_900),
    ],
)
def test_parameters_counted_by_hand(
    name: str, channels: int, size: tuple[int, int], classes: int, parameters: int
) -> None:
    model = build(name, channels, size, classes, 0.25)
    assert sum(weights.numel() for weights in model.parameters()) == parameters


def slow(model: CNN, images_BCHW: torch.Tensor) -> torch.Tensor:
    """The notebook's network written out, pooling after ReLU in both models."""
    conv_1, conv_2 = (layer for layer in model.features if isinstance(layer, nn.Conv2d))
    linear_1, linear_2 = (layer for layer in model.classifier if isinstance(layer, nn.Linear))

    def pool(features: torch.Tensor, size: int) -> torch.Tensor:
        if isinstance(model, AdaptiveCNN):
            return F.adaptive_avg_pool2d(features, size)
        return F.max_pool2d(features, 2)

    features = pool(F.relu(F.conv2d(images_BCHW, conv_1.weight, conv_1.bias, padding=1)), 14)
    features = pool(F.relu(F.conv2d(features, conv_2.weight, conv_2.bias, padding=1)), 7)
    hidden = F.relu(F.linear(features.flatten(1), linear_1.weight, linear_1.bias))
    return F.linear(hidden, linear_2.weight, linear_2.bias)


@pytest.mark.parametrize("kind", [CNN, AdaptiveCNN])
def test_pooling_before_relu_changes_neither_scores_nor_gradients(kind: type[CNN]) -> None:
    torch.manual_seed(0)
    model = kind(1, (28, 28), 10, 0.25).double().eval()
    batch, labels = images(64).double() - 0.5, torch.arange(64) % 10
    results = []
    for forward in (model, lambda batch: slow(model, batch)):
        logits_BK = forward(batch)
        loss = F.cross_entropy(logits_BK, labels)
        results.append([logits_BK, *torch.autograd.grad(loss, tuple(model.parameters()))])
    assert len(results[0]) == 9
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_two_models_differ() -> None:
    made = []
    for kind in (CNN, AdaptiveCNN):
        torch.manual_seed(0)
        made.append(kind(1, (28, 28), 10, 0.25).eval())
    cnn, adaptive = made
    assert all(
        torch.equal(one, other)
        for one, other in zip(cnn.parameters(), adaptive.parameters(), strict=True)
    )
    assert not torch.allclose(cnn(images(4)), adaptive(images(4)), atol=1e-3)


@pytest.mark.parametrize("name", CNNS)
def test_weights_come_from_torchs_generator(name: str) -> None:
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(build(name, 1, (28, 28), 10, 0.25).eval()(images(2)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("name", CNNS)
def test_dropout_is_what_was_asked_for_and_only_in_training(name: str) -> None:
    torch.manual_seed(0)
    batch = images(8)
    without = build(name, 1, (28, 28), 10, 0.0)
    assert torch.equal(without.train()(batch), without.eval()(batch))
    dropping = build(name, 1, (28, 28), 10, 0.5)
    assert not torch.equal(dropping.train()(batch), dropping(batch))
    assert torch.equal(dropping.eval()(batch), dropping(batch))


def test_a_model_of_ones_own() -> None:
    model = build("tests.models:Linear", 3, (8, 8), 5, 0.25)
    assert model(images(64, 3, (8, 8))).shape == (64, 5)
    assert type(model).__name__ == "Linear"


RULE = "model must be a known name or an import path such as package.module:Name"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cnn",
            f"{RULE}, got 'cnn'. Did you mean CNN?",
        ),
        (
            "ResNet",
            f"{RULE}, got 'ResNet'. Known: CNN, AdaptiveCNN, WRN-28-2.",
        ),
        (
            "tests.models:Nothing",
            "model 'tests.models:Nothing': tests.models has no 'Nothing'. Is the n",
        ),
        (
            "nowhere:Model",
            "model 'nowhere:Model': no module 'nowhere'. Is it installed, or in this fol",
        ),
        ("tests.nowhere:M", "model 'tests.nowhere:M': no module 'tests.nowhere'. Is it installed, or"),
        ("tests.models:torch", "model 'tests.models:torch' must make a torch.nn.Module, got module."),
        ("itertools:chain", "model 'itertools:chain' must make a torch.nn.Module, got chain."),
        (
            ":Model",
            f"{RULE}, got ':Model'.",
        ),
        (
            "tests.models:",
            f"{RULE}, got 'tests.models:'.",
        ),
        (
            ".models:Linear",
            f"{RULE}, got '.models:Linear'.",
        ),
    ],
)
def test_a_model_that_does_not_do(name: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        build(name, 1, (28, 28), 10, 0.25)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) == 1


def test_a_fault_within_a_persons_module_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not to be mistaken for a wrong name.
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "faulty_module_of_mine.py").write_text("import math\nmath.nothing\nclass Model: pass\n")
    with pytest.raises(AttributeError, match="'math' has no attribute 'nothing'"):
        build("faulty_module_of_mine:Model", 1, (28, 28), 10, 0.25)
    (tmp_path / "needy_module_of_mine.py").write_text("import not_installed_here\n")
    with pytest.raises(ValueError, match="no module 'not_installed_here'. Is it installed"):
        build("needy_module_of_mine:Model", 1, (28, 28), 10, 0.25)


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize("size", [(3, 28), (28, 3), (1, 1)])
def test_images_too_small_to_halve_twice(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError) as refused:
        build(name, 1, size, 10, 0.25)
    assert str(refused.value) == (
        f"images must be at least 4×4 for {name}, which halves them twice, got {size[0]}×{size[1]}. "
        "Name a model of your own as package.module:Class."
    )
