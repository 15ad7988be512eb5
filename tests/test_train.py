"""The loop on real images, in this process."""

import dataclasses
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.labels import UNLABELED
from ssl_runner.models import CNN
from ssl_runner.train import FitResult, evaluate, fit, prepare
from ssl_runner.train.device import resolve_precision, to_model_input
from ssl_runner.train.loop import Training

CPU = torch.device("cpu")
SMALL = TrialConfig.of(
    subset=1500, label_fraction=0.2, epochs=2, batch_size=32, precision="fp32", patience=0
)
SECONDS = {"train_seconds", "evaluate_seconds", "images_per_second", "cpu_seconds", "epoch_seconds"}


def ignore(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
    pass


def run(config: TrialConfig, dataset: ImageDataset, **arguments: Any) -> FitResult:
    arguments.setdefault("report", ignore)
    return fit(config, prepare(config, dataset), device=CPU, **arguments)


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in SECONDS} for row in history]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_reports_in_mid_epoch_where_it_is_asked_to(fashion_mnist: ImageDataset) -> None:
    steps, reported = itertools.count(1), list[int]()

    def report(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        if metrics is None:
            reported.append(state["progress"]["steps"])

    asked = run(SMALL, fashion_mnist, report=report, is_asked=lambda: next(steps) in (4, 13, 14))
    assert reported == [4, 13, 14]
    assert next(steps) == 21  # after every step
    assert untimed(asked.history) == untimed(run(SMALL, fashion_mnist).history)


def test_prepare_gives_every_image_one_role(fashion_mnist: ImageDataset) -> None:
    config = TrialConfig.of(label_fraction=0.1, holdout=5000, split_seed=3)
    data = prepare(config, fashion_mnist)
    assert len(data.labeled) == 5500
    assert len(data.unlabeled) == 49500
    assert len(data.validation[1]) == 5000
    assert data.test is not None
    assert len(data.test[1]) == 10000
    together = np.concatenate([data.labeled, data.unlabeled])
    assert len(np.unique(together)) == 55000
    assert np.array_equal(np.bincount(data.validation[1]), [500] * 10)
    assert np.array_equal(np.bincount(data.targets_N[data.labeled]), [550] * 10)
    assert (data.targets_N[np.setdiff1d(np.arange(60000), data.labeled)] == UNLABELED).all()


def test_without_a_holdout_the_test_images_validate(fashion_mnist: ImageDataset) -> None:
    data = prepare(TrialConfig(), fashion_mnist)
    assert len(data.labeled) == 60000
    assert len(data.unlabeled) == 0
    assert data.test is None
    assert np.array_equal(data.validation[1], fashion_mnist.test.labels)


def test_a_subset_takes_the_same_share_of_both(fashion_mnist: ImageDataset) -> None:
    data = prepare(TrialConfig.of(subset=6000), fashion_mnist)
    assert (len(data.labeled), len(data.validation[1])) == (6000, 1000)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrialConfig.of(subset=70000), r"in \[1, 60000\], got 70000"),
        (TrialConfig.of(holdout=60000), "less than the 60000 training images, got 60000"),
        (
            TrialConfig.of(subset=1500, label_fraction=0.01, last_batch="drop"),
            "must not drop all there is, got drop with 20 labeled images and batch_size 64",
        ),
        (TrialConfig.of(label_fraction=0.00001), "leave every class a labeled image, got 1e-05"),
    ],
)
def test_data_that_does_not_do(fashion_mnist: ImageDataset, config: TrialConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(config, fashion_mnist)


def test_it_learns_and_counts(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(epochs=4, subset=6000)
    result = run(config, fashion_mnist)
    assert result.validation.accuracy > 0.65  # ten classes; 1,200 labels
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    # 1,200 labeled images are 38 batches of 32, 4,800 unlabeled ones are 150.
    assert result.progress.steps == 4 * 38
    assert result.progress.skipped == 4 * 150
    assert result.progress.images == 4 * 1200
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert result.parameters == 320 + 18496 + 401536 + 1290


def test_the_figures_are_those_of_the_weights_that_are_kept(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(epochs=3, lr=0.01, precision="fp64")
    result = run(config, fashion_mnist)
    losses = [row["validation_loss"] for row in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))

    model = CNN(1, (28, 28), 10, 0.0).double()
    model.load_state_dict(result.weights)
    data = prepare(config, fashion_mnist)
    again = evaluate(model, *data.validation, 10, device=CPU, precision="fp64")
    assert again.loss == pytest.approx(result.validation.loss, rel=1e-12)
    assert again.confusion == result.validation.confusion


def test_evaluation_equals_a_slow_one(fashion_mnist: ImageDataset) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.9)).double()
    images, labels = fashion_mnist.test.images[:1234], fashion_mnist.test.labels[:1234]
    figures = evaluate(model, images, labels, 10, device=CPU, precision="fp64", each=True)
    assert model.training  # as it was
    model.eval()
    losses, wrong, confusion = [], [], np.zeros((10, 10), dtype=int)
    with torch.no_grad():
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            logits = model(torch.tensor(image[None] / 255))
            losses.append(F.cross_entropy(logits, torch.tensor([label])).item())
            taken = int(logits.argmax())
            confusion[label, taken] += 1
            if taken != label:
                wrong.append((-losses[-1], place, taken))
    assert figures.loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert figures.confusion == confusion.tolist()
    assert figures.accuracy == confusion.trace() / 1234
    assert figures.accuracy_per_class == pytest.approx(confusion.diagonal() / confusion.sum(1))
    assert figures.misclassified == [[place, taken] for _, place, taken in sorted(wrong)[:25]]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(figures.correct), dtype=np.uint8))
    assert np.flatnonzero(bits == 0).tolist() == [
        *(place for _, place, _ in sorted(wrong, key=lambda each: each[1])),
        *range(1234, 1240),  # a whole number of bytes
    ]
    few = evaluate(model, images[:9], labels[:9], 10, device=CPU, precision="fp64")
    assert few.correct == ""
    assert sorted(few.misclassified) == [[place, taken] for _, place, taken in wrong if place < 9]


