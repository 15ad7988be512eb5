"""Which trials go on at a rung: one of Ray Tune's schedulers for each group of rivals.

The schedulers judge in an actor that the trials ask, and a trial that may not go on writes its own row
and ends as any other. Ray Tune itself would end it from outside: after two seconds it kills the
process, its row written or not, and the trial that was to reuse the process fails with it; over several
workers it leaves their reservation behind. (Ray 2.60, both seen.)
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import RayError
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

if TYPE_CHECKING:
    from ssl_runner.train import Rungs

Figures = Sequence[Mapping[str, Any]]
"""Of the rungs that a trial has reached, in order: those of `train.values.RUNG`."""

_MOST_STEPS = 10**12


@dataclass(frozen=True)
class Rule:
    """How a group's trials are judged beside each other.

    Attributes:
        scheduler: `asha`: successive halving without waiting, in the variant that stops (Li et al.
            2020, "A System for Massively Parallel Hyperparameter Tuning"): at each rung the best
            1/reduction of those that have reached it so far go on. `median`: whoever at its best is
            worse than the median of the others' averages so far stops (Golovin et al. 2017, "Google
            Vizier", section 3.2.2), once there are three others.
        grace_steps: Steps of the first rung.
        reduction: `asha`: each rung has so many times the steps of the one before. `median` has a rung
            every `grace_steps`.
        objective: `loss` or `accuracy`, of the validation images.
    """

    scheduler: Literal["asha", "median"]
    grace_steps: int
    reduction: float
    objective: Literal["loss", "accuracy"]

    @property
    def steps(self) -> Container[int]:
        """The steps of all rungs."""
        if self.scheduler == "median":
            return range(self.grace_steps, _MOST_STEPS, self.grace_steps)
        return frozenset(
            math.ceil(self.grace_steps * self.reduction**k) for k in range(self._rungs_of_asha)
        )

    @property
    def _rungs_of_asha(self) -> int:
        return 1 + int(math.log(_MOST_STEPS / self.grace_steps, self.reduction))

    def new_scheduler(self) -> TrialScheduler:
        """Ray's scheduler, for one group."""
        metric, mode = f"validation_{self.objective}", "min" if self.objective == "loss" else "max"
        common = {"time_attr": "steps", "metric": metric, "mode": mode}
        if self.scheduler == "median":
            return MedianStoppingRule(**common, grace_period=self.grace_steps)
        return ASHAScheduler(
            **common,
            grace_period=self.grace_steps,
            reduction_factor=self.reduction,
            # Between the last rung and the next, so that rounding neither adds nor takes one.
            max_t=self.grace_steps * self.reduction ** (self._rungs_of_asha - 0.5),
        )


@dataclass(frozen=True)
class _Rival:
    """What Ray's schedulers need to know of a trial."""

    trial_id: str


class _NoController:
    """What they need to know of Ray Tune: that no trial waits for another's place, so that none is
    paused."""

    def get_live_trials(self) -> tuple[()]:
        return ()


class Referee:
    """Says which trials go on. Given the order in which it is asked, its answers are determined.

    Args:
        rule: How it judges.
        known: Group, trial id and figures of trials that have a row.
    """

    def __init__(self, rule: Rule, known: Iterable[tuple[str, str, Figures]] = ()) -> None:
        self._rule, self._steps = rule, rule.steps
        self._schedulers: dict[str, TrialScheduler] = {}
        self._answers: dict[tuple[str, int], bool] = {}
        for group, trial_id, rungs in known:
            self._note(group, trial_id, rungs)

    def goes_on(self, group: str, trial_id: str, rungs: Figures) -> bool:
        """Whether a trial goes on. Asked again about the same rung, it answers the same.

        Args:
            group: Only trials of one group are rivals.
            trial_id: The trial.
            rungs: Those it has reached, the newest last. Earlier ones count too where they are news:
                those of a trial that has resumed.
        """
        *earlier, rung = rungs
        self._note(group, trial_id, earlier)
        place = trial_id, rung["steps"]
        if place not in self._answers:
            self._answers[place] = self._judge(group, trial_id, rung)
        return self._answers[place]

    def _judge(self, group: str, trial_id: str, rung: Mapping[str, Any]) -> bool:
        if not math.isfinite(rung[f"validation_{self._rule.objective}"]):
            return False  # Ray's schedulers let it go on
        scheduler, rival = self._of(group), _Rival(trial_id)
        scheduler.on_trial_add(_NoController(), rival)
        answer = scheduler.on_trial_result(_NoController(), rival, dict(rung))
        return bool(answer == TrialScheduler.CONTINUE)

    def _note(self, group: str, trial_id: str, rungs: Figures) -> None:
        """Count rungs at which a trial went on, or stopped, before."""
        scheduler, rival = self._of(group), _Rival(trial_id)
        for rung in rungs:
            place = trial_id, rung["steps"]
            is_finite = math.isfinite(rung[f"validation_{self._rule.objective}"])
            if rung["steps"] in self._steps and place not in self._answers and is_finite:
                self._answers[place] = True
                scheduler.on_trial_add(_NoController(), rival)
                scheduler.on_trial_complete(_NoController(), rival, dict(rung))

    def _of(self, group: str) -> TrialScheduler:
        if group not in self._schedulers:
            self._schedulers[group] = self._rule.new_scheduler()
        return self._schedulers[group]


@dataclass(frozen=True)
class Judge:
    """How a trial's process asks the referee.

    Attributes:
        rule: How it judges.
        referee: The actor.
    """

    rule: Rule
    referee: Any

    @classmethod
    def start(cls, rule: Rule, known: Iterable[tuple[str, str, Figures]]) -> "Judge":
        """Start the actor; it ends with what holds the `Judge`. The arguments are those of `Referee`.

        If it dies it is started again: a trial that asks tells it all of its own rungs.
        """
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Referee)
        return cls(rule, actor.remote(rule, list(known)))

    def rungs(self, group: str, trial_id: str) -> "Rungs":
        """The rungs of a trial, whose process asks at each of them."""
        from ssl_runner.train import Rungs  # imports torch, which the actor does without

        def goes_on(rungs: Figures) -> bool:
            try:
                return bool(ray.get(self.referee.goes_on.remote(group, trial_id, list(rungs))))
            except RayError as error:  # as when everything ends: no fault of the trial
                raise ConnectionError(f"the scheduler does not answer ({error})") from error

        return Rungs(self.rule.steps, goes_on)
