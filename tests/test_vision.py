"""torchvision's models and WRN-28-2: they fit the data, train and resume, and say what does not do."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from torch import nn

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.identity import identify, own_code
from ssl_runner.models import WideResNet, build_model, check_models
from ssl_runner.models.settings import SMALL_STEMS, ModelSettings
from tests.conftest import Answer
from tests.test_train import SMALL, assert_same_bits, run, untimed

RESNET = "torchvision:resnet18"


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def resnet(**settings: Any) -> ModelSettings:
    return ModelSettings(model=RESNET, **settings)


# ---- WRN-28-2 ----


def by_hand(channels: int, classes: int) -> int:
    """The weights of WRN-28-2, from the paper's table 1 (Zagoruyko and Komodakis 2016)."""
    count, inner = 9 * channels * 16, 16
    for width in (32, 64, 128):
        count += 2 * inner + 9 * inner * width + 2 * width + 9 * width * width + inner * width
        count += 3 * (2 * width + 9 * width * width + 2 * width + 9 * width * width)
        inner = width
    return count + 2 * inner + inner * classes + classes


@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(3, (32, 32), 10), (1, (28, 28), 10), (4, (8, 9), 3)]
)
def test_wrn_28_2_is_the_papers(channels: int, size: tuple[int, int], classes: int) -> None:
    model = build_model(ModelSettings(model="WRN-28-2"), channels, size, classes)
    assert parameters(model) == by_hand(channels, classes)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(layer.kernel_size == (3, 3) for layer in convolutions) == 25  # 28 with 3 shortcuts
    assert sum(layer.stride == (2, 2) for layer in convolutions) == 4  # two halvings, two ways
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.001, 0.001)}
    assert model(torch.rand(2, channels, *size)).shape == (2, classes)


def test_wrn_28_2_has_one_and_a_half_million_weights() -> None:
    # Oliver et al. 2018, section 4.1, and FixMatch's table 2: "WRN-28-2, 1.5M parameters".
    assert parameters(WideResNet(3, (32, 32), 10)) == 1_467_610


def test_images_too_small_for_wrn_28_2() -> None:
    with pytest.raises(
        InputError, match=r"images must be at least 8×8 for WRN-28-2, got 7×28\. Try CNN"
    ):
        check_models([ModelSettings(model="WRN-28-2")], 1, (7, 28), 10)


# ---- torchvision's ----


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_classifier_can_be_named(name: str) -> None:
    """It takes images of two channels, and a dropout unless that is known not to do."""
    settings = ModelSettings(model=f"torchvision:{name}", dropout=0.5)
    assert check_models([settings], 2, (224, 224), 7) == []


@pytest.mark.parametrize(
    ("name", "channels", "count"),
    [
        # The published count, 11,689,512, with ten classes for a thousand, and another first layer.
        ("resnet18", 3, 11_689_512 - 990 * 513),
        ("resnet18", 1, 11_689_512 - 990 * 513 - 2 * 64 * 49),
    ],
)
def test_resnet_18_is_the_published_one_but_for_its_ends(name: str, channels: int, count: int) -> None:
    plain = build_model(ModelSettings(model=f"torchvision:{name}"), channels, (64, 64), 10)
    assert parameters(plain) == count
    small = build_model(
        ModelSettings(model=f"torchvision:{name}", small_images=True), channels, (32, 32), 10
    )
    assert parameters(small) == count - channels * 64 * (49 - 9)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121"])
def test_the_stem_for_small_images_keeps_their_size(name: str) -> None:
    assert name.startswith(SMALL_STEMS)
    sizes = {}
    for small in (False, True):
        settings = ModelSettings(model=f"torchvision:{name}", small_images=small)
        with torch.device("meta"):
            model = build_model(settings, 1, (32, 32), 10)
        seen: list[tuple[int, ...]] = []
        path = "features.denseblock1" if name == "densenet121" else "layer1"
        blocks = model.get_submodule(path)
        blocks.register_forward_hook(lambda _, given, made, seen=seen: seen.append(given[0].shape[2:]))
        model(torch.empty(2, 1, 32, 32, device="meta"))
        sizes[small] = seen
    assert sizes == {False: [(8, 8)], True: [(32, 32)]}


