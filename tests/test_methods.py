"""What each method learns: against slow versions, against `pass`, and through the whole loop."""

import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_runner.augment import STRONG_NUMBERS, draw, strong
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.methods import LabeledBatch, Method, Networks, UnlabeledBatch, build_method
from ssl_runner.methods.matching import SoftMatch
from ssl_runner.methods.methods import FreeMatch
from ssl_runner.methods.settings import METHODS
from ssl_runner.train import fit, prepare
from ssl_runner.train.loop import Training
from ssl_runner.train.step import averaged_model, group_by_step
from tests.test_train import CPU, assert_same_bits, ignore, run, untimed

# B = unlabeled images, A = labeled images, K = classes, D = features of an image

LEARNING = [method for method in METHODS if method != "pass"]
B, A, K, D = 7, 4, 3, 5
STRONG = 3  # what strong views' random numbers are for
SHARES_K = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
SMALL = TrialConfig.of(
    subset=600,
    label_fraction=0.1,
    epochs=2,
    batch_size=24,
    precision="fp32",
    patience=0,
    augment="weak",
    method="fixmatch",
)


def small(method: str, **settings: Any) -> TrialConfig:
    return SMALL.replace(method=method, **settings)


# ---- the losses, in numbers ----


class Fixture:
    """Networks of one linear layer each, and a batch whose views are given rows of numbers; float64."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        double: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
        self.student = torch.randn(K, D, **double).mul(2).requires_grad_()
        self.teacher = torch.randn(K, D, **double)
        self.views = {name: torch.randn(B, D, **double) for name in ("weak 0", "weak 1", "strong 0")}
        self.views["labeled 0"] = torch.randn(A, D, **double)
        self.recorded: dict[str, torch.Tensor] = {}
        self.networks = Networks(
            student=lambda images: images @ self.student.T,
            predict=lambda images: images @ self.student.detach().T,
            teacher=lambda images: images @ self.teacher.T,
        )
        self.batch = UnlabeledBatch(
            size=B,
            weak=lambda view: self.views[f"weak {view}"],
            strong=lambda view: self.views[f"strong {view}"],
            mean=lambda values: values.mean(0),
            record=lambda **values: self.recorded.update(values),
            labeled=LabeledBatch(
                weak=lambda view: self.views[f"labeled {view}"], mean=lambda values: values.mean(0)
            ),
        )

    def probabilities(self, weights: torch.Tensor, view: str) -> list[list[float]]:
        """Softmax outputs of each image, by hand."""
        rows = []
        for image in self.views[view].tolist():
            logits = [sum(w * x for w, x in zip(row, image, strict=True)) for row in weights.tolist()]
            total = sum(math.exp(logit) for logit in logits)
            rows.append([math.exp(logit) / total for logit in logits])
        return rows


def arg_max(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def slow_pseudo_label(fixture: Fixture, config: TrialConfig) -> float:
    loss = 0.0
    for p in fixture.probabilities(fixture.student.detach(), "weak 0"):
        if max(p) >= (config.unlabeled.threshold or 0):
            loss -= math.log(max(p))
    return loss / B


def slow_pi_model(fixture: Fixture, config: TrialConfig) -> float:
    one = fixture.probabilities(fixture.student.detach(), "weak 0")
    other = fixture.probabilities(fixture.student.detach(), "weak 1")
    return sum((one[i][k] - other[i][k]) ** 2 for i in range(B) for k in range(K)) / (B * K)


def slow_mean_teacher(fixture: Fixture, config: TrialConfig) -> float:
    one = fixture.probabilities(fixture.student.detach(), "weak 0")
    other = fixture.probabilities(fixture.teacher, "weak 1")
    return sum((one[i][k] - other[i][k]) ** 2 for i in range(B) for k in range(K)) / (B * K)


def slow_match(fixture: Fixture, config: TrialConfig, is_free: bool) -> float:
    """FixMatch's and FreeMatch's loss of the first batch, one image at a time."""
    assert config.unlabeled.momentum is not None
    assert config.unlabeled.temperature is not None
    weak = fixture.probabilities(fixture.student.detach(), "weak 0")
    strong = fixture.probabilities(fixture.student.detach(), "strong 0")
    keep = config.unlabeled.momentum
    mean = [keep / K + (1 - keep) * sum(p[k] for p in weak) / B for k in range(K)]
    if config.unlabeled.alignment:
        for p in weak:
            scaled = [p[k] * SHARES_K[k].item() / mean[k] for k in range(K)]
            p[:] = [value / sum(scaled) for value in scaled]
    running = keep / K + (1 - keep) * sum(max(p) for p in weak) / B
    loss = 0.0
    for p, q in zip(weak, strong, strict=True):
        threshold = running * mean[arg_max(p)] / max(mean) if is_free else config.unlabeled.threshold
        assert threshold is not None
        if max(p) < threshold:
            continue
        if config.unlabeled.temperature:
            sharp = [value ** (1 / config.unlabeled.temperature) for value in p]
            loss -= sum(s / sum(sharp) * math.log(value) for s, value in zip(sharp, q, strict=True))
        else:
            loss -= math.log(q[arg_max(p)])
    return loss / B


def slow_fixmatch(fixture: Fixture, config: TrialConfig) -> float:
    return slow_match(fixture, config, is_free=False)


def slow_freematch(fixture: Fixture, config: TrialConfig) -> float:
    return slow_match(fixture, config, is_free=True)


def aligned(rows: list[list[float]], wanted: list[float], mean: list[float]) -> list[list[float]]:
    """Rows of probabilities, each class scaled by what is wanted of it over its running mean."""
    scaled = [[p[k] * wanted[k] / mean[k] for k in range(K)] for p in rows]
    return [[value / sum(p) for value in p] for p in scaled]


def crossed(p: list[float], q: list[float], temperature: float) -> float:
    """Cross entropy of q with p: with its arg-max at temperature 0, else with p sharpened."""
    if not temperature:
        return -math.log(q[arg_max(p)])
    sharp = [value ** (1 / temperature) for value in p]
    pairs = zip(sharp, q, strict=True)
    total: float = sum(part / sum(sharp) * math.log(value) for part, value in pairs)
    return -total


def slow_softmatch(fixture: Fixture, config: TrialConfig) -> float:
    """SoftMatch's loss of the first batch, one image at a time."""
    assert config.unlabeled.momentum is not None
    assert config.unlabeled.temperature is not None
    weak = fixture.probabilities(fixture.student.detach(), "weak 0")
    strong = fixture.probabilities(fixture.student.detach(), "strong 0")
    keep, judged = config.unlabeled.momentum, weak
    if config.unlabeled.alignment:
        mean = [keep / K + (1 - keep) * sum(p[k] for p in weak) / B for k in range(K)]
        judged = aligned(weak, SHARES_K.tolist(), mean)
    sure = [max(p) for p in judged]
    of_batch = sum(sure) / B
    middle = keep / K + (1 - keep) * of_batch
    variance = keep * 1 + (1 - keep) * sum((value - of_batch) ** 2 for value in sure) / (B - 1)
    loss = 0.0
    for p, q, value in zip(weak, strong, sure, strict=True):
        weight = 1.0 if value >= middle else math.exp(-((value - middle) ** 2) / (2 * variance / 4))
        loss += weight * crossed(p, q, config.unlabeled.temperature)
    return loss / B


