"""Homogeneous batches for any number of workers: `plan.py` is the epoch as a pure function, without
torch; `walk.py` the batch sampler that cuts out a rank's slices."""

from typing import TYPE_CHECKING

from ssl_runner.lazy import lazy_names

if TYPE_CHECKING:
    from ssl_runner.sampler.plan import LABELED_KIND as LABELED_KIND
    from ssl_runner.sampler.plan import UNLABELED_KIND as UNLABELED_KIND
    from ssl_runner.sampler.plan import Block as Block
    from ssl_runner.sampler.plan import EpochPlan as EpochPlan
    from ssl_runner.sampler.plan import GlobalBatch as GlobalBatch
    from ssl_runner.sampler.plan import Kind as Kind
    from ssl_runner.sampler.plan import Pool as Pool
    from ssl_runner.sampler.plan import share as share
    from ssl_runner.sampler.settings import LastBatch as LastBatch
    from ssl_runner.sampler.settings import Order as Order
    from ssl_runner.sampler.walk import HomogeneousBatchSampler as HomogeneousBatchSampler
    from ssl_runner.sampler.walk import RankBatch as RankBatch

__getattr__ = lazy_names(
    __name__,
    {
        "LABELED_KIND": "plan",
        "UNLABELED_KIND": "plan",
        "Block": "plan",
        "EpochPlan": "plan",
        "GlobalBatch": "plan",
        "HomogeneousBatchSampler": "walk",
        "Kind": "plan",
        "LastBatch": "settings",
        "Order": "settings",
        "Pool": "plan",
        "RankBatch": "walk",
        "share": "plan",
    },
)
