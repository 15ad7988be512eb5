"""The images that may be labeled next, what each is called, and which labels are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.given_labels import Key, place_by_index
from ssl_runner.datasets.listing.file_images import FileImages
from ssl_runner.datasets.listing.listing import Listing
from ssl_runner.datasets.listing.parts import Parts
from ssl_runner.datasets.load import list_parts
from ssl_runner.datasets.settings import FileSettings, is_path
from ssl_runner.errors import Described, InputError, require
from ssl_runner.labels import UNLABELED
from ssl_runner.results import ResultsFolder
from ssl_runner.rounds import data_of
from ssl_runner.saved_model import SavedModel, load_model, results_of

# N = training images, n = listed images


@dataclass(frozen=True, eq=False)
class Material:
    """A data set, and what a table calls its training images.

    Attributes:
        dataset: The data set.
        listing: Its files, where it is made of files.
        parts: Which of them goes where.
        rows_N: The listed image behind each training image.
    """

    dataset: ImageDataset
    listing: Listing | None = None
    parts: Parts | None = None
    rows_N: np.ndarray | None = None

    @property
    def key(self) -> Key:
        """Images are known by file, or by file and row, where they have one; else by their index."""
        return "index" if self.listing is None else "file"

    @property
    def can_merge(self) -> bool:
        """Whether labels can be joined: not where images lie in the rows of Parquet files, which no
        table of files names."""
        return self.listing is None or isinstance(self.listing.encoded, FileImages)

    def name_of(self, place: int) -> str:
        """What a table calls a training image."""
        if self.key == "index":
            return str(place)
        assert self.listing is not None
        assert self.rows_N is not None
        return self.listing.encoded.name_of(int(self.rows_N[place]))

    @cached_property
    def place_of(self) -> Callable[[str], int | None]:
        """The inverse of `name_of`; None for what is no training image."""
        if self.key == "index":
            return place_by_index(len(self.dataset.train))
        return {self.name_of(place): place for place in range(len(self.dataset.train))}.get


def load_material(
    name: str, data_dir: Path | None, files: FileSettings, say: Callable[[str], None]
) -> Material:
    """Load a data set, with what its images are called. The arguments are those of `load_dataset`."""
    if not is_path(name):
        return Material(load_dataset(name, data_dir, say, files=files))
    from ssl_runner.datasets.decoded.load_files import listed_rows, load_files

    if data_dir is not None:
        load_dataset(name, data_dir, say, files=files)  # refuses it
    listing, parts = list_parts(name, files, say)
    dataset = load_files(listing, files, parts, say)
    return Material(dataset, listing, parts, listed_rows(dataset, parts))


@dataclass(frozen=True)
class Asked:
    """A model that is asked, and where its trial's row is.

    Attributes:
        name: How it was named.
        saved: The model.
        results: The results folder.
    """

    name: str
    saved: SavedModel
    results: str


def load_models(names: Sequence[str], results: str, trust_code: bool) -> list[Asked]:
    """The models that a command names by file or by trial.

    Raises:
        InputError: If one is no model, or if they take other images or know other classes than the
            first.
    """
    asked = []
    for name in names:
        saved = load_model(name, results=results, trust_code=trust_code)
        asked.append(Asked(name, saved, results_of(name) or results))
    for other in asked[1:]:
        _check_same(other, asked[0].saved.card.image_shape, asked[0].saved.class_names, asked[0].name)
    return asked


def check_fits(asked: Sequence[Asked], dataset: ImageDataset) -> None:
    """Refuse models that take other images or know other classes than a data set has.

    Raises:
        InputError: For the first of them.
    """
    train = dataset.train
    for model in asked:
        _check_same(model, tuple(train.images.shape[1:]), train.class_names, dataset.name)


def _check_same(model: Asked, shape: tuple[int, ...], class_names: tuple[str, ...], whose: str) -> None:
    card = model.saved.card
    fix = "Name models and data of one study."
    named = Described(f"{card.image_shape} for {model.name}")
    rule = f"those of {whose}, {tuple(shape)}"
    require(card.image_shape == tuple(shape), "a model's images (C, H, W)", rule, named, fix)
    rule = f"those of {whose}, {', '.join(class_names[:10])}"
    named = Described(f"{', '.join(card.class_names[:10])} for {model.name}")
    require(card.class_names == class_names, "a model's classes", rule, named, fix)


@dataclass(frozen=True)
class Known:
    """Which labels are known.

    Attributes:
        labels_N: The known classes of the training images, `UNLABELED` elsewhere. No other label of
            the data set is read by who chooses.
        candidates: The training images that may be labeled next, rising.
    """

    labels_N: np.ndarray
    candidates: np.ndarray

    @property
    def labeled(self) -> np.ndarray:
        """The training images whose label is known, rising."""
        return np.flatnonzero(self.labels_N != UNLABELED)


def known_labels(dataset: ImageDataset, asked: Sequence[Asked]) -> Known:
    """The labels of the data set; or, where it has all, those that the models' trials had.

    Raises:
        InputError: If the models' trials have no row, are of other data, or had other labels than each
            other.
    """
    labels_N = dataset.train.labels
    if dataset.has_unlabeled or not asked:
        return Known(labels_N, np.flatnonzero(labels_N == UNLABELED))
    datas = []
    for model in asked:
        card = model.saved.card
        if card.data_digest != dataset.digest:
            raise InputError(
                f"every training image of {dataset.name} has a label, so the model must be of a trial "
                f"on these data (digest {dataset.digest}), got {card.data_digest} for {model.name}. "
                "Name its own data set, with its --labels-file."
            )
        results = ResultsFolder(model.results)
        config = results.config(card.sweep, card.trial_id)
        if config is None:
            raise InputError(
                f"{model.name}: its trial {card.trial_id} must have a row in {model.results}, since it "
                f"says which images of {dataset.name} had no label. Name its results folder: --results."
            )
        datas.append(data_of(card, config, dataset, results))
    if len({data.split_digest for data in datas}) > 1:
        raise InputError(
            f"the models' trials must have had the same labels, got splits "
            f"{', '.join(data.split_digest for data in datas)}. Train them with one --split-seeds."
        )
    return Known(datas[0].targets_N, datas[0].unlabeled)
