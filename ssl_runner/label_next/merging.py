"""A table that a person has filled in, joined with the labels that are known."""

from pathlib import Path
from typing import NamedTuple

from ssl_runner.datasets.given_labels import read_labels
from ssl_runner.errors import DataError, InputError, shown
from ssl_runner.label_next.material import Known, Material
from ssl_runner.labels import UNLABELED


class Merged(NamedTuple):
    """Labels after joining.

    Attributes:
        known: All that are known now.
        added: How many images had none before.
        changed: How many had another one.
    """

    known: Known
    added: int
    changed: int


def merge(material: Material, known: Known, filled: Path, replace: bool) -> Merged:
    """Join the labels in a table with those that are known.

    Args:
        material: The data set.
        known: Its labels so far.
        filled: The table, with columns `file` or `index`, and `label`.
        replace: Whether its labels replace known ones.

    Raises:
        DataError: If the table is invalid, has no label, or contradicts a known one.
    """
    if not material.dataset.has_unlabeled and not len(known.candidates) and not replace:
        raise InputError(
            f"{material.dataset.name} must have training images without a label, got none. Name the "
            "model that was asked, whose trial says which labels it had; or correct labels: --replace."
        )
    if material.listing is not None and not material.can_merge:
        raise InputError(
            "--merge must have images in files of their own, or of a data set with a name, got "
            f"{material.listing.name}, with the images inside. Write the labels into its own column."
        )
    names = material.dataset.train.class_names
    given = read_labels(filled, material.key, material.place_of, names)
    if not given:
        raise DataError(f"{filled}: must have labels, got none. Fill in the column label.")
    labels_N = known.labels_N.copy()
    added = changed = 0
    for place, k in given.items():
        before = int(labels_N[place])
        if before not in (UNLABELED, k) and not replace:
            raise DataError(
                f"{filled}: {material.key} {material.name_of(place)} has the label "
                f"{shown(names[before])} already, got {shown(names[k])}. Correct the row, or replace "
                "such labels: --replace."
            )
        added += before == UNLABELED
        changed += before not in (UNLABELED, k)
        labels_N[place] = k
    return Merged(Known(labels_N, known.candidates), added, changed)
