"""Samples from Optuna: what is asked, what is answered, and what a kill leaves of it."""

import math
import random
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from ssl_runner.config import TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.search.domains import Domain
from ssl_runner.tune.searching import GroupedSearcher, Search, Study, Suggestion
from ssl_runner.tune.studies import GroupStudy, Outcome, Values, open_journal

SPACE = {
    "lr": Domain("log_uniform", (0.0001, 0.01)),
    "dropout": Domain("uniform", (0, 0.5)),
    "warmup_steps": Domain("int_uniform", (0, 3)),
    "batch_size": Domain("log_int_uniform", (8, 256)),
    "nesterov": Domain("choice", (True, False, None)),
}
ONE = {"lr": SPACE["lr"]}


def study_at(
    path: Path, search: Mapping[str, Domain] = SPACE, name: str = "g", **more: Any
) -> GroupStudy:
    settings: dict[str, Any] = {"objective": "loss", "seed": 3} | more
    storage = settings.pop("storage", None) or open_journal(path)
    return GroupStudy(name, search, storage=storage, **settings)


def is_of(domain: Domain, value: Any) -> bool:
    low, high = domain.values[0], domain.values[-1]
    return value in domain.values if domain.kind == "choice" else low <= value <= high


def loss_of(values: Values) -> float:
    """The best lr is 0.002."""
    return abs(math.log(values["lr"] / 0.002))  # type: ignore[operator]


def answered(study: GroupStudy, count: int) -> list[Values]:
    """The values of so many samples, each answered before the next is asked for."""
    found = []
    for _ in range(count):
        number, values = study.ask()
        study.tell(number, Outcome("finished", loss_of(values)))
        found.append(values)
    return found


def test_every_value_is_of_its_domain_and_has_six_digits(tmp_path: Path) -> None:
    found = answered(study_at(tmp_path / "j"), 25)
    for values in found:
        assert values.keys() == SPACE.keys()
        for name, domain in SPACE.items():
            assert is_of(domain, values[name]), name
        for name in ("lr", "dropout"):
            assert values[name] == float(f"{values[name]:.6g}")
        assert isinstance(values["batch_size"], int)
    assert {values["nesterov"] for values in found} == {True, False, None}
    assert len({values["warmup_steps"] for values in found}) > 2


@pytest.mark.parametrize("objective", ["loss", "accuracy"])
def test_it_learns_from_its_samples(tmp_path: Path, objective: Any) -> None:
    study = study_at(tmp_path / "j", ONE, objective=objective)
    losses = []
    for _ in range(40):
        number, values = study.ask()
        losses.append(loss_of(values))
        study.tell(number, Outcome("finished", losses[-1] if objective == "loss" else -losses[-1]))
    assert statistics.mean(losses[20:]) < 0.5 * statistics.mean(losses[:10])


def test_a_sample_that_failed_or_was_stopped_early_is_no_good_one(tmp_path: Path) -> None:
    """Above 0.002 all fail, though their first rung looked best; below 0.0005 all are stopped. Three in
    ten random ones are in between."""
    good = []
    for seed in range(4):
        study = study_at(tmp_path / f"{seed}", ONE, seed=seed)
        for n in range(40):
            number, values = study.ask()
            lr = values["lr"]
            assert isinstance(lr, float)
            if n >= 20:
                good.append(0.0005 <= lr <= 0.002)
            if lr > 0.002:
                study.tell(number, Outcome("failed", None, [(10, 0.0)]))
            elif lr < 0.0005:
                study.tell(number, Outcome("stopped", None, [(10, 1 / lr)]))
            else:
                study.tell(number, Outcome("finished", 5.0, [(10, 5.0), (30, 5.0)]))
    assert sum(good) > 0.45 * len(good)


def test_equal_seeds_give_equal_samples_and_groups_differ(tmp_path: Path) -> None:
    one = answered(study_at(tmp_path / "a"), 15)
    assert answered(study_at(tmp_path / "b"), 15) == one
    assert answered(study_at(tmp_path / "c", seed=4), 3) != one[:3]


def test_two_groups_share_a_journal(tmp_path: Path) -> None:
    storage = open_journal(tmp_path / "j")
    one, other = (study_at(tmp_path / "j", name=name, storage=storage) for name in "ab")
    answered(one, 4)
    assert (len(one.asked), len(other.asked)) == (4, 0)
    again = study_at(tmp_path / "j", name="a")
    assert len(again.asked) == 4


def test_a_new_process_goes_on_and_draws_no_sample_again(tmp_path: Path) -> None:
    first = answered(study_at(tmp_path / "j"), 5)
    study = study_at(tmp_path / "j")
    assert [study.known[number] for number in range(5)] == first
    assert not study.is_waiting
    later = answered(study, 5)
    assert not any(values in first for values in later)


