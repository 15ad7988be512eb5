"""Where images lie, and what happens to freed memory."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.train import evaluate, fit, prepare
from ssl_runner.train.device import compile_in_place, keep_compiler_files, resident, seed_generator
from tests.test_train import SMALL, ignore

CPU = torch.device("cpu")

# Allocates and frees what a step does.
CHURN = """
import resource, torch
from ssl_runner.train.device import keep_freed_memory
if {keep}:
    keep_freed_memory()
def step():
    kept = [torch.ones(1_000_000) for _ in range(8)]
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    # Whether the heap's top is given back depends on where its blocks happen to lie; blocks that
    # glibc is told to map one by one are given back each time.
    done = subprocess.run(
        [sys.executable, "-c", CHURN.format(keep=keep)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_a_seeded_generator_draws_what_it_does_for_pytorch() -> None:
    torch.manual_seed(2**63 + 5)
    drawn = torch.rand(5)
    torch.manual_seed(0)
    seed_generator(2**63 + 5, torch.device("cpu"))
    assert torch.equal(torch.rand(5), drawn)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    given_back, kept = page_faults(keep=False), page_faults(keep=True)
    assert given_back > 20 * 8 * 4_000_000 / resource.getpagesize() / 2  # most of it, each time
    assert kept < given_back / 20


def test_on_a_cpu_the_array_itself_is_used() -> None:
    rows_N = np.arange(5)
    assert resident(rows_N, CPU) is rows_N


def test_evaluation_takes_tensors_that_stay_where_they_are(fashion_mnist: ImageDataset) -> None:
    data = prepare(SMALL, fashion_mnist)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    images_NCHW, labels_N = data.validation
    arguments = {"device": CPU, "precision": "fp32"}
    tensors = torch.tensor(images_NCHW), torch.tensor(labels_N)
    assert evaluate(model, *tensors, 10, **arguments) == evaluate(  # type: ignore[arg-type]
        model,
        images_NCHW,
        labels_N,
        10,
        **arguments,  # type: ignore[arg-type]
    )


def test_compiled_files_are_kept_apart_by_kind_of_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for capability in ("AVX512", "AVX2"):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda made=capability: made)
        keep_compiler_files()
        kept.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
    assert kept[0].parent == kept[1].parent
    assert [folder.name for folder in kept] == ["AVX512", "AVX2"]


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(
    fashion_mnist: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What another kind of CPU compiled does not compute here.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    config = TrialConfig.of(
        subset=650, label_fraction=0.2, batch_size=32, epochs=2, precision="fp64", dropout=0
    )
    data = prepare(config, fashion_mnist)
    plain = fit(config, data, device=CPU, report=ignore)
    states: list[dict[str, torch.Tensor]] = []

    compiled_config = config.replace(compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = fit(
        compiled_config,
        data,
        device=CPU,
        report=lambda metrics, state: states.append(dict(state["parts"]["model"])),
    )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before  # it was compiled
    assert states[0].keys() == plain.weights.keys()  # so a checkpoint fits either
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-9)
        assert other["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-9)


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match=r"a C\+\+ compiler on a CPU, got none at 'no-such-compiler'. Inst"
    ):
        compile_in_place(torch.nn.Linear(2, 2), CPU)