def test_equal_configs_give_equal_bits_and_seeds_matter(fashion_mnist: ImageDataset) -> None:
    one, again = run(SMALL, fashion_mnist), run(SMALL, fashion_mnist)
    assert_same_bits(one.weights, again.weights)
    assert untimed(one.history) == untimed(again.history)
    other = run(SMALL.replace(seed=1), fashion_mnist)
    assert untimed(other.history) != untimed(one.history)


def test_the_hidden_labels_change_nothing(fashion_mnist: ImageDataset) -> None:
    hidden = prepare(SMALL, fashion_mnist).unlabeled
    scrambled = fashion_mnist.train.labels.copy()
    scrambled[hidden] = scrambled[hidden][::-1]
    assert (scrambled != fashion_mnist.train.labels).any()
    data = prepare(SMALL, fashion_mnist)
    # The split is chosen by the labels, so the pools are kept and only the hidden labels changed.
    targets = np.where(data.targets_N == UNLABELED, UNLABELED, scrambled)
    assert np.array_equal(targets, data.targets_N)
    blind = dataclasses.replace(data, targets_N=targets)
    one = fit(SMALL, data, device=CPU, report=ignore)
    other = fit(SMALL, blind, device=CPU, report=ignore)
    assert_same_bits(one.weights, other.weights)