def slow_adamatch(fixture: Fixture, config: TrialConfig) -> float:
    """AdaMatch's loss of the first batch, one image at a time."""
    assert config.unlabeled.momentum is not None
    assert config.unlabeled.temperature is not None
    assert config.unlabeled.threshold is not None
    weak = fixture.probabilities(fixture.student.detach(), "weak 0")
    strong = fixture.probabilities(fixture.student.detach(), "strong 0")
    known = fixture.probabilities(fixture.student.detach(), "labeled 0")
    keep = config.unlabeled.momentum
    if config.unlabeled.alignment:
        mean = [keep / K + (1 - keep) * sum(p[k] for p in weak) / B for k in range(K)]
        wanted = [keep / K + (1 - keep) * sum(p[k] for p in known) / A for k in range(K)]
        weak = aligned(weak, wanted, mean)
    least = config.unlabeled.threshold * sum(max(p) for p in known) / A
    loss = 0.0
    for p, q in zip(weak, strong, strict=True):
        if max(p) >= least:
            loss += crossed(p, q, config.unlabeled.temperature)
    return loss / B


SLOW: dict[str, Callable[[Fixture, TrialConfig], float]] = {
    "pseudo_label": slow_pseudo_label,
    "pi_model": slow_pi_model,
    "mean_teacher": slow_mean_teacher,
    "fixmatch": slow_fixmatch,
    "freematch": slow_freematch,
    "softmatch": slow_softmatch,
    "adamatch": slow_adamatch,
}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("pseudo_label", {"threshold": 0.0}),
        ("pseudo_label", {"threshold": 0.8}),
        ("pi_model", {}),
        ("mean_teacher", {}),
        ("fixmatch", {"threshold": 0.0}),
        ("fixmatch", {"threshold": 0.8}),
        ("fixmatch", {"threshold": 0.8, "temperature": 0.5}),
        ("fixmatch", {"threshold": 0.8, "alignment": True, "momentum": 0.5}),
        ("freematch", {"alignment": False, "momentum": 0.5}),
        ("freematch", {"momentum": 0.5}),
        ("freematch", {"momentum": 0.25, "temperature": 2.0}),
        ("softmatch", {"alignment": False, "momentum": 0.2}),
        ("softmatch", {"momentum": 0.0}),
        ("softmatch", {"momentum": 0.25, "temperature": 0.5}),
        ("adamatch", {"alignment": False}),
        ("adamatch", {"momentum": 0.5, "threshold": 1.0}),
        ("adamatch", {"momentum": 0.0, "temperature": 0.0}),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_each_loss_is_that_of_a_slow_version(method: str, settings: dict[str, Any], seed: int) -> None:
    fixture, config = Fixture(seed), small(method, **settings).resolved()
    loss = build_method(config.unlabeled, SHARES_K).unlabeled_loss(fixture.networks, fixture.batch, 0)
    assert loss is not None
    assert loss.item() == pytest.approx(SLOW[method](fixture, config), rel=1e-10)
    loss.backward()  # type: ignore[no-untyped-call]
    assert fixture.student.grad is not None
    assert (fixture.student.grad != 0).any() == (loss.item() > 0)


