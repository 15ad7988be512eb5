"""What a search chose, by rows alone: the best samples, smaller holdouts, what tuning changed."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.keyed_random import Permutation
from ssl_runner.report import words
from ssl_runner.report.rerun import command_of
from ssl_runner.report.terminal import print_comparison
from ssl_runner.results import ResultsFolder, compared_rows
from ssl_runner.results.matching import match
from ssl_runner.results.schema import identity_columns
from ssl_runner.results.winners import best_samples, holdout_sizes, tuning_effect
from ssl_runner.study import sweep_from_settings
from ssl_runner.tune.stages import PLACE, Choice, choices, final_trials, put_in_place, sample_trials
from tests.builders import failed_row, frame_of, trial_row

STUDY: dict[str, Any] = {
    "name": "s",
    "configs": ["partial"],
    "label_fractions": [0.01],
    "methods": ["pass", "fixmatch"],
    "search": {"lr": {"log_uniform": [0.0001, 0.01]}, "threshold": {"choice": [0.8, 0.9]}},
    "samples": 4,
    "holdout": 60,
    "seeds": [0, 1],
}
OF_PASS: dict[str, Any] = {"methods": ["pass"], "search": {"lr": {"log_uniform": [0.0001, 0.01]}}}


def row_of(trial: Trial, **figures: Any) -> dict[str, Any]:
    return trial_row(trial.config, "s") | identity_columns(trial) | figures


def searched(sweep: SweepConfig, dataset: ImageDataset, losses: list[float]) -> pd.DataFrame:
    """The rows of a search whose samples of each group have these losses."""
    trials = sample_trials(sweep, dataset)
    return frame_of(*(row_of(trial, validation_loss=losses[trial.place["sample"]]) for trial in trials))


# ---- the best sample ----


def test_the_best_sample_is_that_of_the_holdout_and_of_equal_ones_the_first_id() -> None:
    def sample(trial_id: str, group: str, **figures: Any) -> dict[str, Any]:
        place = {"role": "search", "search_group": group, "trial_id": trial_id, "status": "finished"}
        return place | {"validation_loss": 0.5, "validation_accuracy": 0.5, "test_loss": 0.5} | figures

    samples = pd.DataFrame(
        [
            sample("d", "a", validation_loss=0.2),
            sample("c", "a", validation_loss=0.2),
            sample("b", "a", validation_loss=0.1, status="stopped"),  # it had fewer steps
            sample("a", "a", validation_loss=0.3, test_loss=0.0),  # the test images choose nothing
            sample("e", "b", validation_accuracy=0.9, validation_loss=0.9),
            sample("f", "b", validation_accuracy=0.8, validation_loss=0.8),
            sample("g", "c", status="failed", validation_loss=None),
        ]
    )
    assert best_samples(samples, "loss") == {"a": "c", "b": "f"}
    assert best_samples(samples, "accuracy") == {"a": "a", "b": "e"}


def test_the_finals_follow_from_the_rows(fashion_mnist: ImageDataset) -> None:
    sweep = sweep_from_settings(STUDY | {"untuned": True})
    rows = searched(sweep, fashion_mnist, [0.4, 0.3, 0.2, 0.5])
    rows.loc[(rows["method"] == "pass"), "status"] = "failed"
    chosen = choices(sweep, fashion_mnist, rows)
    winner = rows[(rows["method"] == "fixmatch") & (rows["sample"] == 2)].iloc[0]
    assert [choice.line(sweep) for choice in chosen] == [
        "CNN partial 0.01: all 4 samples failed, so it has no finals",
        "CNN partial 0.01 fixmatch: sample 2 of 4 samples has the best holdout loss, 0.2000: "
        f"lr {winner['lr']:.6g}, threshold {winner['threshold']:.6g}",
    ]
    trials = final_trials(sweep, fashion_mnist, chosen)
    values = [
        (trial.place["role"], trial.config.unlabeled.method, trial.config.batches.seed)
        for trial in trials
    ]
    assert values == [
        *[("default", "pass", 0), ("default", "pass", 1)],
        *[("final", "fixmatch", 0), ("final", "fixmatch", 1)],
        *[("default", "fixmatch", 0), ("default", "fixmatch", 1)],
    ]
    for trial in trials:
        assert trial.config.data.split_seed == trial.config.batches.seed
        is_final = trial.place["role"] == "final"
        assert trial.config.optimizer.lr == (winner["lr"] if is_final else 0.001)
        assert trial.place["holdout_labels"] == (60 if is_final else None)
        assert trial.place["search"] == sweep.search_record
    # The winner under the search's own seed is the very trial that was chosen.
    again = trials[2].config.replace(seed=1000, split_seed=1000)
    assert again.settings_id == winner["settings_id"]


# ---- rows that are there already ----


def test_more_samples_move_the_finals(tmp_path: Path, fashion_mnist: ImageDataset) -> None:
    results = ResultsFolder(str(tmp_path))
    losses = [0.4, 0.3, 0.5, 0.6, 0.2, 0.7]

    def stage(sweep: SweepConfig, trials: list[Trial], loss: bool) -> pd.DataFrame:
        """Run a stage as the command does, but for the training."""
        matches = match(trials, results.known("s"))
        put_in_place(results, "s", trials, matches, results.trials("s"))
        for trial in trials:
            if trial.trial_id not in matches.rows:
                figures = {"validation_loss": losses[trial.place["sample"]]} if loss else {}
                results.write(row_of(trial, **figures), [])
        return results.trials("s")

    def whole(samples: int) -> pd.DataFrame:
        sweep = sweep_from_settings(STUDY | {"samples": samples} | OF_PASS)
        rows = stage(sweep, sample_trials(sweep, fashion_mnist), loss=True)
        chosen = choices(sweep, fashion_mnist, rows[rows["role"] == "search"])
        return stage(sweep, final_trials(sweep, fashion_mnist, chosen), loss=False)

    def stand(rows: pd.DataFrame) -> dict[str, int]:
        return {
            str(role): int(count) for role, count in rows["role"].fillna("none").value_counts().items()
        }

    few = whole(4)
    assert stand(few) == {"search": 4, "final": 2}
    many = whole(6)
    # Sample 4 is better than all before: its finals take the place of those of sample 1.
    assert stand(many) == {"search": 6, "final": 2, "former": 2}
    assert set(many["lr"][many["role"] == "final"]) == {many["lr"][many["sample"] == 4].item()}
    nowhere = many[many["role"] == "former"]
    assert nowhere[[name for name in PLACE if name != "role"]].isna().all(axis=None)
    assert set(nowhere["lr"]) == {few["lr"][few["sample"] == 1].item()}
    assert set(compared_rows(many)["role"]) == {"final"}
    batch_size = many["batch_size"].where(many["role"] != "former", 7)
    assert "--batch-size" not in command_of(many.assign(batch_size=batch_size))
    # Nothing but the place changes, and the same command again changes nothing.
    kept = few.drop(columns=list(PLACE)).set_index("trial_id")
    there = many.drop(columns=list(PLACE)).set_index("trial_id").loc[kept.index]
    pd.testing.assert_frame_equal(kept, there)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    whole(6)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before
    # With fewer samples again, the finals of then stand where they stood.
    fewer = whole(4)
    assert stand(fewer) == {"search": 4, "final": 2, "former": 4}
    assert set(fewer["lr"][fewer["role"] == "final"]) == set(nowhere["lr"])


@pytest.mark.parametrize("is_search", [True, False])
def test_a_name_is_a_search_s_or_a_plain_sweep_s(
    tmp_path: Path, fashion_mnist: ImageDataset, is_search: bool
) -> None:
    results = ResultsFolder(str(tmp_path))
    place = {"role": "former"} if is_search else {}  # as where a search was changed, and then killed
    results.write(trial_row(TrialConfig(), "s") | place, [])
    results.write(trial_row(TrialConfig(), "s--other") | ({} if is_search else {"role": "search"}), [])
    both = ["a search", "a sweep without a search"]
    rule, those = both if not is_search else both[::-1]
    message = (
        f"--name must be of {rule}, or new, got 's': its rows in {tmp_path} are of {those}. Choose "
        "another --name."
    )
    for files in (4, 2):
        assert len(list(tmp_path.rglob("*.parquet"))) == files
        for name in ("s", "new"):
            results.check_name(name, is_search)
        with pytest.raises(InputError) as refused:
            results.check_name("s", not is_search)
        assert str(refused.value) == message
        results.compact()


# ---- smaller holdouts ----


def sample_rows(correct_SN: np.ndarray, **place: Any) -> pd.DataFrame:
    """Finished samples of one search, which classify these images correctly."""
    known = {"sweep": "s", "search_group": "g", "role": "search", "status": "finished"}
    return pd.DataFrame(
        [
            known
            | {"trial_id": f"{n:010d}", "sample": n, "data_digest": "d"}
            | {"validation_images": correct_SN.shape[1]}
            | {"holdout_correct": np.packbits(correct_N.astype(np.uint8)).tobytes()}
            | place
            for n, correct_N in enumerate(correct_SN)
        ]
    )


def test_a_clear_winner_wins_by_any_holdout() -> None:
    correct = np.zeros((3, 130), dtype=bool)
    correct[1] = True
    table = holdout_sizes(sample_rows(correct), draws=20)
    assert table["holdout_labels"].tolist() == [50, 100, 130]
    assert table["same_winner"].tolist() == [1.0, 1.0, 1.0]
    assert table["chosen_accuracy"].tolist() == [1.0, 1.0, 1.0]
    assert table["rest_accuracy"].tolist()[:2] == [1.0, 1.0]
    assert table["rest_accuracy"].isna().tolist() == [False, False, True]
    assert set(table["samples"]) == {3}


def test_by_chance_alone_the_chosen_accuracy_is_too_high_and_the_rest_is_not() -> None:
    # Twenty samples that are right by chance: whoever is chosen, the rest of the images say 0.7.
    correct = np.random.default_rng(0).random((20, 2000)) < 0.7
    table = holdout_sizes(sample_rows(correct), draws=400).set_index("holdout_labels")
    assert table.index.tolist() == [50, 100, 200, 400, 800, 1600, 2000]
    small = table.loc[50]
    assert small["chosen_accuracy"] > 0.78
    # The standard deviation of one sample's accuracy over 2,000 images is 0.010.
    assert abs(small["rest_accuracy"] - 0.7) < 0.01
    assert small["same_winner"] < 0.2 < table.loc[1600]["same_winner"]


@given(st.integers(1, 5), st.integers(51, 120), st.integers(0, 2**32 - 1))
def test_smaller_holdouts_equal_a_slow_obvious_version(samples: int, images: int, seed: int) -> None:
    correct = np.random.default_rng(seed).random((samples, images)) < 0.5
    row = holdout_sizes(sample_rows(correct), draws=7, seed=seed).iloc[0]

    winner = max(range(samples), key=lambda n: (correct[n].sum(), -n))
    same, hits, rests = 0, [], []
    for draw in range(7):
        order = Permutation(images, (seed, 50, draw)).at(np.arange(images))
        inside, outside = order[:50], order[50:]
        chosen = max(range(samples), key=lambda n: (correct[n][inside].sum(), -n))
        same += chosen == winner
        hits.append(correct[chosen][inside].mean())
        rests.append(correct[chosen][outside].mean())
    assert row["same_winner"] == same / 7
    assert row["chosen_accuracy"] == pytest.approx(np.mean(hits))
    assert row["rest_accuracy"] == pytest.approx(np.mean(rests))
    assert row["rest_spread"] == pytest.approx(np.std(rests, ddof=1))


def test_the_terminal_says_how_often_fewer_labels_choose_the_same() -> None:
    clear = np.zeros((3, 130), dtype=bool)
    clear[1] = True
    small = sample_rows(clear[:, :40], search_group="small")
    either = clear.copy()  # the first of two that are alike but for the last image
    either[2], either[1, 129] = True, False
    sizes = holdout_sizes(
        pd.concat([sample_rows(clear), small, sample_rows(either, search_group="h")]), draws=40
    )
    shares = sizes.loc[sizes["search_group"] == "h", "same_winner"].tolist()
    assert 0 < shares[0] < shares[1] < shares[2] == 1
    assert words.holdouts(sizes) == [
        "g: 100% by 50, 100% by 100 of 130",
        f"h: {shares[0]:.0%} by 50, {shares[1]:.0%} by 100 of 130",
    ]


def test_what_has_no_bits_is_left_out() -> None:
    rows = sample_rows(np.ones((2, 60), dtype=bool))
    for column, value in (("role", "final"), ("status", "stopped"), ("holdout_correct", None)):
        assert holdout_sizes(rows.assign(**{column: value})).empty
    both = pd.concat([rows, sample_rows(np.ones((1, 60), dtype=bool), search_group="h")])
    assert holdout_sizes(both)["search_group"].tolist() == ["g", "g", "h", "h"]


# ---- what tuning changed ----


def test_what_tuning_changed_is_paired_by_seed(fashion_mnist: ImageDataset) -> None:
    sweep = sweep_from_settings(STUDY | {"untuned": True, "seeds": [0, 1, 2]})
    rows = searched(sweep, fashion_mnist, [0.4, 0.3, 0.2, 0.5])
    finals = final_trials(sweep, fashion_mnist, choices(sweep, fashion_mnist, rows))
    gain = {"pass": [0.01, 0.02, 0.03], "fixmatch": [0.0, 0.0, 0.0]}
    made = []
    for trial in finals:
        seed, method = trial.config.batches.seed, trial.config.unlabeled.method
        is_tuned = trial.place["role"] == "final"
        accuracy = 0.7 + 0.05 * seed + (gain[method][seed] if is_tuned else 0)
        made.append(row_of(trial, test_accuracy=accuracy))
    table = tuning_effect(pd.concat([rows, frame_of(*made)]))
    assert table["method"].tolist() == ["pass", "fixmatch"]
    assert table["n"].tolist() == [3, 3]
    assert table["untuned_mean"].tolist() == pytest.approx([0.75, 0.75])
    assert table["tuned_mean"].tolist() == pytest.approx([0.77, 0.75])
    assert table["change_mean"].tolist() == pytest.approx([0.02, 0.0], abs=1e-12)
    # Student's t of two degrees of freedom, 4.3027, times the standard error 0.01 / √3.
    assert table["change_low"][0] == pytest.approx(0.02 - 4.302653 * 0.01 / 3**0.5)
    assert table["change_high"][0] == pytest.approx(0.02 + 4.302653 * 0.01 / 3**0.5)


def test_where_the_settings_as_they_stood_were_the_best_nothing_changed(
    fashion_mnist: ImageDataset,
) -> None:
    choice = OF_PASS | {"search": {"lr": {"choice": [0.001, 0.002]}}, "samples": 8}
    sweep = sweep_from_settings(STUDY | choice | {"untuned": True})
    trials = sample_trials(sweep, fashion_mnist)
    assert {trial.config.optimizer.lr for trial in trials} == {0.001, 0.002}
    rows = frame_of(*(row_of(t, validation_loss=t.config.optimizer.lr) for t in trials))
    finals = final_trials(sweep, fashion_mnist, choices(sweep, fashion_mnist, rows))
    assert [trial.place["role"] for trial in finals] == ["final", "final"]
    both = pd.concat([rows, frame_of(*map(row_of, finals))])
    table = tuning_effect(both)
    assert table[["change_mean", "n"]].to_numpy().tolist() == [[0.0, 2]]
    # Without `untuned` there is nothing to compare with.
    assert tuning_effect(both.assign(search=sweep_from_settings(STUDY | choice).search_record)).empty


def test_without_a_search_there_is_nothing_to_say() -> None:
    rows = frame_of(trial_row(TrialConfig()), failed_row(TrialConfig.of(seed=1)))
    for some in (rows, rows.head(0)):
        assert tuning_effect(some).empty
        assert holdout_sizes(some).empty


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ((4, 4, 0), "g: all 4 samples failed, so it has no finals"),
        ((4, 1, 3), "g: no sample finished (1 failed, 3 stopped early), so it has no finals"),
    ],
)
def test_a_group_of_which_no_sample_finished_says_why(ends: tuple[int, int, int], line: str) -> None:
    assert Choice("g", *ends, best=None).line(sweep_from_settings(STUDY | OF_PASS)) == line


def test_the_choice_says_how_many_samples_were_stopped() -> None:
    sweep = sweep_from_settings(STUDY | OF_PASS)
    best = {"sample": 2.0, "validation_loss": 0.5, **dict.fromkeys(sweep.search, None)}
    said = Choice("g", 9, 1, 5, best).line(sweep)
    assert said == (
        "g: sample 2 of 9 samples (1 failed, 5 stopped early) has the best holdout loss, 0.5000"
    )


def test_what_tuning_changed_is_printed_in_words(fashion_mnist: ImageDataset) -> None:
    sweep = sweep_from_settings(STUDY | OF_PASS | {"untuned": True})
    rows = searched(sweep, fashion_mnist, [0.4, 0.3, 0.2, 0.5])
    finals = final_trials(sweep, fashion_mnist, choices(sweep, fashion_mnist, rows))
    accuracies = {("final", 0): 0.72, ("final", 1): 0.74, ("default", 0): 0.71, ("default", 1): 0.71}
    made = [row_of(t, test_accuracy=accuracies[t.place["role"], t.config.batches.seed]) for t in finals]
    console = Console(record=True, width=200, file=io.StringIO())
    print_comparison(pd.concat([rows, frame_of(*made)]), console)
    printed = console.export_text()
    # 2 ± t(1 degree of freedom) × 1.414 / √2 points.
    assert (
        "CNN partial 0.01: 71.00 ± 0.00 % untuned, 73.00 ± 1.41 % tuned, +2.00 (-10.71 to +14.71)"
        in printed
    )
    console = Console(record=True, width=200, file=io.StringIO())
    print_comparison(frame_of(trial_row(TrialConfig())), console)
    assert "tuning" not in console.export_text()
