"""From images to a table of answers, and what the labels say of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_runner.errors import DataError
from ssl_runner.labels import UNLABELED
from ssl_runner.predict.answers import answers_of
from ssl_runner.predict.asking import ask
from ssl_runner.predict.images import Images, Wish
from ssl_runner.predict.judging import Judgement, Tally
from ssl_runner.predict.output import Layout, writing
from ssl_runner.saved_model import SavedModel


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        images: How many were answered.
        judgement: What their labels say; None: none is known.
        before: The same without temperatures; None: there are none, or no labels.
    """

    images: int
    judgement: Judgement | None
    before: Judgement | None


def write_answers(
    models: Sequence[SavedModel],
    images: Images,
    wish: Wish,
    output: Path,
    device: torch.device,
    say: Callable[[str], None],
    temperatures: Sequence[float] | None = None,
) -> Written:
    """Ask models about images, and write their answers; memory does not grow with the pixels.

    Args:
        models: On the device, alike (see `check_alike`).
        wish: How the images are wanted.
        output: The table, `.parquet` or `.csv`, there once it is whole.
        say: Called with each line for the user.
        temperatures: What each model's logits are divided by; None: 1.

    Raises:
        InputError: If an image is refused, too many can't be decoded, or the table can't be written.
    """
    class_names = models[0].class_names
    layout = Layout(
        images.column,
        class_names,
        several=len(models) > 1,
        labeled=bool((images.labels_n != UNLABELED).any()),
        said={
            "images": images.name,
            "trials": [saved.card.trial_id for saved in models],
            "temperatures": temperatures,
        },
    )
    tally, before = Tally(len(class_names)), Tally(len(class_names))
    count = 0
    with writing(output, layout.schema) as writer:
        for asked in ask(models, images, wish, device, say):
            answers = answers_of(asked.logits_MbK, temperatures)
            writer.write(layout.table(images.identities(asked.rows_b), asked.labels_b, answers))
            tally.add(asked.labels_b, answers)
            if temperatures is not None:
                before.add(asked.labels_b, answers_of(asked.logits_MbK))
            count += len(asked.rows_b)
        if not count:
            raise DataError(f"{images.name}: there must be an image that can be decoded, got none.")
    return Written(count, tally.judge(), before.judge())