@pytest.mark.parametrize(
    ("settings", "channels", "size", "message"),
    [
        (
            ModelSettings(model="torchvision:resnet81"),
            *(1, (28, 28)),
            "model must be one of torchvision's classifiers, got 'torchvision:resnet81'. "
            "Did you mean torchvision:resnet18?",
        ),
        (
            ModelSettings(model="torchvision:ResNet18"),
            *(1, (28, 28)),
            "model must be one of torchvision's classifiers, got 'torchvision:ResNet18'. "
            "Did you mean torchvision:resnet18?",
        ),
        (
            ModelSettings(model="torchvision:fcn_resnet50"),  # it classifies pixels
            *(1, (28, 28)),
            "model must be one of torchvision's classifiers, got 'torchvision:fcn_resnet50'. ",
        ),
        (
            ModelSettings(model="torchvision:alexnet"),
            *(1, (28, 28)),
            "images must be of a size that torchvision:alexnet takes, got 28×28 (",
        ),
        (
            ModelSettings(model="torchvision:inception_v3"),
            *(3, (32, 48)),
            "images must be of a size that torchvision:inception_v3 takes, got 32×48 (",
        ),
        (
            ModelSettings(model="torchvision:vit_b_16"),
            *(3, (32, 48)),
            "images must be of a size that torchvision:vit_b_16 takes, got 32×48 (",
        ),
        (
            ModelSettings(model="torchvision:vit_b_16", sync_batch_norm=True),
            *(3, (32, 32)),
            "sync_batch_norm must be false for torchvision:vit_b_16, which has no batch normalization, "
            "got True. Leave it out.",
        ),
    ],
)
def test_what_does_not_do_is_said_in_a_line(
    settings: ModelSettings, channels: int, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        check_models([settings], channels, size, 10)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) == 1


def test_it_is_nobody_s_own_code() -> None:
    config = TrialConfig.of(model=RESNET)
    assert own_code(config) == {}
    assert identify([config], "d")[0].sources == ()


