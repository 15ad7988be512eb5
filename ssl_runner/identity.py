"""A trial's identity: what decides its outcome, its settings, its data and the user's own code."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl_runner.config import TrialConfig, short_hash
from ssl_runner.datasets.settings import budgets_text
from ssl_runner.errors import InputError
from ssl_runner.imports import source_digests
from ssl_runner.settings import is_import_path


@dataclass(frozen=True)
class Trial:
    """A trial that can be run: its settings, and what else decides its outcome.

    Attributes:
        config: The settings, resolved.
        data_digest: Digest of the data.
        sources: The user's own model and method: `module digest` for each file, sorted, and
            `weights_file digest` where the model starts from one, `foreign_images digest` where the
            unlabeled pool has some of another set; empty where there are none.
        place: What its row says of its place in a search, by column; no part of its identity.
    """

    config: TrialConfig
    data_digest: str
    sources: tuple[str, ...] = ()
    place: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def settings_id(self) -> str:
        """The id of the settings alone."""
        return self.config.settings_id

    @cached_property
    def trial_id(self) -> str:
        """Ten hex digits: equal trials have equal ids on every machine; changed data or code give
        another id."""
        parts = [self.config.identity(), self.data_digest, list(self.sources)]
        return short_hash(parts)

    def plain(self) -> dict[str, Any]:
        """The trial as plain values, as Ray Tune takes them."""
        return {
            "settings": self.config.flat(),
            "data_digest": self.data_digest,
            "sources": list(self.sources),
            "place": dict(self.place),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Trial":
        """The inverse of `plain`."""
        config = TrialConfig.of(**plain["settings"])
        return cls(config, plain["data_digest"], tuple(plain["sources"]), plain["place"])


def rounds_up_to(trial: Trial) -> list[Trial]:
    """The rounds that a trial ends, in order: those that bought its labels, and itself. A trial that
    is no round is alone."""
    budgets = trial.config.data.budgets
    return [
        Trial(
            trial.config.replace(label_budgets=budgets_text(budgets[:count])),
            trial.data_digest,
            trial.sources,
        )
        for count in range(1, len(budgets))
    ] + [trial]


def chains(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials in the order in which they depend on each other: the rounds of one beginning together,
    each other trial by itself; in the order in which they are given."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(rounds_up_to(trial)[0].trial_id, []).append(trial)
    return [sorted(chain, key=lambda trial: len(trial.config.data.budgets)) for chain in found.values()]


def own_code(config: TrialConfig) -> dict[str, str]:
    """The user's own model and method: what each is, by its import path. Their data set is known by
    its content."""
    names = {config.network.model: "model", config.unlabeled.method: "method"}
    return {name: what for name, what in names.items() if is_import_path(name)}


def _digest_of_file(path: str) -> str:
    """Sixteen hex digits of a file's SHA-256.

    Raises:
        InputError: If it can't be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(
            f"weights_file must be a file of weights, got {path!r} ({error.strerror}). Is the path "
            "right, on every machine?"
        ) from None


def identify(
    configs: Sequence[TrialConfig], data_digest: str, foreign: Mapping[str, str] | None = None
) -> list[Trial]:
    """A trial for each config, with what else decides its outcome.

    Args:
        configs: Their settings.
        data_digest: Digest of the data.
        foreign: Digests of the foreign images of each set that they use, by its name.

    Raises:
        InputError: If a model, a method or a file of weights can't be found.
    """
    found: dict[str, tuple[str, ...]] = {}
    trials = []
    for config in configs:
        sources: set[str] = set()
        for path, what in own_code(config).items():
            if path not in found:
                found[path] = source_digests(path, what)
            sources |= set(found[path])
        config = config.resolved()
        if (weights := config.network.weights_file) is not None:
            if weights not in found:
                found[weights] = (f"weights_file {_digest_of_file(weights)}",)
            sources |= set(found[weights])
        if (named := config.pools.foreign_images) is not None:
            sources.add(f"foreign_images {(foreign or {})[named]}")
        trials.append(Trial(config, data_digest, tuple(sorted(sources))))
    return trials
