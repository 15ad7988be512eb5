"""A trained model as a file: it gives the row's figures again, and no other file passes for one."""

import os
import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import ssl_runner
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial, identify
from ssl_runner.results import ResultsFolder
from ssl_runner.results.best import best_models
from ssl_runner.saved_model import load_model
from ssl_runner.train import evaluate, prepare
from ssl_runner.trial import RunContext, finish_trial, run_trial
from tests.builders import epoch_rows, frame_of, trial_row

CPU = torch.device("cpu")
SETTINGS = {"subset": 600, "label_fraction": 0.5, "epochs": 1, "batch_size": 50}


def train(config: TrialConfig, dataset: ImageDataset, results: ResultsFolder) -> Trial:
    """Run a trial to its row, as the commands do."""
    (trial,) = identify([config], dataset.digest)
    context = RunContext(
        sweep="s",
        checkpoints=results.checkpoints("s", trial.trial_id),
        threads=1,
        models=f"{results.location}/models",
    )
    rows = run_trial(trial, dataset, context, lambda metrics: None, device=CPU)
    finish_trial(results, rows, context)
    return trial


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp32"},
        {"precision": "bf16"},
        {"precision": "fp64"},
        {"model": "AdaptiveCNN", "dropout": 0.5},
        {"method": "mean_teacher"},  # the averaged weights are the row's
        {"model": "tests.models:SmallCNN"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_saved_model_gives_the_row_s_figures_to_the_bit(
    settings: dict[str, object], fashion_mnist: ImageDataset, results: ResultsFolder
) -> None:
    trial = train(TrialConfig.of(**SETTINGS | settings), fashion_mnist, results)
    (row,) = results.trials().to_dict("records")
    assert row["status"] == "finished", row["error"]
    assert row["weights"] == f"models/s--{trial.trial_id}.safetensors"
    saved = load_model(f"{results.location}/{row['weights']}", trust_code=True)
    assert not saved.module.training
    assert saved.class_names == fashion_mnist.test.class_names
    assert saved.card.image_shape == (1, 28, 28)
    assert saved.card.trial_id == trial.trial_id
    images, labels = prepare(trial.config, fashion_mnist).validation
    again = evaluate(saved.module, images, labels, 10, device=CPU, precision=saved.card.precision)
    assert (again.accuracy, again.loss) == (row["test_accuracy"], row["test_loss"])
    assert again.confusion == [list(counts) for counts in row["confusion"]]


def test_a_model_is_found_by_its_trial(fashion_mnist: ImageDataset, results: ResultsFolder) -> None:
    trial = train(TrialConfig.of(**SETTINGS), fashion_mnist, results)
    saved = ssl_runner.load_model(trial.trial_id, results=results.location)
    assert saved.card.sweep == "s"
    with pytest.raises(
        InputError, match="of a trial in .*, got '0123456789'. Known: " + trial.trial_id
    ):
        load_model("0123456789", results=results.location)
    with pytest.raises(InputError, match="Run ssl_runner.tune first"):
        load_model("0123456789", results=f"{results.location}/none")


def test_a_file_does_not_decide_which_code_is_run(
    fashion_mnist: ImageDataset, results: ResultsFolder
) -> None:
    config = TrialConfig.of(**SETTINGS, model="tests.models:SmallCNN")
    trial = train(config, fashion_mnist, results)
    with pytest.raises(InputError, match="needs the code 'tests.models:SmallCNN'. If you trust it"):
        load_model(trial.trial_id, results=results.location)


def test_other_files_are_refused(
    tmp_path: Path, fashion_mnist: ImageDataset, results: ResultsFolder
) -> None:
    trial = train(TrialConfig.of(**SETTINGS), fashion_mnist, results)
    whole = Path(results.location, "models", f"s--{trial.trial_id}.safetensors")
    short, pickled, other, none = (tmp_path / name for name in ("short", "pickled", "other", "none"))
    content = whole.read_bytes()
    short.write_bytes(content[: len(content) // 2])
    pickled.write_bytes(pickle.dumps({"weights": 1}))
    save_file({"weight": torch.zeros(2)}, other)
    foreign = tmp_path / "foreign"
    save_file({"weight": torch.zeros(2)}, foreign, metadata={"ssl_runner": '{"format": 99}'})
    for path, reason in (
        (short, "must be a whole .safetensors file"),
        (pickled, "must be a whole .safetensors file"),
        (other, "must be a model that ssl_runner saved"),
        (foreign, "must be a model that ssl_runner saved"),
        (none, r"can't be read \(No such file or directory\)"),
    ):
        with pytest.raises(InputError, match=reason) as refused:
            load_model(path)
        assert str(path) in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1


# ---- which are kept ----


def test_the_best_of_each_configuration_is_kept() -> None:
    rows = []
    for fraction, accuracies in ((1.0, (0.9, 0.91)), (0.1, (0.8, 0.8, 0.7))):
        for seed, accuracy in enumerate(accuracies):
            config = TrialConfig.of(label_fraction=fraction, seed=seed).resolved()
            rows.append(
                trial_row(
                    config,
                    validation_accuracy=accuracy,
                    validation_loss=1.0 - 0.1 * seed,
                    weights="a file",
                )
            )
    ids = [row["trial_id"] for row in rows]
    assert best_models(frame_of(*rows)) == {ids[1], ids[3]}  # of two equal ones, that of less loss
    rows[1]["weights"] = None  # gone already
    assert best_models(frame_of(*rows)) == {ids[0], ids[3]}
    assert best_models(frame_of(*rows).head(0)) == set()


def written(results: ResultsFolder, seed: int, sweep: str = "s") -> tuple[str, Path]:
    """A row with its model; the trial's id and the file."""
    row = trial_row(TrialConfig.of(seed=seed), sweep=sweep)
    path = Path(results.location, "models", f"{sweep}--{row['trial_id']}.safetensors")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"weights")
    results.write(row | {"weights": f"models/{path.name}"}, epoch_rows(1))
    return row["trial_id"], path


def test_models_that_are_not_kept_are_named_by_no_row(results: ResultsFolder) -> None:
    (kept, one), (_, other) = written(results, 0), written(results, 1)
    _, of_another_sweep = written(results, 0, sweep="t")
    before = results.trials("s").drop(columns="weights")
    assert results.keep_models("s", {kept}) == 1
    assert one.exists()
    assert not other.exists()
    assert of_another_sweep.exists()
    rows = results.trials("s").set_index("trial_id")["weights"]
    assert rows[kept] == f"models/{one.name}"
    assert rows.drop(kept).isna().all()
    pd.testing.assert_frame_equal(results.trials("s").drop(columns="weights"), before)


def test_a_model_without_its_row_is_removed(results: ResultsFolder) -> None:
    trial_id, named = written(results, 0)
    _, orphan = written(results, 1)
    results.write(trial_row(TrialConfig.of(seed=1)) | {"weights": None}, [])  # killed before deletion
    rowless = named.with_name("s--0123456789.safetensors")  # killed before its row
    foreign = named.with_name("t--0123456789.safetensors")
    rowless.write_bytes(b"")
    foreign.write_bytes(b"")
    draft = named.with_name(f".{os.uname().nodename}-999999999-ab.draft")
    draft.write_bytes(b"")
    results.remove_leftovers("s", {trial_id})
    assert sorted(named.parent.iterdir()) == sorted([named, foreign])
    results.forget("s", [trial_id])
    assert not named.exists()
    assert not orphan.exists()


def test_a_row_whose_model_is_not_wanted_names_none(
    fashion_mnist: ImageDataset, results: ResultsFolder
) -> None:
    (trial,) = identify([TrialConfig.of(**SETTINGS)], fashion_mnist.digest)
    context = RunContext(sweep="s", checkpoints=results.checkpoints("s", trial.trial_id), threads=1)
    row, _ = run_trial(trial, fashion_mnist, context, lambda metrics: None, device=CPU)
    assert row.get("weights") is None
