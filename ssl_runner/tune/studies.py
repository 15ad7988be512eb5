"""A group's samples from Optuna, through Ray Tune's own integration: one study for each group.

The studies are in a journal, a file that is only ever appended to. A kill may leave its last line cut,
and samples that nobody will answer: both are put right when it is opened again.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_runner.errors import InputError
from ssl_runner.keyed_random import seed_of
from ssl_runner.search.domains import REAL_KINDS, Domain, Value, canonical

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

Values = Mapping[str, Value]
"""The searched settings of a sample."""

_METRIC, _STEP = "objective", "training_iteration"  # the latter is OptunaSearch's
_REPLACES = "replaces"


@dataclass(frozen=True)
class Outcome:
    """What a sample's trial has come to.

    Attributes:
        status: `finished`, `stopped` or `failed`.
        value: The objective, if it finished.
        rungs: Steps and objective where a scheduler judged it, in order.
        seconds: How long it took.
    """

    status: str
    value: float | None = None
    rungs: Sequence[tuple[int, float]] = ()
    seconds: float = 0.0


def open_journal(path: Path) -> "BaseStorage":
    """The storage of a sweep's studies, in a file; whoever calls this holds the sweep's lock.

    Raises:
        InputError: If the file is something else.
    """
    import optuna  # an extra, and seconds of imports
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{path.name}.lock*"):  # by a process that was killed meanwhile
        left.unlink()
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
    try:
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path}: not a journal of Optuna's studies ({error}). Move it elsewhere; samples with a "
            "row are not run again."
        ) from None


class GroupStudy:
    """The samples of one group: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    Args:
        name: The study's name: equal names go on with the same study.
        search: What each setting is drawn from; empty: all samples are the same.
        objective: What is best: the lowest loss or the highest accuracy.
        storage: From `open_journal`.
        seed: Fixes the samples, if each is answered before the next is asked for, and nothing is
            resumed: a new process draws other numbers, and not those of the first samples again.

    Attributes:
        asked: The values of each sample so far, by its number, those of earlier processes included.
        known: Those that earlier processes have answered.
    """

    def __init__(
        self,
        name: str,
        search: Mapping[str, Domain],
        objective: Literal["loss", "accuracy"],
        storage: "BaseStorage",
        seed: int,
    ) -> None:
        self._search = search
        self.asked: dict[int, Values] = {}
        self.known: dict[int, Values] = {}
        self._waiting: list[int] = []
        self._optuna = self._open(name, objective, storage, seed) if search else None

    def _open(
        self, name: str, objective: Literal["loss", "accuracy"], storage: "BaseStorage", seed: int
    ) -> Any:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize" if objective == "loss" else "maximize",
            load_if_exists=True,
        )
        self._resume(study)
        sampler = optuna.samplers.TPESampler(seed=seed_of((seed, len(study.trials))) % 2**32)
        return OptunaSearch(
            space=_distributions(self._search),
            metric=_METRIC,
            mode="min" if objective == "loss" else "max",
            storage=storage,
            study_name=name,
            sampler=sampler,
        )

    def _resume(self, study: "Study") -> None:
        """Find the samples of earlier processes; those that were not answered are to be asked for
        again before any new one. Optuna does so with samples in a queue, which are new trials to it.
        """
        from optuna.trial import TrialState

        trials = study.get_trials()
        replaced = {trial.user_attrs.get(_REPLACES) for trial in trials}
        numbers: dict[int, int] = {}
        again: list[tuple[int, dict[str, Any], int]] = []
        for trial in trials:
            is_waiting, is_running = (
                trial.state == state for state in (TrialState.WAITING, TrialState.RUNNING)
            )
            # One from the queue has them from the start: it may have been cut before it took them over.
            values = trial.system_attrs.get("fixed_params", trial.params)
            if values.keys() == self._search.keys():
                number = numbers.get(trial.user_attrs.get(_REPLACES, -1), len(self.asked))
                numbers[trial.number] = number
                self.asked[number] = self._rounded(values)
                if is_waiting:
                    self._waiting.append(number)
                elif is_running and trial.number not in replaced:
                    again.append((number, values, trial.number))
                elif not is_running and trial.state != TrialState.FAIL:
                    self.known[number] = self.asked[number]
        # Queued before it is given up: a kill in between loses nothing, and is seen by `replaced`.
        for number, values, old in again:
            study.enqueue_trial(values, user_attrs={_REPLACES: old})
            self._waiting.append(number)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)

    @property
    def is_waiting(self) -> bool:
        """Whether the next sample is one that an earlier process asked for."""
        return bool(self._waiting)

    def ask(self) -> tuple[int, Values]:
        """The next sample: its number, and the values of its settings."""
        number = self._waiting.pop(0) if self._waiting else len(self.asked)
        suggested = {} if self._optuna is None else self._optuna.suggest(str(number))
        self.asked[number] = self._rounded(suggested)
        return number, self.asked[number]

    def tell(self, number: int, outcome: Outcome) -> None:
        """Answer a sample. One that failed counts as worse than all others, one that was stopped as
        worse than those that came further; by its figure there among those that came as far."""
        if self._optuna is None:
            return
        if outcome.status != "failed":
            for steps, value in outcome.rungs:
                self._optuna.on_trial_result(str(number), {_METRIC: value, _STEP: steps})
        is_finished = outcome.status == "finished"
        self._optuna.on_trial_complete(str(number), {_METRIC: outcome.value} if is_finished else None)

    def _rounded(self, values: Mapping[str, Any]) -> Values:
        """Real numbers as the random searcher has them: with six significant digits."""
        return {name: _within(domain, values[name]) for name, domain in self._search.items()}


def _within(domain: Domain, value: Any) -> Value:
    if domain.kind not in REAL_KINDS:
        rounded: Value = value
        return rounded
    low, high = (float(end) for end in domain.values)  # type: ignore[arg-type]
    return min(max(canonical(value), low), high)


def _distributions(search: Mapping[str, Domain]) -> dict[str, "BaseDistribution"]:
    """The domains as Optuna has them."""
    from optuna import distributions

    made: dict[str, BaseDistribution] = {}
    for name, domain in search.items():
        if domain.kind == "choice":
            made[name] = distributions.CategoricalDistribution(domain.values)
            continue
        low, high, is_log = *domain.values, domain.kind.startswith("log")
        if domain.kind in REAL_KINDS:
            made[name] = distributions.FloatDistribution(float(low), float(high), log=is_log)  # type: ignore[arg-type]
        else:
            made[name] = distributions.IntDistribution(int(low), int(high), log=is_log)  # type: ignore[arg-type]
    return made