def test_what_was_under_way_is_asked_for_again_before_anything_new(tmp_path: Path) -> None:
    study = study_at(tmp_path / "j")
    answered(study, 1)
    running = dict(study.ask() for _ in range(3))
    for _ in range(2):  # it is killed twice
        study = study_at(tmp_path / "j")
        assert study.is_waiting
        assert len(study.asked) == 4
        assert study.known.keys() == {0}
        assert all(running[number] == values for number, values in (study.ask(), study.ask()))
    study = study_at(tmp_path / "j")
    again = dict(study.ask() for _ in range(3))
    assert again == running
    assert not study.is_waiting
    for number in again:
        study.tell(number, Outcome("finished", 1.0))
    assert study.ask()[0] == 4
    assert study_at(tmp_path / "j").known.keys() == {0, 1, 2, 3}


def test_what_is_asked_for_again_is_not_lost_wherever_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "j"
    asked = dict([study_at(path).ask()])
    least = path.stat().st_size
    study_at(path).ask()
    content = path.read_bytes()
    ends = [place + 1 for place in range(least, len(content)) if content[place] == ord("\n")]
    assert len(ends) > 3
    for end in ends:
        path.write_bytes(content[:end])
        again = study_at(path)
        assert again.is_waiting
        assert dict([again.ask()]) == asked


@given(data=st.data())
@settings(max_examples=25)
def test_a_journal_cut_at_any_byte_loses_no_sample_that_was_answered(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path, samples = tmp_path_factory.mktemp("cut") / "j", 5
    told: dict[int, tuple[int, Values]] = {}  # the journal's length when each was answered
    for _ in range(3):  # cut twice, then to the end
        study = study_at(path)
        assert {n: study.known[n] for n in told} == {n: values for n, (_, values) in told.items()}
        running: list[tuple[int, Values]] = []
        while study.is_waiting or len(study.asked) < samples or running:
            can_ask = study.is_waiting or len(study.asked) < samples
            if can_ask and (not running or (len(running) < 3 and data.draw(st.booleans()))):
                running.append(study.ask())
            else:
                number, values = running.pop(data.draw(st.integers(0, len(running) - 1)))
                study.tell(number, Outcome("finished", loss_of(values)))
                told[number] = (path.stat().st_size, values)
        assert told.keys() == set(range(samples))
        assert study_at(path).known == {n: values for n, (_, values) in told.items()}
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        (path.parent / "j.lock").symlink_to(path)  # as it was killed while writing
        told = {n: place for n, place in told.items() if place[0] <= cut}


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for content in ("lr: 0.1\n\n", '{"a": 1}\n', "[]\n"):
        path.write_text(content)
        with pytest.raises(InputError, match="not a journal of Optuna's studies .* Move it elsewhere"):
            open_journal(path)
        assert path.read_text() == content


# ---- the groups in turn ----

THREE = {"batch_size": Domain("choice", (16, 32, 64))}


class Sweep:
    """What runs the suggestions, as Ray Tune does: some at a time, which end in any order."""

    def __init__(
        self,
        folder: Path,
        search: Mapping[str, Domain],
        samples: int,
        chance: random.Random,
        at_once: int,
    ) -> None:
        self.folder, self.search, self.samples = folder, search, samples
        self.chance, self.at_once = chance, at_once
        self.rows: dict[str, Outcome] = {}
        self.begun: list[Suggestion] = []
        self.skipped: list[tuple[str, int]] = []
        self.died: list[str] = []
        self.seconds: float | None = None
        self.optimizer = "Adam"

    def trial_of(self, group: str, number: int, values: Values) -> Trial:
        return Trial(
            TrialConfig.of(method=group, optimizer=self.optimizer, **values).resolved(), "data"
        )

    def start(self) -> None:
        """A new process."""
        storage = open_journal(self.folder / "j")
        groups = ("pass", "fixmatch", "freematch")
        self.start_with(
            {each: study_at(self.folder, self.search, each, storage=storage) for each in groups}
        )

    def start_with(self, studies: Mapping[str, Study]) -> None:
        """The same, with these studies."""
        self.studies = studies

        def begin(suggestion: Suggestion) -> dict[str, Any]:
            self.begun.append(suggestion)
            return {"trial_id": suggestion.trial.trial_id}

        def skip(group: str, number: int) -> None:
            self.skipped.append((group, number))

        self.searcher = GroupedSearcher(
            Search(
                studies=self.studies,
                samples=self.samples,
                trial_of=self.trial_of,
                outcome_of=self.rows.get,
                begin=begin,
                skip=skip,
                seconds=self.seconds,
            )
        )
        self.running: dict[str, str] = {}
        self.is_finished = False

    def step(self) -> bool:
        """A trial starts, or one ends; False: there is nothing more to do."""
        if not self.is_finished and len(self.running) < self.at_once:
            tune_id = f"tune{len(self.begun)}"
            suggested = self.searcher.suggest(tune_id)
            if suggested == Searcher.FINISHED:
                self.is_finished = True
            else:
                assert suggested["trial_id"] not in self.running.values(), "it is running already"
                assert suggested["trial_id"] not in self.rows, "it has a row"
                self.running[tune_id] = suggested["trial_id"]
                return True
        if not self.running:
            return False
        tune_id = self.chance.choice(sorted(self.running))
        self.end(tune_id)
        return True

    def end(self, tune_id: str) -> None:
        trial_id = self.running.pop(tune_id)
        status = self.chance.choice(["finished", "stopped", "failed", "died"])
        value = self.chance.random()
        if status == "died":  # its row is written a little later
            self.searcher.on_trial_complete(tune_id, error=True)
            self.died += [s.group for s in self.begun if s.trial.trial_id == trial_id]
            self.rows[trial_id] = Outcome("failed", seconds=1.0)
            return
        rungs = [(10, value)] if status == "stopped" else []
        self.rows[trial_id] = Outcome(status, value if status == "finished" else None, rungs, 1.0)
        self.searcher.on_trial_complete(tune_id, {"status": status})

    def counts(self) -> list[int]:
        return [len(study.asked) for study in self.studies.values()]


@given(seed=st.integers(0, 10**6), at_once=st.integers(1, 5), choice=st.booleans())
@settings(max_examples=25)
def test_each_group_gets_its_samples_whatever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, at_once: int, choice: bool
) -> None:
    chance = random.Random(seed)
    sweep = Sweep(tmp_path_factory.mktemp("s"), THREE if choice else ONE, 5, chance, at_once)
    for _ in range(3):
        sweep.start()
        for _ in range(chance.randrange(12)):
            sweep.step()
            assert max(sweep.counts()) - min(sweep.counts()) <= 1  # in turn
    sweep.start()
    while sweep.step():
        pass
    assert sweep.counts() == [5, 5, 5]
    begun = Counter(suggestion.trial.trial_id for suggestion in sweep.begun)
    groups = {s.trial.trial_id: s.group for s in sweep.begun}
    per_group = Counter(groups.values())
    assert begun.keys() == sweep.rows.keys()
    if choice:  # of three values: what is met again is answered from its row
        assert max(per_group.values()) <= 3
    else:
        assert per_group == {"pass": 5, "fixmatch": 5, "freematch": 5}
    for suggestion in sweep.begun:
        assert 0 <= suggestion.number < 5
    # With nothing lost and nothing new, the same again starts nothing.
    sweep.start()
    before = len(sweep.begun)
    assert not sweep.step()
    assert len(sweep.begun) == before
    assert [len(study.known) for study in sweep.studies.values()] == [5, 5, 5]