def test_the_gradient_goes_through_the_learned_view_alone() -> None:
    """The targets are constants: a slow version by finite differences, with the targets held fast.

    In float64 with a step of h = 1e-6 they are off by h²/6 times a third derivative and 2⁻⁵³/h times
    the loss, each about 1e-10 at the most here.
    """
    for method in ("pseudo_label", "mean_teacher", "fixmatch", "freematch", "softmatch", "adamatch"):
        fixture, config = Fixture(3), small(method, threshold=0.5 if "pseudo" in method else None)
        config = config.resolved()
        loss = build_method(config.unlabeled, SHARES_K).unlabeled_loss(
            fixture.networks, fixture.batch, 0
        )
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        assert fixture.student.grad is not None
        moved, step = fixture.student.detach().clone(), 1e-6
        fixed = Fixture(3)
        for k, d in ((0, 0), (1, 3), (2, 4)):
            values = []
            for sign in (1, -1):
                moved[k, d] += sign * step
                networks = dataclasses.replace(
                    fixed.networks,
                    student=lambda images: images @ moved.T,  # noqa: B023
                )
                built = build_method(config.unlabeled, SHARES_K)
                if method == "pseudo_label":  # its target is of the same view: fix it by hand
                    p = fixed.views["weak 0"] @ moved.T
                    target = (fixed.views["weak 0"] @ fixed.student.detach().T).softmax(1).max(1)
                    each = nn.functional.cross_entropy(p, target.indices, reduction="none")
                    values.append((each * (target.values >= 0.5)).mean().item())
                else:
                    made = built.unlabeled_loss(networks, fixed.batch, 0)
                    assert made is not None
                    values.append(made.item())
                moved[k, d] -= sign * step
            slope = (values[0] - values[1]) / (2 * step)
            assert fixture.student.grad[k, d].item() == pytest.approx(slope, abs=1e-8), method