# ---- weights from a file ----


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A thousand classes, three channels, as they are published."""
    torch.manual_seed(3)
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_weights_that_fit_are_taken_and_the_others_named(weights: Path) -> None:
    saved = torch.load(weights, weights_only=True)
    settings = resnet(weights_file=str(weights))
    torch.manual_seed(0)
    fresh = build_model(resnet(), 3, (64, 64), 10).state_dict()
    torch.manual_seed(0)
    made = build_model(settings, 3, (64, 64), 10).state_dict()
    for name, tensor in made.items():
        assert torch.equal(tensor, (fresh if name.startswith("fc.") else saved)[name]), name
    assert check_models([settings], 3, (64, 64), 10) == [
        f"{RESNET} starts from {weights}, but for fresh fc.weight (1000×512 there, 10×512 here), "
        "fc.bias (1000 there, 10 here)"
    ]
    assert check_models([settings], 3, (64, 64), 1000) == []
    whole = build_model(settings, 3, (64, 64), 1000).eval()
    gray = build_model(settings, 1, (64, 64), 1000).eval()
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(gray(images), whole(images.repeat(1, 3, 1, 1)), rtol=1e-3, atol=1e-4)
    (said,) = check_models([resnet(weights_file=str(weights), small_images=True)], 3, (32, 32), 1000)
    assert said.endswith("but for fresh conv1.weight (64×3×7×7 there, 64×3×3×3 here)")


def spoil(weights: Path, how: str) -> None:
    saved = torch.load(weights, weights_only=True)
    if how == "another model":
        torch.save(torchvision.models.resnet34().state_dict(), weights)
    elif how == "a layer less":
        del saved["bn1.weight"]
        torch.save(saved, weights)
    elif how == "another shape":
        torch.save(saved | {"bn1.weight": torch.ones(3)}, weights)
    elif how == "wrapped":
        torch.save({"state_dict": saved}, weights)
    elif how == "a whole model":
        torch.save(torchvision.models.resnet18(), weights)
    elif how == "no such file":
        weights.unlink()
    elif how == "text":
        weights.write_text("weights")
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "another model",
            r"must be a state_dict of .*, which also has layer1.2.*\(\d+ in all\). Is it",
        ),
        (
            "a layer less",
            r"must be a state_dict of .*, which lacks bn1.weight \(1 in all\). Is it of an",
        ),
        (
            "another shape",
            r"must fit .* whose bn1.weight has the shape 3, not 64\. Is it of another mod",
        ),
        (
            "wrapped",
            r"must be a state_dict that torch.save wrote, got .* \(not a dictionary of tensors",
        ),
        (
            "a whole model",
            r"must be a .* \(not a whole file of tensors alone\)\. Save model.state_dict\(\)\.",
        ),
        (
            "no such file",
            r"must be a state_dict that torch.save wrote, got .* \(No such file or directory\)\. Save",
        ),
        ("text", r"must be a .* \(not a whole file of tensors alone\)\. Save"),
        ("cut", r"must be a .* \(not a whole file of tensors alone\)\. Save"),
    ],
)
def test_files_that_do_not_do(weights: Path, how: str, message: str) -> None:
    spoil(weights, how)
    with pytest.raises(InputError, match=f"^weights_file {message}") as refused:
        check_models([resnet(weights_file=str(weights))], 3, (64, 64), 10)
    assert len(str(refused.value).splitlines()) == 1


def test_the_file_s_content_is_part_of_the_identity(weights: Path, tmp_path: Path) -> None:
    def id_of(path: Path) -> str:
        return identify([TrialConfig.of(model=RESNET, weights_file=str(path))], "d")[0].trial_id

    first = id_of(weights)
    (tmp_path / "elsewhere").mkdir()
    moved = weights.rename(tmp_path / "elsewhere" / weights.name)
    assert id_of(moved) == first != identify([TrialConfig.of(model=RESNET)], "d")[0].trial_id
    spoil(moved, "another model")
    assert id_of(moved) != first
    with pytest.raises(
        InputError, match=r"weights_file must be a file of weights, got .* \(No such fi"
    ):
        id_of(weights)
    # A model that takes no file does not need it.
    assert identify([TrialConfig.of(weights_file=str(weights))], "d")[0].sources == ()


# ---- training ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"model": "WRN-28-2", "optimizer": "SGD", "optimizer_momentum": 0.9},
        {"model": RESNET, "small_images": True},
        {"model": "torchvision:mobilenet_v3_small", "dropout": 0.5},
    ],
)
def test_two_steps_and_a_resumption_in_the_same_bits(
    fashion_mnist: ImageDataset, settings: dict[str, Any]
) -> None:
    config = SMALL.replace(**settings, subset=60, batch_size=6, epochs=1, method="pi_model")
    states: list[bytes] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(buffer.getvalue())

    config = config.replace(max_steps=2)
    whole = run(config, fashion_mnist, report=keep, checkpoint_steps=1)
    assert len(states) == 3
    resume = torch.load(io.BytesIO(states[0]), weights_only=True)
    assert resume["progress"]["steps"] == 1
    again = run(config, fashion_mnist, resume=resume)
    assert_same_bits(again.weights, whole.weights)
    assert untimed(again.history) == untimed(whole.history)


def test_the_command_refuses_it_before_anything_trains(call: Any, tmp_path: Path) -> None:
    from ssl_runner.train.__main__ import main

    arguments = ("--results", str(tmp_path / "results"), "--model")
    for model, message in (
        ("torchvision:alexnet", "error: images must be of a size that torchvision:alexnet takes, got"),
        ("torchvision:resnet81", "error: model must be one of torchvision's classifiers, got"),
    ):
        done: Answer = call(main, *arguments, model)
        assert done.returncode == 2
        assert done.stderr.startswith(message)
    assert not list((tmp_path / "results").rglob("*.parquet"))
