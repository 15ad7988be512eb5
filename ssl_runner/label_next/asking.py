"""The choice of images to label next, by what models answer to them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ssl_runner.asking import Advance, answers_to, choose_by_asking, in_full
from ssl_runner.errors import InputError, did_you_mean, require
from ssl_runner.label_next.material import Known
from ssl_runner.predict.answers import Answers, answers_of
from ssl_runner.saved_model import SavedModel
from ssl_runner.selection import STRATEGIES, Choice
from ssl_runner.selection.uncertainty import Measure

# n = chosen images, K = classes


@dataclass(frozen=True)
class Question:
    """How to choose.

    Attributes:
        strategy: A name of `STRATEGIES`.
        number: Images to choose.
        seed: Fixes what is random.
        measure: How disagreement is measured.
    """

    strategy: str = "margin"
    number: int = 500
    seed: int = 0
    measure: Measure = "bald"


def check_question(question: Question, models: int) -> None:
    """Refuse what can be seen to be wrong before any data are read.

    Raises:
        InputError: If there is no such strategy, no image is asked for, or the number of models does
            not suit the strategy.
    """
    strategy = question.strategy
    hint = did_you_mean(strategy, STRATEGIES)
    known = f"one of {', '.join(STRATEGIES)}"
    require(strategy in STRATEGIES, "--strategy", known, strategy, hint)
    require(question.number >= 1, "--number", "at least 1", question.number, "Try 500.")
    require(question.seed >= 0, "--seed", "at least 0", question.seed, "Try 0.")
    require(models >= 1, "the models", "one or several", models, "Name a file of results/models.")
    needs = STRATEGIES[strategy].needs
    fix = "Name models of several seeds, or choose by margin."
    require(needs != "models" or models > 1, f"the models of {strategy}", "several", models, fix)
    fix = "Name one of them, or choose by disagreement."
    require(needs != "features" or models == 1, f"the models of {strategy}", "one", models, fix)


def check_candidates(question: Question, known: Known, name: str) -> None:
    """Refuse to choose more images than there are.

    Raises:
        InputError: If there are fewer without a label, or none.
    """
    there = len(known.candidates)
    if not there:
        raise InputError(
            f"{name} must have training images without a label, got none. Add images to it, or name a "
            "model of a trial with a label fraction below 1."
        )
    rule = f"at most {there}, the training images of {name} without a label"
    require(question.number <= there, "--number", rule, question.number, f"Try {there}.")


def ask(
    models: Sequence[SavedModel], images_NCHW: np.ndarray, known: Known, question: Question
) -> tuple[Choice, Answers]:
    """Choose images to label next.

    Args:
        models: One or several.
        images_NCHW: All training images, uint8; they may be a map of a file.
        known: Which labels are known: of these only which images have one is looked at.
        question: How to choose.

    Returns:
        The choice, in training images; and what the models answer to each of the chosen ones.
    """
    strategy, needs = question.strategy, STRATEGIES[question.strategy].needs
    models = [in_full(model) for model in models]
    asked = len(models) * len(known.candidates)
    if needs == "features":
        asked += len(known.labeled)
    with progress("features" if needs == "features" else "answers", asked) as advance:
        choice = choose_by_asking(
            models,
            images_NCHW,
            strategy,
            question.number,
            labeled=known.labeled,
            candidates=known.candidates,
            seed=question.seed,
            measure=question.measure,
            advance=advance,
        )
    return choice, _answers(models, images_NCHW, choice.indices)


def _answers(models: Sequence[SavedModel], images_NCHW: np.ndarray, places_n: np.ndarray) -> Answers:
    with progress("answers", len(models) * len(places_n)) as advance:
        return answers_of([answers_to(model, images_NCHW, places_n, advance) for model in models])


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A bar for so many images, on a terminal; it goes when they are done."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