def test_the_pi_model_learns_through_both_views() -> None:
    fixture = Fixture(1)
    loss = build_method(small("pi_model").resolved().unlabeled, SHARES_K).unlabeled_loss(
        fixture.networks, fixture.batch, 0
    )
    assert loss is not None
    for view in fixture.views.values():
        view.requires_grad_()
    again = build_method(small("pi_model").resolved().unlabeled, SHARES_K).unlabeled_loss(
        fixture.networks, fixture.batch, 0
    )
    assert again is not None
    again.backward()  # type: ignore[no-untyped-call]
    for name in ("weak 0", "weak 1"):
        assert fixture.views[name].grad is not None
    assert fixture.views["strong 0"].grad is None


def test_freematch_s_thresholds_follow_the_model() -> None:
    method = build_method(
        small("freematch", alignment=False, momentum=0.9).resolved().unlabeled, SHARES_K
    )
    assert isinstance(method, FreeMatch)
    assert method.mean_K.tolist() == pytest.approx([1 / K] * K)
    fixture = Fixture(2)
    confidence, mean = 1 / K, np.full(K, 1 / K)
    for _ in range(20):
        method.unlabeled_loss(fixture.networks, fixture.batch, 0)
        p = np.array(fixture.probabilities(fixture.student.detach(), "weak 0"))
        confidence, mean = 0.9 * confidence + 0.1 * p.max(1).mean(), 0.9 * mean + 0.1 * p.mean(0)
    assert method.confidence.item() == pytest.approx(confidence, rel=1e-10)
    assert method.mean_K.tolist() == pytest.approx(mean.tolist(), rel=1e-10)
    expected = p.max(1) >= (mean / mean.max() * confidence)[p.argmax(1)]
    assert fixture.recorded["accepted_B"].tolist() == expected.tolist()
    assert 0 < expected.sum() < B


