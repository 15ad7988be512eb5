"""How much sooner does a search with ASHA have a setting that is as good?

python -m experiments.benchmarks.asha            # about 16 minutes on two cores
python -m experiments.benchmarks.asha --short    # a first look: one round of few samples, a minute

A random search with 590 labels and a holdout of 500, without and with `--scheduler asha`, in turns:
the same samples in the same order, other ones in each round. The target of a round is the lower of the
two best holdout accuracies, so both reach it.

- to the target: seconds from Enter, Ray's start included, to the end of the first sample that has it.
- samples: seconds from Enter to the end of the last sample; the finals are left out.
- steps: of all samples together, which other work on the machine does not change.
- best: the best holdout accuracy; and in how many rounds ASHA kept the sample that is the best without.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep

STUDY = """
configs: [partial]
label_fractions: [0.01]
methods: [pass]
order: paired
patience: 0
max_steps: {steps}
holdout: 500
search:
  lr: {{log_uniform: [0.00001, 0.1]}}
  dropout: {{uniform: [0, 0.7]}}
  weight_decay: {{log_uniform: [0.000001, 0.1]}}
samples: {samples}
search_seed: {seed}
objective: accuracy
seeds: [0]
"""

WAYS = {"without": (), "asha": ("--scheduler", "asha", "--reduction", "3")}
"""The rungs are at a 27th of the budget, a ninth and a third: at 30, 90 and 270 steps of 810."""


@dataclass(frozen=True)
class Searched:
    """One search.

    Attributes:
        samples: The rows of its samples.
        began: When Enter was pressed, in seconds since 1970.
    """

    samples: pd.DataFrame
    began: float

    def since(self, moments: pd.Series) -> pd.Series:
        """Seconds from Enter."""
        return moments.map(lambda moment: moment.timestamp() - self.began)

    @property
    def finished(self) -> pd.DataFrame:
        """The samples that were not stopped, the first to end first."""
        return self.samples[self.samples["status"] == "finished"].sort_values("ended_at")

    @property
    def best(self) -> float:
        """The best holdout accuracy."""
        return float(self.finished["validation_accuracy"].max())

    def seconds_to(self, target: float) -> float:
        """Seconds from Enter to the end of the first sample that reaches the target."""
        done = self.finished[self.finished["validation_accuracy"] >= target]
        return float(self.since(done["ended_at"]).iloc[0])

    @property
    def seconds(self) -> float:
        """Seconds from Enter to the end of the last sample."""
        return float(self.since(self.samples["ended_at"]).max())

    @property
    def steps(self) -> int:
        """Steps of all samples."""
        return int(self.samples["steps"].sum())

    @property
    def winner(self) -> str:
        """The trial id of the best sample."""
        ordered = self.finished.sort_values(
            ["validation_accuracy", "trial_id"], ascending=[False, True]
        )
        return str(ordered["trial_id"].iloc[0])


def search(folder: Path, way: str, samples: int, steps: int, seed: int) -> Searched:
    """Run our command."""
    study = folder / f"{way}.yaml"
    study.write_text(STUDY.format(samples=samples, steps=steps, seed=seed))
    grace = ("--grace-steps", str(steps // 27)) if WAYS[way] else ()
    began = time.time()
    _, rows = our_sweep(folder / way, str(study), "--log", *WAYS[way], *grace)
    of_the_search = rows[rows["role"] == "search"]
    assert len(of_the_search) == samples
    return Searched(of_the_search, began)


def shown(values: list[float], digits: int = 0) -> str:
    """The median, and the least and the most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} – {high:,.{digits}f})"


def main() -> None:
    """Search in turns, and print the table."""
    parser = argparse.ArgumentParser(description="How much sooner is a search with ASHA as good?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--steps", type=int, default=810, help="of a sample that is not stopped")
    parser.add_argument("--short", action="store_true", help="one round of 6 samples of 270 steps")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.samples, options.steps = 1, 6, 270
    rounds: list[dict[str, Searched]] = []
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            ways = list(WAYS) if turn % 2 == 0 else list(WAYS)[::-1]
            found = {
                way: search(Path(folder), way, options.samples, options.steps, 1000 + turn)
                for way in ways
            }
        rounds.append(found)
        line = ", ".join(
            f"{way}: {each.steps:,} steps, {each.seconds:.0f} s, best {each.best:.2%}"
            for way, each in found.items()
        )
        print(f"round {turn + 1}: {line}; load {os.getloadavg()[0]:.1f}", flush=True)
    targets = [min(each.best for each in turn.values()) for turn in rounds]
    table = Table(box=MARKDOWN)
    for heading in ("median (least – most)", "to the target, s", "samples, s", "steps", "best, %"):
        table.add_column(heading, justify="left" if heading.startswith("median") else "right")
    for way in WAYS:
        turns = [turn[way] for turn in rounds]
        to_target = [each.seconds_to(target) for each, target in zip(turns, targets, strict=True)]
        table.add_row(
            way,
            shown(to_target),
            shown([each.seconds for each in turns]),
            shown([each.steps for each in turns]),
            shown([100 * each.best for each in turns], 2),
        )
    ratios = [
        [
            turn["without"].seconds_to(target) / turn["asha"].seconds_to(target)
            for turn, target in zip(rounds, targets, strict=True)
        ],
        [turn["without"].seconds / turn["asha"].seconds for turn in rounds],
        [turn["without"].steps / turn["asha"].steps for turn in rounds],
    ]
    table.add_row("without ÷ asha", *(shown(each, 2) for each in ratios), "")
    console = Console(width=104)
    console.print(f"{options.samples} samples of {options.steps} steps, n = {options.rounds} rounds")
    console.print(table)
    same = sum(turn["without"].winner == turn["asha"].winner for turn in rounds)
    console.print(f"the best sample without ASHA is its best too in {same} of {options.rounds} rounds")


if __name__ == "__main__":
    main()
