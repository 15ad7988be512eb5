"""The tables that a person reads and fills in, and the pages beside them."""

from collections.abc import Iterable, Sequence

import numpy as np

from ssl_runner.datasets.listing.listing import Part
from ssl_runner.label_next.material import Known, Material
from ssl_runner.labels import UNLABELED
from ssl_runner.predict.answers import Answers
from ssl_runner.report.pictures import Picture, picture
from ssl_runner.selection import Choice

# N = training images, n = chosen images

ON_PAGE = 100
"""So many of the images are shown on the page."""


def csv_of(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table as comma-separated values in UTF-8, texts in quotes where that is needed."""
    lines = [",".join(map(_cell, row)) for row in (header, *rows)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text == text.strip() and not any(sign in text for sign in ',;"\t\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def to_label(material: Material, choice: Choice, answers: Answers) -> bytes:
    """The table to fill in: the images, most wanted first, with an empty column `label`."""
    names = material.dataset.train.class_names
    predicted, confidence = answers.predicted, answers.confidence
    return csv_of(
        (material.key, "label", "rank", "score", "model_says", "confidence"),
        (
            (*_asked(material, choice, n), names[predicted[n]], float(confidence[n]))
            for n in range(len(choice.indices))
        ),
    )


def _asked(material: Material, choice: Choice, n: int) -> tuple[str, str, int, float]:
    """What both tables say of an image: its name, the label to fill in, its rank and score."""
    return material.name_of(int(choice.indices[n])), "", n + 1, float(choice.scores[n])


def pictures_to_label(material: Material, choice: Choice, answers: Answers) -> list[Picture]:
    """The first of the images, with what the models think of each."""
    train = material.dataset.train
    shown = []
    for n, place in enumerate(choice.indices[:ON_PAGE].tolist()):
        chances = answers.probabilities[n]
        likeliest = np.argsort(-chances, kind="stable")[:2]
        thought = " or ".join(f"{train.class_names[k]} ({chances[k]:.0%})" for k in likeliest)
        where = f"{material.key} {material.name_of(place)}"
        text = f"{n + 1}. {thought}; score {choice.scores[n]:.3g}; {where}"
        shown.append(picture(train.images[place], text))
    return shown


def suspected(material: Material, choice: Choice, suggested_n: np.ndarray) -> bytes:
    """The table of suspects, the most contradicted first, with an empty column `label`."""
    train = material.dataset.train
    names = train.class_names
    return csv_of(
        (material.key, "label", "rank", "score", "given", "suggested"),
        (
            (*_asked(material, choice, n), names[train.labels[place]], names[suggested_n[n]])
            for n, place in enumerate(choice.indices.tolist())
        ),
    )


def pictures_of_suspects(material: Material, choice: Choice, suggested_n: np.ndarray) -> list[Picture]:
    """The first of the suspects, with the label each has and the one that the models suggest."""
    train = material.dataset.train
    return [
        picture(
            train.images[place],
            f"{n + 1}. labeled {train.class_names[train.labels[place]]}, rather "
            f"{train.class_names[suggested_n[n]]}; score {choice.scores[n]:.3g}; {material.key} "
            f"{material.name_of(place)}",
        )
        for n, place in enumerate(choice.indices[:ON_PAGE].tolist())
    ]


def labels_table(material: Material, known: Known) -> bytes:
    """The table to train on.

    For files: all of them, with label and part, so that the test images stay the same however many
    labels are added. Else the labels by index, for `--labels-file`.
    """
    names = material.dataset.train.class_names
    if material.key == "index":
        labeled = known.labeled.tolist()
        return csv_of(("index", "label"), ((n, names[known.labels_N[n]]) for n in labeled))
    listing, parts, rows_N = material.listing, material.parts, material.rows_N
    assert listing is not None
    assert parts is not None
    assert rows_N is not None
    labels = list(listing.labels)
    for row, k in zip(rows_N.tolist(), known.labels_N.tolist(), strict=True):
        labels[row] = None if k == UNLABELED else names[k]
    part_of: list[Part] = list(listing.parts or ["train"] * len(labels))
    if listing.parts is None:
        for row in parts.test.tolist():
            part_of[row] = "test"
    return csv_of(
        ("file", "label", "split"),
        (
            (listing.encoded.name_of(row), label or "", part)
            for row, (label, part) in enumerate(zip(labels, part_of, strict=True))
        ),
    )