def test_a_row_that_is_gone_is_run_again_and_counts_once(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, ONE, 4, random.Random(0), 2)
    sweep.start()
    while sweep.step():
        pass
    gone = sorted(sweep.rows)[:3]
    for trial_id in gone:
        del sweep.rows[trial_id]
    sweep.begun.clear()
    sweep.start()
    while sweep.step():
        pass
    assert sorted(suggestion.trial.trial_id for suggestion in sweep.begun) == gone
    assert sweep.counts() == [4, 4, 4]


def test_more_samples_go_on_with_the_same_study(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, ONE, 2, random.Random(0), 2)
    for samples in (2, 5):
        sweep.samples = samples
        sweep.start()
        while sweep.step():
            pass
    assert sweep.counts() == [5, 5, 5]
    assert len(sweep.begun) == 15


@pytest.mark.parametrize("restart", [False, True])
def test_a_group_whose_time_is_up_gets_no_more(tmp_path: Path, restart: bool) -> None:
    """Each trial takes a second, and one that has died, the next command knows of it."""
    sweep = Sweep(tmp_path, ONE, 5, random.Random(2), 1)
    sweep.seconds = 2
    sweep.start()
    while sweep.step():
        if restart:
            for tune_id in list(sweep.running):
                sweep.end(tune_id)
            sweep.start()
    spent = Counter(suggestion.group for suggestion in sweep.begun)
    died = {"pass": 0, "fixmatch": 0, "freematch": 0} | Counter(sweep.died)
    assert spent == {group: 2 + (0 if restart else died[group]) for group in spent}
    assert len(spent) == 3


def test_values_that_exclude_each_other_are_a_failed_sample(tmp_path: Path) -> None:
    """Nesterov's momentum needs a momentum."""
    search = {
        "nesterov": Domain("choice", (True, False)),
        "optimizer_momentum": Domain("choice", (0.0, 0.9)),
    }
    sweep = Sweep(tmp_path, search, 12, random.Random(0), 2)
    sweep.optimizer = "SGD"
    sweep.start()
    while sweep.step():
        pass
    assert sweep.counts() == [12, 12, 12]
    found = {
        (s.trial.config.optimizer.nesterov, s.trial.config.optimizer.optimizer_momentum)
        for s in sweep.begun
    }
    assert found == {(True, 0.9), (False, 0.0), (False, 0.9)}
    assert len(sweep.skipped) + len(sweep.begun) == 36
