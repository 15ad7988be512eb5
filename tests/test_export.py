"""Exported models answer as the saved one does, on real images and for any number of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.export.__main__ import main
from ssl_runner.results import ResultsFolder
from ssl_runner.saved_model import load_model
from tests.test_saved_model import SETTINGS, train

# Each logit is a sum of at most 3,136 products of float32, twice over; the order of the terms is the
# runtime's own. With |logits| below 30 that is 30 · sqrt(3136) · 2^-24 ≈ 1e-4.
BOUND = 1e-4


@pytest.fixture(scope="module", params=["CNN", "AdaptiveCNN"])
def model(
    request: pytest.FixtureRequest,
    fashion_mnist: ImageDataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The file of a trained model."""
    results = ResultsFolder(str(tmp_path_factory.mktemp("results")))
    trial = train(TrialConfig.of(**SETTINGS, model=request.param), fashion_mnist, results)
    return Path(results.location, "models", f"s--{trial.trial_id}.safetensors")


def test_every_format_answers_like_the_model(
    model: Path, call: Callable[..., Any], tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    pixels = fashion_mnist.test.images[:500]
    saved = load_model(model)
    with torch.inference_mode():
        expected = saved.module(torch.tensor(pixels) / 255).numpy()
    assert np.abs(expected).max() < 30
    program, network = tmp_path / "model.pt2", tmp_path / "model.onnx"
    answer = call(main, str(model), "--output", str(program))
    assert answer.returncode == 0, answer.stderr
    assert f"{program}: uint8 images (B, 1, 28, 28) to logits (B, 10), classes T-shirt" in answer.stdout
    assert call(main, str(model), "--format", "onnx", "--output", str(network)).returncode == 0
    assert sorted(tmp_path.iterdir()) == [network, program]  # no draft, no second file of weights

    module = torch.export.load(program).module()
    session = onnxruntime.InferenceSession(str(network))
    for count in (500, 1):  # another number of images than it was exported with
        images = pixels[:count]
        of_torch = module(torch.tensor(images)).detach().numpy()
        (of_onnx,) = session.run(["logits"], {"pixels": images})
        assert np.abs(of_torch - expected[:count]).max() < BOUND
        assert np.abs(of_onnx - expected[:count]).max() < BOUND
    assert np.abs(expected[1:] - expected[:-1]).max() > 100 * BOUND  # the answers do differ


def test_what_cannot_be_exported_is_said(model: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    taken = tmp_path / "taken.pt2"
    taken.write_text("mine")
    for arguments, line in (
        ((str(model), "--output", str(taken)), "--output must not exist yet"),
        ((str(model), "--output", str(tmp_path / "model.bin")), "--output must end in .pt2"),
        ((str(tmp_path / "none"),), "can't be read"),
        ((str(model), "--output", str(taken / "model.pt2")), "must be a writable path"),
    ):
        answer = call(main, *arguments)
        assert answer.returncode == 2
        assert line in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
    assert taken.read_text() == "mine"
    assert call(main, str(model), "--output", str(taken), "--force").returncode == 0
    assert taken.read_bytes() != b"mine"
    assert list(tmp_path.iterdir()) == [taken]
