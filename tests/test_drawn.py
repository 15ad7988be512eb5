"""Random samples that are started while there is time: nothing but the time decides which there are."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_runner.search.sampling import sample_of
from ssl_runner.tune.drawn import DrawnStudy
from ssl_runner.tune.studies import Values
from tests.test_studies import ONE, Sweep

GROUPS = ("pass", "fixmatch", "freematch")


class DrawnSweep(Sweep):
    """The same with the random searcher, which stores nothing but the rows."""

    def start(self) -> None:
        def study_of(group: str) -> DrawnStudy:
            def has_row(number: int, values: Values) -> bool:
                return self.trial_of(group, number, values).trial_id in self.rows

            return DrawnStudy(self.search, 1000, self.samples, has_row)

        self.start_with({group: study_of(group) for group in GROUPS})


@given(seed=st.integers(0, 10**6), at_once=st.integers(1, 5))
@settings(max_examples=30)
def test_each_group_gets_the_first_samples_whatever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, at_once: int
) -> None:
    chance = random.Random(seed)
    sweep = DrawnSweep(tmp_path_factory.mktemp("s"), ONE, 5, chance, at_once)
    for _ in range(3):
        sweep.start()
        for _ in range(chance.randrange(12)):
            sweep.step()
    sweep.start()
    while sweep.step():
        pass
    wanted = {
        sweep.trial_of(group, n, sample_of(ONE, 1000, n)).trial_id for group in GROUPS for n in range(5)
    }
    assert sweep.rows.keys() == wanted
    for suggestion in sweep.begun:
        values = sample_of(ONE, 1000, suggestion.number)
        assert suggestion.trial == sweep.trial_of(suggestion.group, suggestion.number, values)
    sweep.start()
    before = len(sweep.begun)
    assert not sweep.step()
    assert len(sweep.begun) == before


@pytest.mark.parametrize("restart", [False, True])
def test_a_group_whose_time_is_up_gets_no_more(tmp_path: Path, restart: bool) -> None:
    sweep = DrawnSweep(tmp_path, ONE, 5, random.Random(2), 1)
    sweep.seconds = 2
    sweep.start()
    while sweep.step():
        if restart:
            for tune_id in list(sweep.running):
                sweep.end(tune_id)
            sweep.start()
    spent = Counter(suggestion.group for suggestion in sweep.begun)
    died = dict.fromkeys(GROUPS, 0) | Counter(sweep.died)
    assert spent == {group: 2 + (0 if restart else died[group]) for group in GROUPS}
    # More time, and the same command goes on where it stopped.
    sweep.seconds = None
    sweep.start()
    while sweep.step():
        pass
    assert Counter(suggestion.group for suggestion in sweep.begun) == dict.fromkeys(GROUPS, 5)
