"""The trials to run, matched with the existing rows: pure functions over both."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from ssl_runner.config import FIELDS, TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.settings import is_import_path


@dataclass(frozen=True)
class KnownTrial:
    """What a row says of its trial's identity, and how it ended.

    Attributes:
        trial_id: As in the table; a row of an older version keeps the id it was given.
        settings_id: The id of its settings, computed from the row's columns.
        data_digest: None: unknown, as in failed rows of older versions.
        sources: As in `Trial`; None: unknown, as for own code in rows of older versions.
        status: `finished` or `failed`.
        ended_at: When it ended.
        bought: Of a round: how many labels it bought for the next.
    """

    trial_id: str
    settings_id: str
    data_digest: str | None
    sources: tuple[str, ...] | None
    status: str
    ended_at: datetime
    bought: int = 0

    def differs(self, trial: Trial) -> str:
        """What differs from a trial of the same settings, in words; empty: nothing does."""
        parts = []
        if self.data_digest not in (None, trial.data_digest):
            parts.append(f"the data (digest {self.data_digest}, now {trial.data_digest})")
        if self.sources is not None and self.sources != trial.sources:
            changed = set(self.sources) ^ set(trial.sources)
            modules = sorted({line.partition(" ")[0] for line in changed})
            parts.append(f"the source of {', '.join(modules)}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Matches:
    """Which trials have a row.

    Attributes:
        rows: The row of each trial that has one, by the trial's id.
        changed: Trials with rows of the same settings, but of another identity: how many, by what
            has changed.
        older: Those rows.
    """

    rows: dict[str, KnownTrial]
    changed: dict[str, int]
    older: list[KnownTrial]

    def status(self, trial: Trial) -> str | None:
        """A trial's status; None: it has no row."""
        row = self.rows.get(trial.trial_id)
        return None if row is None else row.status


def config_of(row: Mapping[str, Any]) -> TrialConfig:
    """A row's settings.

    A setting that the row lacks did not exist when it was written: it has its neutral value. A round's
    label fraction follows from its budget.

    Raises:
        InputError: If this version does not accept them.
    """
    settings = {name: row[name] for name in FIELDS if row.get(name) is not None}
    if "label_budgets" in settings:
        del settings["label_fraction"]
    return TrialConfig.of(**settings)


def settings_id_of(row: Mapping[str, Any]) -> str:
    """The id of a row's settings; empty if this version does not accept them."""
    try:
        return config_of(row).settings_id
    except InputError:
        return ""


def sources_of(row: Mapping[str, Any]) -> str | None:
    """A row's column `sources`; None where it is unknown: own code in a row of an older version."""
    known: str | None = row.get("sources")
    if known is None and not any(map(is_import_path, (row["model"] or "", row["method"] or ""))):
        return ""
    return known


def known_trial(row: Mapping[str, Any]) -> KnownTrial:
    """A row's identity.

    Args:
        row: The columns of `results/trials`, None for those that its version lacks.
    """
    sources = sources_of(row)
    return KnownTrial(
        trial_id=row["trial_id"],
        settings_id=row["settings_id"] or settings_id_of(row),
        data_digest=row["data_digest"],
        sources=None if sources is None else tuple(filter(None, sources.split("; "))),
        status=row["status"],
        ended_at=row["ended_at"],
        bought=len(row.get("next_images") or ()),
    )


def match(trials: Sequence[Trial], known: Iterable[KnownTrial]) -> Matches:
    """Find the row of each trial. If there are several, the newest counts."""
    of_settings: dict[str, list[KnownTrial]] = {}
    for row in sorted(known, key=lambda row: row.ended_at, reverse=True):
        of_settings.setdefault(row.settings_id, []).append(row)
    rows: dict[str, KnownTrial] = {}
    changed: Counter[str] = Counter()
    older = []
    for trial in trials:
        candidates = of_settings.get(trial.settings_id, [])
        same = [row for row in candidates if not row.differs(trial)]
        older += [row for row in candidates if row.differs(trial)]
        # A row that is known to be the same is preferred to one that may be.
        exact = [row for row in same if row.trial_id == trial.trial_id]
        if same:
            rows[trial.trial_id] = (exact or same)[0]
        elif candidates:
            changed[candidates[0].differs(trial)] += 1
    return Matches(rows, dict(changed), older)


def newest(trials: pd.DataFrame) -> pd.DataFrame:
    """Of rows with the same sweep and settings, the one that ended last: the others have older data
    or source code. Of a search all rows of older data or source code are left out: it may have chosen
    other settings then.

    Args:
        trials: Rows as in `results/trials`.
    """
    in_time = trials.sort_values("ended_at", kind="stable", na_position="first")
    last = in_time.drop_duplicates(["sweep", "settings_id"], keep="last")
    searched = in_time[in_time["search_group"].notna()]
    version = searched["data_digest"].fillna("") + " " + searched["sources"].fillna("")
    current = version.groupby([searched["sweep"], searched["search_group"]]).transform("last")
    older = version.index[version != current]
    is_in = trials.index.isin(last.index) & ~trials.index.isin(older)
    return trials.loc[is_in].reset_index(drop=True)