def test_early_stopping_waits_as_long_as_patience_says(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(epochs=40, lr=0.02, patience=2, subset=1000)
    result = run(config, fashion_mnist)
    losses = [row["validation_loss"] for row in result.history]
    assert len(losses) < 40
    assert len(losses) == result.best_epoch + 2
    assert min(losses) == losses[result.best_epoch - 1]


@pytest.mark.parametrize("max_steps", [1, 10, 25])  # an epoch has 10 steps
def test_a_budget_in_steps_is_kept_exactly(fashion_mnist: ImageDataset, max_steps: int) -> None:
    result = run(SMALL.replace(max_steps=max_steps, epochs=1), fashion_mnist)
    assert result.progress.steps == max_steps
    assert len(result.history) == -(-max_steps // 10)


def test_the_test_images_are_touched_once_after_a_holdout(fashion_mnist: ImageDataset) -> None:
    result = run(SMALL.replace(holdout=300), fashion_mnist)
    assert sum(map(sum, result.validation.confusion)) == 300
    assert sum(map(sum, result.test.confusion)) == 250


class Poisoned(CNN):
    """A convolution's weight is no number; oneDNN's pooling would hide it from the loss."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            next(self.features.parameters())[3] = torch.nan
        return super().forward(images_BCHW)


def test_a_weight_that_is_not_finite_is_an_error(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(model=f"{__name__}:Poisoned", precision="fp32")
    with pytest.raises(
        FloatingPointError, match=r"(weights|loss) must stay finite, .* in epoch 1\. Try"
    ):
        run(config, fashion_mnist)


def test_a_loss_that_is_not_finite_is_an_error(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(model=f"{__name__}:Infinite")
    with pytest.raises(FloatingPointError, match=r"stay finite, got .* in epoch 1\. Try a lower lr"):
        run(config, fashion_mnist)


class Infinite(nn.Module):
    """A model that diverges."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(784, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(images.flatten(1)) * torch.inf
        return logits


@pytest.mark.parametrize("checkpoint_steps", [None, 4])
def test_a_run_that_was_cut_ends_in_the_same_bits(
    fashion_mnist: ImageDataset, checkpoint_steps: int | None
) -> None:
    states: list[tuple[bool, bytes]] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append((metrics is None, buffer.getvalue()))

    whole = run(SMALL, fashion_mnist, report=keep, checkpoint_steps=checkpoint_steps)
    assert any(in_mid_epoch for in_mid_epoch, _ in states) == (checkpoint_steps is not None)
    for _, saved in states:
        torch.manual_seed(12345)  # a process with another past
        resume = torch.load(io.BytesIO(saved), weights_only=True)
        again = run(SMALL, fashion_mnist, resume=resume)
        assert_same_bits(again.weights, whole.weights)
        assert untimed(again.history) == untimed(whole.history)
        assert again.progress.skipped == whole.progress.skipped
        assert again.validation == whole.validation


def test_a_state_of_another_trial_is_refused(fashion_mnist: ImageDataset) -> None:
    states: list[dict[str, Any]] = []
    config = SMALL.replace(epochs=1)
    run(config, fashion_mnist, report=lambda _, state: states.append(state))
    other = config.replace(lr=0.5)
    with pytest.raises(ValueError, match=f"must be of trial {other.settings_id}, got one of"):
        run(other, fashion_mnist, resume=states[0])


def test_images_reach_the_model_as_floats_in_channels_last(fashion_mnist: ImageDataset) -> None:
    images = torch.from_numpy(np.repeat(fashion_mnist.test.images[:2], 3, axis=1))
    made = to_model_input(images, CPU)
    assert made.dtype == torch.float32
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, images / 255)


def test_precision_is_what_was_asked_for_or_what_the_hardware_has() -> None:
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp64", CPU) == "fp64"
    flags = Path("/proc/cpuinfo").read_text().split()
    native = "avx512_bf16" in flags or "amx_tile" in flags
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")


def test_in_fp64_all_numbers_are_float64(fashion_mnist: ImageDataset) -> None:
    states: list[dict[str, Any]] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        states.append(state)

    settings: dict[str, Any] = {"method": "freematch", "ema": 0.9, "epochs": 1, "subset": 600}
    config = SMALL.replace(precision="fp64", augment="weak", **settings)
    seen: list[torch.dtype] = []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda _, given: seen.extend(tensor.dtype for tensor in given)
    )
    try:
        result = run(config, fashion_mnist, report=keep)
    finally:
        hook.remove()
    assert result.precision == "fp64"
    assert set(seen) == {torch.float64}
    saved = {name: states[-1]["parts"][name] for name in ("model", "average", "method")}
    saved |= {"kept": result.weights, "optimizer": {}}
    for place, moments in states[-1]["parts"]["optimizer"]["state"].items():
        saved["optimizer"] |= {f"{place} {name}": moments[name] for name in ("exp_avg", "exp_avg_sq")}
    for part, tensors in saved.items():
        assert len(tensors) >= 2
        for name, tensor in tensors.items():
            assert tensor.dtype == (torch.int64 if name == "n_averaged" else torch.float64), (
                part,
                name,
            )


def test_the_precision_changes_no_initial_weight(fashion_mnist: ImageDataset) -> None:
    data = prepare(SMALL, fashion_mnist)
    single, double = (
        Training(SMALL.replace(precision=precision), data, CPU, None, None)
        for precision in ("fp32", "fp64")
    )
    weights = single.parts["model"].state_dict()
    assert_same_bits(
        {name: weight.double() for name, weight in weights.items()}, double.parts["model"].state_dict()
    )


def test_bf16_trains(fashion_mnist: ImageDataset) -> None:
    half = run(SMALL.replace(precision="bf16"), fashion_mnist)
    assert half.precision == "bf16"
    assert half.history[-1]["train_loss"] < half.history[0]["train_loss"]
    assert {weight.dtype for weight in half.weights.values()} == {torch.float32}


def test_bf16_s_loss_is_within_the_bound_of_its_rounding(fashion_mnist: ImageDataset) -> None:
    """A logit is Σ w·x + b; bf16 rounds w, x, b and the logit, each by u = 2⁻⁸ relatively.

    With the sum made in float32, whose share is below u/10, a logit is off by at most
    4u·(Σ|w·x| + |b|) (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1), and
    the cross entropy, whose slopes' magnitudes add up to 2 at most, by twice the largest of these.
    """
    torch.manual_seed(0)
    linear = nn.Linear(784, 10)
    model = nn.Sequential(nn.Flatten(), linear)
    images_N, labels_N = fashion_mnist.test.images[:500], fashion_mnist.test.labels[:500]
    half = evaluate(model, images_N, labels_N, 10, device=CPU, precision="bf16").loss
    exact = evaluate(model.double(), images_N, labels_N, 10, device=CPU, precision="fp64").loss
    pixels = torch.from_numpy(images_N / 255).flatten(1)
    with torch.no_grad():
        magnitudes = pixels @ linear.weight.abs().T + linear.bias.abs()
    bound = 2 * 4 * 2**-8 * magnitudes.amax(1).mean().item()
    assert 2**-24 * exact < abs(half - exact) < bound
