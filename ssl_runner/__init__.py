"""How far do the labels go? Full, partial and semi-supervised training, compared on Ray.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_runner.config import SweepConfig as SweepConfig
    from ssl_runner.config import TrialConfig as TrialConfig
    from ssl_runner.sampler import UNLABELED as UNLABELED
    from ssl_runner.sampler import EpochPlan as EpochPlan
    from ssl_runner.sampler import HomogeneousBatchSampler as HomogeneousBatchSampler

__version__ = "0.1.0"

_HOMES = {
    "EpochPlan": "sampler",
    "HomogeneousBatchSampler": "sampler",
    "SweepConfig": "config",
    "TrialConfig": "config",
    "UNLABELED": "sampler",
}

__all__ = ["EpochPlan", "HomogeneousBatchSampler", "SweepConfig", "TrialConfig", "UNLABELED"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