def test_softmatch_s_weights_follow_the_model() -> None:
    method = build_method(small("softmatch", momentum=0.9).resolved().unlabeled, SHARES_K)
    assert isinstance(method, SoftMatch)
    fixture = Fixture(2)
    middle, variance = 1 / K, 1.0
    for step in range(20):
        confidence_B = torch.rand(B, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        weight_B = method.weights(confidence_B, fixture.batch)
        middle = 0.9 * middle + 0.1 * confidence_B.mean().item()
        variance = 0.9 * variance + 0.1 * confidence_B.var().item()  # the unbiased one
        expected = [
            math.exp(-(min(0.0, value - middle) ** 2) / (2 * variance / 4))
            for value in confidence_B.tolist()
        ]
        assert weight_B.tolist() == pytest.approx(expected, rel=1e-10)
    assert method.confidence.item() == pytest.approx(middle, rel=1e-10)
    assert method.variance.item() == pytest.approx(variance, rel=1e-10)
    assert 0 < (weight_B < 0.99).sum() < B
    assert (weight_B[confidence_B >= middle] == 1).all()


def test_softmatch_s_weights_are_finite_where_all_are_as_confident() -> None:
    """As in a batch of one image, whose variance is 0 and not 0/0."""
    method = build_method(small("softmatch", momentum=0.0).resolved().unlabeled, SHARES_K)
    assert isinstance(method, SoftMatch)
    for size in (1, B):
        batch = dataclasses.replace(Fixture(0).batch, size=size)
        weight_B = method.weights(torch.full((size,), 0.75, dtype=torch.float64), batch)
        assert method.variance.item() == 0
        assert weight_B.tolist() == [1.0] * size


def test_adamatch_is_judged_by_the_labeled_images() -> None:
    """The less confident the model is of them, the lower the threshold; which of them is no matter."""
    settings = small("adamatch", alignment=False, threshold=0.9).resolved().unlabeled
    shares = []
    for scale in (0.0, 1.0, 1000.0):  # of the labeled images' logits
        fixture = Fixture(4)
        fixture.views["labeled 0"] *= scale
        build_method(settings, SHARES_K).unlabeled_loss(fixture.networks, fixture.batch, 0)
        shares.append(fixture.recorded["accepted_B"].double().mean().item())
        flipped = Fixture(4)
        flipped.views["labeled 0"] = fixture.views["labeled 0"].flip(0)
        build_method(settings, SHARES_K).unlabeled_loss(flipped.networks, flipped.batch, 0)
        assert torch.equal(flipped.recorded["accepted_B"], fixture.recorded["accepted_B"])
    assert shares[0] == 1.0  # every class as likely: a confidence of 1/K, which no image is below
    assert shares[0] >= shares[1] >= shares[2] > 0
    assert shares[0] > shares[2]


# ---- through the loop ----


@pytest.mark.parametrize("method", LEARNING)
def test_the_unlabeled_images_move_the_weights(fashion_mnist: ImageDataset, method: str) -> None:
    """And without their weight they do not: the run is that of `pass` to the bit."""
    # A confident model is not to be had in a few steps.
    settings: dict[str, Any] = {"ema": 0.9, "ramp": 0.0}
    if method in ("pseudo_label", "fixmatch"):
        settings["threshold"] = 0.2
    of_pass = run(small("pass", order="paired", ema=0.9), fashion_mnist)
    without = run(small(method, unlabeled_weight=0.0, **settings), fashion_mnist)
    assert_same_bits(without.weights, of_pass.weights)
    learned = run(small(method, **settings), fashion_mnist)
    assert all(row["unlabeled_loss"] > 0 for row in learned.history)
    assert [row["images"] for row in learned.history] == [row["images"] for row in of_pass.history]
    gaps = [(learned.weights[name] - of_pass.weights[name]).abs().max() for name in of_pass.weights]
    assert min(gaps) > 1e-5
    columns = {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "steps"}
    for row, row_of_pass in zip(without.history, of_pass.history, strict=True):
        assert {name: row[name] for name in columns} == {name: row_of_pass[name] for name in columns}
    assert [row["unlabeled_images_seen"] for row in learned.history] == [540, 1080]
    assert [row["unlabeled_batches_skipped"] for row in learned.history] == [0, 0]
    assert [row["unlabeled_batches_skipped"] for row in of_pass.history] == [
        23,
        46,
    ]  # 540 images in batches of 24
    assert of_pass.history[0]["unlabeled_loss"] is None


@pytest.mark.parametrize("method", ["freematch", "mean_teacher"])
def test_the_hidden_labels_decide_nothing(fashion_mnist: ImageDataset, method: str) -> None:
    config = small(method)
    data = prepare(config, fashion_mnist)
    hidden_N = data.hidden_N.copy()
    hidden_N[data.unlabeled] = hidden_N[data.unlabeled][::-1]
    scrambled = dataclasses.replace(data, hidden_N=hidden_N)
    one = fit(config, data, device=CPU, report=ignore)
    other = fit(config, scrambled, device=CPU, report=ignore)
    assert_same_bits(one.weights, other.weights)
    if method == "freematch":  # they are for the table alone
        names = ("pseudo_accuracy", "accepted_share")
        assert all(row[name] is not None for row in one.history for name in names)
        accuracies = [result.history[-1]["pseudo_accuracy"] for result in (one, other)]
        assert accuracies[0] > accuracies[1]


def test_the_diagnostics_are_those_of_a_slow_version(
    fashion_mnist: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate of almost nothing, one model's figures over the whole epoch."""
    config = small("fixmatch", threshold=0.106, lr=1e-30, epochs=1, dropout=0.5, precision="fp64")
    data = prepare(config, fashion_mnist)
    monkeypatch.setattr("ssl_runner.train.step.weak", lambda images, numbers, flip: images)
    result = fit(config, data, device=CPU, report=ignore)
    from ssl_runner.models import CNN

    model = CNN(1, (28, 28), 10, 0.5).double().eval()
    model.load_state_dict(result.weights)
    with torch.no_grad():
        images = torch.from_numpy(data.images_NCHW[data.unlabeled]).double() / 255
        confidence, pseudo = model(images).softmax(1).max(1)
    accepted = (confidence >= 0.106).numpy()
    right = pseudo.numpy() == data.hidden_N[data.unlabeled]
    (row,) = result.history
    assert 0 < accepted.mean() < 1
    assert row["confidence"] == pytest.approx(confidence.mean().item(), rel=1e-10)
    assert row["accepted_share"] == accepted.sum() / len(accepted)
    assert row["pseudo_accuracy"] == right[accepted].sum() / accepted.sum()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("freematch", {"mu": 3}),
        ("freematch", {"precision": "fp64"}),
        ("softmatch", {"mu": 2}),
        ("adamatch", {}),
        ("mean_teacher", {}),
        ("pseudo_label", {"keep": "last", "threshold": 0.3}),
        ("pass", {"ema": 0.9, "max_steps": 7}),
    ],
)
def test_a_run_that_was_cut_ends_in_the_same_bits(
    fashion_mnist: ImageDataset, method: str, settings: dict[str, Any]
) -> None:
    config = small(method, **settings)
    states: list[bytes] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(buffer.getvalue())

    whole = run(config, fashion_mnist, report=keep, checkpoint_steps=3)
    assert len(states) > 3
    for saved in states[:: len(states) // 3]:
        resume = torch.load(io.BytesIO(saved), weights_only=True)
        again = run(config, fashion_mnist, resume=resume)
        assert_same_bits(again.weights, whole.weights)
        assert untimed(again.history) == untimed(whole.history)
        assert (again.validation, again.student_test) == (whole.validation, whole.student_test)


def test_labeled_images_may_be_learned_as_strong_views(fashion_mnist: ImageDataset) -> None:
    """A step's gradient is that of the views made by hand."""
    config = small("pass", augment="strong", magnitude=0.5, precision="fp64", lr=1e-30)
    config = config.replace(model="tests.models:SmallCNN")
    training = Training(config, prepare(config, fashion_mnist), CPU, None, None)
    (batch, *_) = batches = next(group_by_step(training.loader))
    training.learner.step(batches, training.sums, 0, 0)
    model = training.learner.bare
    found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    key = (config.batches.seed, STRONG, 0, batch.step)
    numbers = draw(key, batch.size, 0, batch.size, STRONG_NUMBERS).double()
    views = strong(batch.images, numbers, flip=True, magnitude=0.5)
    nn.functional.cross_entropy(model(views), batch.targets).backward()  # type: ignore[no-untyped-call]
    expected = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    weak = run(config.replace(augment="weak", lr=0.001, epochs=1), fashion_mnist)
    assert run(config.replace(lr=0.001, epochs=1), fashion_mnist).validation != weak.validation


def test_several_unlabeled_batches_to_each_labeled_one(fashion_mnist: ImageDataset) -> None:
    result = run(small("fixmatch", mu=4, epochs=1), fashion_mnist)
    assert result.progress.steps == 6  # 540 images are 23 batches of 24
    assert result.progress.unlabeled == 540
    assert result.progress.images == 2 * 60 + 0 * 24  # two cycles through 24, 24 and 12


def test_the_averaged_weights_are_evaluated_and_kept(fashion_mnist: ImageDataset) -> None:
    config = small("pass", order="paired", ema=0.9, keep="last", holdout=100)
    plain = run(config.replace(ema=None), fashion_mnist)
    result = run(config, fashion_mnist)
    assert result.student_validation == plain.validation  # the training itself is the same
    assert result.student_test == plain.test
    assert result.validation != plain.validation
    assert plain.student_validation is None
    row = result.history[-1]
    assert row["student_validation_loss"] == plain.validation.loss
    assert row["validation_loss"] == result.validation.loss
    assert result.best_epoch == len(result.history)


def test_the_average_is_a_plain_one_at_first_and_then_a_running_one() -> None:
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    average = averaged_model(model, 0.75)
    (weight,), expected = model.parameters(), 0.0
    for step, value in enumerate((4.0, 2.0, 6.0, 8.0, 10.0, 12.0)):
        with torch.no_grad():
            weight.fill_(value)
        average.update_parameters(model)
        decay = min(1 - 1 / (step + 1), 0.75)
        expected = decay * expected + (1 - decay) * value
        assert next(average.module.parameters()).item() == pytest.approx(expected, rel=1e-12)
        if step == 2:
            assert expected == pytest.approx(4.0, rel=1e-12)  # the plain mean of the first three


def test_last_weights_are_kept_where_the_last_are_wanted(fashion_mnist: ImageDataset) -> None:
    config = small("pass", epochs=15, lr=0.003, batch_size=8, keep="last")
    last = run(config, fashion_mnist)
    best = run(config.replace(keep="best"), fashion_mnist)
    losses = [row["validation_loss"] for row in last.history]
    assert untimed(last.history) == untimed(best.history)
    assert last.best_epoch == 15
    assert last.validation.loss == losses[-1]
    assert best.validation.loss == min(losses) < losses[-1]


def test_batch_norm_s_running_averages_are_those_of_the_labeled_images(
    fashion_mnist: ImageDataset,
) -> None:
    settings: dict[str, Any] = {"model": "tests.models:Normed", "ema": 0.5, "keep": "last"}
    of_pass = run(small("pass", order="paired", **settings), fashion_mnist)
    for method in LEARNING:
        without = run(small(method, unlabeled_weight=0.0, **settings), fashion_mnist)
        assert_same_bits(without.weights, of_pass.weights)
    assert not torch.equal(of_pass.weights["1.running_mean"], torch.zeros(1))


def test_a_step_is_a_labeled_batch_and_the_unlabeled_ones_up_to_the_next() -> None:
    from ssl_runner.loader import PartiallyLabeledDataset, make_loader
    from tests.test_loader import IMAGES_NCHW, TARGETS_N, make_sampler

    dataset = PartiallyLabeledDataset(IMAGES_NCHW, TARGETS_N)
    loader = make_loader(dataset, make_sampler(order="paired", mu=2))
    groups = [[batch.kind for batch in group] for group in group_by_step(loader)]
    assert groups == [[0, 1, 1], [0, 1, 1], [0, 1]]  # 40 images in batches of 8
    skipped = make_loader(dataset, make_sampler(skip_unlabeled=True))
    assert [[batch.kind for batch in group] for group in group_by_step(skipped)] == [[0], [0]]


# ---- a method of one's own ----


def test_a_method_of_one_s_own(fashion_mnist: ImageDataset) -> None:
    config = small("experiments.own_method:EntropyMinimization", unlabeled_weight=0.5)
    result = run(config, fashion_mnist)
    assert result.history[0]["unlabeled_loss"] > result.history[-1]["unlabeled_loss"] > 0
    assert result.history[0]["accepted_share"] is None
    silent = run(small("tests.models:Silent"), fashion_mnist)  # its loss is None
    of_pass = run(small("pass", order="paired"), fashion_mnist)
    assert_same_bits(silent.weights, of_pass.weights)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("tests.models:Linear", "must be a subclass of ssl_runner.methods.Method, got <class"),
        ("tests.models:Nothing", "tests.models has no 'Nothing'. Is the name right?"),
        ("no_such_module:Method", "no module 'no_such_module'. Is it installed"),
    ],
)
def test_what_is_no_method_is_refused(method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_method(TrialConfig.of(method=method).unlabeled, SHARES_K)


def test_every_built_in_method_is_there() -> None:
    for name in METHODS:
        built = build_method(TrialConfig.of(method=name).resolved().unlabeled, SHARES_K)
        assert isinstance(built, Method)
        assert built.needs_unlabeled == (name != "pass")
