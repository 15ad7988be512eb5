"""Convolutions in oneDNN's formats: the same function and gradients as PyTorch's own, ties included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_runner.models import CNN, blocked

# B = images, C = channels, H and W = height and width

SHAPES = [
    (4, 1, 28, 28),  # Fashion-MNIST
    (3, 1, 7, 7),  # the pool leaves out the last row and column
    (2, 1, 5, 9),
    (2, 3, 9, 6),
    (1, 1, 4, 4),
]

capability = torch.backends.cpu.get_cpu_capability()


def layers(convolution: type[nn.Conv2d], channels: int) -> nn.Sequential:
    """The features of `CNN`, smaller, with weights of −1, 0 and 1."""
    made = nn.Sequential(
        *(convolution(channels, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
        *(convolution(8, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in made.parameters():
            weights.copy_(torch.randint(-1, 2, weights.shape, generator=generator))
    return made


def figures(features: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The answer, and the gradients of images and weights where the answer's is of whole numbers."""
    images = images.detach().requires_grad_()
    made = features(images)
    made = made.to_dense() if made.is_mkldnn else made
    gradient = torch.arange(made.numel()).view(made.shape) % 5 - 2
    made.backward(gradient.to(made.dtype))
    return [made, images.grad, *(weights.grad for weights in features.parameters())]


def whole(*shape: int) -> torch.Tensor:
    """Images of 0, 1 and 2, most of them 0: their windows are full of ties."""
    generator = torch.Generator().manual_seed(2)
    return (torch.randint(-4, 3, shape, generator=generator)).clamp_(min=0).float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["contiguous", "channels_last", "strided"])
def test_whole_numbers_come_out_bit_for_bit(shape: tuple[int, int, int, int], form: str) -> None:
    # Of whole numbers below 2²⁴ float32 rounds nothing, so a gradient that a tie sent elsewhere shows.
    images = whole(*shape)
    if form == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    if form == "strided":
        images = images.repeat_interleave(2, dim=3)[..., ::2]
    ours, plain = (layers(kind, shape[1]) for kind in (blocked.Conv2d, nn.Conv2d))
    if form == "channels_last":
        ours = ours.to(memory_format=torch.channels_last)
    for one, other in zip(figures(ours, images), figures(plain, images), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_float64_is_pytorchs_own(shape: tuple[int, int, int, int]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ours, plain = (layers(kind, shape[1]).double() for kind in (blocked.Conv2d, nn.Conv2d))
    for one, other in zip(figures(ours, images), figures(plain, images), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_under_autocast_to_bfloat16(shape: tuple[int, int, int, int]) -> None:
    # One layer: sums up to 9·3·2 + 1 are exact in bf16 too; a gradient is rounded once, to 8 bits.
    ours, plain = (layers(kind, shape[1])[:3] for kind in (blocked.Conv2d, nn.Conv2d))
    results = []
    for features in (ours, plain):
        with torch.autocast("cpu", torch.bfloat16):
            results.append(figures(features, whole(*shape)))
    assert results[0][0].dtype == torch.bfloat16
    assert torch.equal(results[0][0], results[1][0])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one, other, rtol=2**-7, atol=0)


def test_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution, images = blocked.Conv2d(1, 8, 3, padding=1), whole(2, 1, 8, 8)
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    fast = has_onednn and capability in ("AVX2", "AVX512")
    assert convolution(images).is_mkldnn == fast
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(images).is_mkldnn == (has_onednn and capability == "AVX512")
    with torch.inference_mode():
        assert convolution(images).is_mkldnn == fast
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        assert not convolution(images).is_mkldnn
    assert not convolution.double()(images.double()).is_mkldnn


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluation_gives_the_scores_of_training(precision: str) -> None:
    torch.manual_seed(0)
    model = CNN(1, (28, 28), 10, 0.25).eval()
    images = torch.rand(5, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(images)
        with torch.inference_mode():
            assert torch.allclose(model(images), logits, rtol=2**-6, atol=1e-5)


def test_names_and_first_weights_are_those_of_plain_layers() -> None:
    # Checkpoints of the time before load, and a seed means the weights that it meant.
    torch.manual_seed(5)
    model = CNN(1, (28, 28), 10, 0.25)
    torch.manual_seed(5)
    expected = {
        "features.0": nn.Conv2d(1, 32, 3, padding=1),
        "features.3": nn.Conv2d(32, 64, 3, padding=1),
        "classifier.1": nn.Linear(3136, 128),
        "classifier.4": nn.Linear(128, 10),
    }
    plain = {
        f"{name}.{key}": weights
        for name, layer in expected.items()
        for key, weights in layer.state_dict().items()
    }
    assert list(model.state_dict()) == list(plain)
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, plain[name])


def test_a_gradient_is_laid_out_as_its_weights() -> None:
    model = CNN(1, (28, 28), 10, 0.25).to(memory_format=torch.channels_last)
    F.cross_entropy(model(torch.rand(2, 1, 28, 28)), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    for weights in model.parameters():
        assert weights.grad is not None
        assert not weights.grad.is_mkldnn
        assert weights.grad.stride() == weights.stride()
