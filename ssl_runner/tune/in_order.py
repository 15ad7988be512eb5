"""Trials that are known beforehand, given to Ray Tune one after another."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.search.basic_variant import BasicVariantGenerator


class InOrder(BasicVariantGenerator):  # type: ignore[misc]
    """Gives Tune its trials, in their order.

    A grid would do the same, but for each of its trials Tune copies it whole, before the first one
    starts: the time grows with the square of their number, and is minutes for 5,000.

    Args:
        params: What each trial gets as its `trial`.
        max_concurrent: How many may run at a time; 0: as many as there are resources for.
    """

    def __init__(self, params: Sequence[Mapping[str, Any]], max_concurrent: int) -> None:
        super().__init__(max_concurrent=max_concurrent)
        self._params = params

    def add_configurations(self, experiments: Sequence[Any]) -> None:
        """Called by Tune, with one experiment."""
        (experiment,) = experiments
        self._total_samples = len(self._params)
        self._trial_generator = self._trials(experiment.spec)

    def _trials(self, spec: Mapping[str, Any]) -> Iterator[Any]:
        parser = _make_parser()
        for place, param in enumerate(self._params):
            yield _create_trial_from_spec(
                {**spec, "config": {"trial": param}},
                parser,
                evaluated_params={},
                trial_id=f"{self._uuid_prefix}{place:05d}",
                experiment_tag=str(place),
            )

    def save_to_dir(self, dirpath: str, session_str: str) -> None:
        """Nothing: Tune saves it for a restore, which we never use."""
