"""How far do the labels go? Full, partial and semi-supervised training, compared on Ray.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.config import SweepConfig as SweepConfig
    from ssl_runner.config import TrialConfig as TrialConfig
    from ssl_runner.labels import UNLABELED as UNLABELED
    from ssl_runner.sampler.plan import EpochPlan as EpochPlan
    from ssl_runner.sampler.walk import HomogeneousBatchSampler as HomogeneousBatchSampler
    from ssl_runner.saved_model import load_model as load_model

__version__ = "0.1.0"

__getattr__ = lazy_names(
    __name__,
    {
        "EpochPlan": "sampler.plan",
        "HomogeneousBatchSampler": "sampler.walk",
        "SweepConfig": "config",
        "TrialConfig": "config",
        "UNLABELED": "labels",
        "load_model": "saved_model",
    },
)
