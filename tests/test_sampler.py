"""The sampler's seven promises (each test says which), over pools, policies, epochs and world sizes.

The unlabeled pools hold negative numbers, so that a batch is pure if all of it has one sign.
"""

import itertools
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

import ssl_runner
from ssl_runner import EpochPlan, HomogeneousBatchSampler, keyed_random
from ssl_runner.image_files import ImageFiles
from ssl_runner.keyed_random import EXACT_UP_TO, Permutation, scattered
from ssl_runner.sampler import (
    LABELED_KIND,
    UNLABELED_KIND,
    LastBatch,
    Order,
    Pool,
    RankBatch,
    share,
)
from ssl_runner.sampler import plan as plan_module
from ssl_runner.testing.processes import Runs

# n = images of a global batch, W = world_size, r = rank, t = step

ROOT = Path(__file__).parent.parent
BILLION = 10**9
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"

examples = settings(max_examples=150, deadline=None, derandomize=True)

ORDERS, LAST_BATCHES = get_args(Order), get_args(LastBatch)
Step = tuple[int, int, list[int]]  # its number, its kind, its global batch


# ---------------------------------------------------------------------------------------------------
# Strategies, and a slow and obvious plan to compare with
# ---------------------------------------------------------------------------------------------------

POOL_FORMS: tuple[Callable[[range], Pool], ...] = (
    lambda pool: pool,
    list,
    tuple,
    np.array,
    lambda pool: np.array(pool, dtype=np.int16),
    lambda pool: np.repeat(pool, 2)[::2],  # a view with a stride
)


@st.composite
def plans(draw: st.DrawFn, orders: Sequence[Order] = ORDERS) -> EpochPlan:
    """Any plan over up to 40 images of each kind."""
    size = st.one_of(st.sampled_from([0, 1, 2]), st.integers(0, 40))
    labeled = range(0, 3 * draw(size), 3)
    unlabeled = range(-1, -1 - draw(size), -1)
    return EpochPlan(
        labeled=draw(st.sampled_from(POOL_FORMS))(labeled),
        unlabeled=draw(st.sampled_from(POOL_FORMS))(unlabeled),
        batch_size=draw(st.one_of(st.integers(1, 9), st.integers(1, 100))),
        seed=draw(st.integers(0, 2**70)),
        epoch=draw(st.integers(0, 1000)),
        order=draw(st.sampled_from(orders)),
        last_batch=draw(st.sampled_from(LAST_BATCHES)),
        mu=draw(st.integers(1, 5)),
    )


world_sizes = st.one_of(st.integers(1, 8), st.integers(9, 70))


def slow_plan(plan: EpochPlan) -> list[tuple[int, list[int]]]:
    """The plan as one would say it: shuffle each pool, deal it out in batches, mix the two kinds."""
    key = (plan.seed, plan.epoch)
    size = plan.batch_size

    def cycle(kind: int, number: int) -> list[tuple[int, list[int]]]:
        pool = list((plan.labeled, plan.unlabeled)[kind])
        images = [
            pool[i] for i in Permutation(len(pool), (*key, kind, number)).at(np.arange(len(pool)))
        ]
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        if batches and len(batches[-1]) < size and plan.last_batch == "drop":
            batches.pop()
        if batches and plan.last_batch == "pad":
            batches[-1] += itertools.islice(itertools.cycle(images), size - len(batches[-1]))
        return [(kind, batch) for batch in batches]

    labeled, unlabeled = cycle(LABELED_KIND, 0), cycle(UNLABELED_KIND, 0)
    both = labeled + unlabeled
    if not labeled or not unlabeled or plan.order == "labeled_first":
        return both
    if plan.order == "shuffle":
        return [both[i] for i in Permutation(len(both), (*key, 2)).at(np.arange(len(both)))]
    if plan.order == "paired":
        again = itertools.chain.from_iterable(cycle(LABELED_KIND, i) for i in itertools.count())
        groups = [unlabeled[i : i + plan.mu] for i in range(0, len(unlabeled), plan.mu)]
        return [step for group in groups for step in (next(again), *group)]
    if len(unlabeled) <= len(labeled):
        stretches, rarer, other = len(unlabeled), iter(unlabeled), iter(labeled)
    else:
        stretches, rarer, other = len(labeled), iter(labeled), iter(unlabeled)
    steps = []
    for k in range(stretches):
        width = sum(int(Fraction(t * stretches, len(both))) == k for t in range(len(both)))
        place = scattered(np.array([k]), np.array([width]), (*key, 2)).item()
        steps += [next(rarer if i == place else other) for i in range(width)]
    return steps


def as_lists(plan: EpochPlan) -> list[tuple[int, list[int]]]:
    return [(batch.kind, batch.indices.tolist()) for batch in plan]


def samplers(plan: EpochPlan, world_size: int, **arguments: Any) -> list[HomogeneousBatchSampler]:
    """One sampler for each rank, of the plan's own arguments."""
    made = [
        HomogeneousBatchSampler(
            plan.labeled,
            plan.unlabeled,
            batch_size=plan.batch_size,
            num_replicas=world_size,
            rank=rank,
            seed=plan.seed,
            order=plan.order,
            last_batch=plan.last_batch,
            mu=plan.mu,
            **arguments,
        )
        for rank in range(world_size)
    ]
    for one in made:
        one.set_epoch(plan.epoch)
    return made


def ranks_together(of_ranks: list[HomogeneousBatchSampler]) -> list[Step]:
    """What all ranks get at each step, filler images left out; fails if a rank has fewer steps."""
    return [
        (
            batches[0].step,
            batches[0].kind,
            list(itertools.chain.from_iterable(batch[: batch.own] for batch in batches)),
        )
        for batches in zip(*of_ranks, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------
# The plan as documentation
# ---------------------------------------------------------------------------------------------------


def written_out(steps: list[tuple[int, list[int]]]) -> str:
    return " | ".join(" ".join(["LU"[kind], *map(str, indices)]) for kind, indices in steps)


@pytest.mark.parametrize(
    ("order", "last_batch", "expected"),
    [
        (
            "labeled_first",
            "partial",
            "L 4 1 3 2 | L 0 5 | U -8 -5 -7 -6 | U -10 -4 -11 -2 | U -9 -1 -3",
        ),
        # The last batches are dropped, or filled up from their pool's beginning.
        ("labeled_first", "drop", "L 4 1 3 2 | U -8 -5 -7 -6 | U -10 -4 -11 -2"),
        (
            "labeled_first",
            "pad",
            "L 4 1 3 2 | L 0 5 4 1 | U -8 -5 -7 -6 | U -10 -4 -11 -2 | U -9 -1 -3 -8",
        ),
        # Two stretches, of three steps and of two, with a labeled batch in each.
        ("interleave", "partial", "U -8 -5 -7 -6 | L 4 1 3 2 | U -10 -4 -11 -2 | U -9 -1 -3 | L 0 5"),
        ("shuffle", "partial", "U -9 -1 -3 | U -10 -4 -11 -2 | L 0 5 | L 4 1 3 2 | U -8 -5 -7 -6"),
        # The labeled pool is through after two batches, and comes again in another order.
        (
            "paired",
            "partial",
            "L 4 1 3 2 | U -8 -5 -7 -6 | L 0 5 | U -10 -4 -11 -2 | L 0 5 2 1 | U -9 -1 -3",
        ),
    ],
)
def test_the_smallest_plans_as_they_stand(order: Order, last_batch: LastBatch, expected: str) -> None:
    plan = EpochPlan(
        labeled=range(6),
        unlabeled=range(-1, -12, -1),
        batch_size=4,
        order=order,
        last_batch=last_batch,
    )
    assert written_out(as_lists(plan)) == expected


@pytest.mark.parametrize(
    ("n", "world_size", "shares"),
    [
        (0, 1, [(0, 0)]),  # an empty batch is shared too
        (0, 3, [(0, 0), (0, 0), (0, 0)]),
        (7, 1, [(0, 7)]),  # a single rank has all of it
        (1, 2, [(0, 0), (0, 1)]),  # n < W: the last rank has the only image
        (2, 3, [(0, 0), (0, 1), (1, 2)]),  # n < W: one rank has none
        (3, 5, [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3)]),  # n < W: the ranks with none are spread out
        (3, 3, [(0, 1), (1, 2), (2, 3)]),  # n = W: an image each
        (6, 3, [(0, 2), (2, 4), (4, 6)]),  # W divides n
        (7, 3, [(0, 2), (2, 4), (4, 7)]),  # a remainder of one: the last rank has one more
        (8, 3, [(0, 2), (2, 5), (5, 8)]),  # a remainder of W - 1: the first rank has one fewer
        (6, 4, [(0, 1), (1, 3), (3, 4), (4, 6)]),  # half a rank too many: every second has one more
        (64, 3, [(0, 21), (21, 42), (42, 64)]),  # the default batch over three ranks
        # Products beyond 64 bits: the arithmetic is exact.
        (2**70, 2, [(0, 2**69), (2**69, 2**70)]),
    ],
)
def test_the_shares_of_a_batch(n: int, world_size: int, shares: list[tuple[int, int]]) -> None:
    assert [share(n, rank, world_size) for rank in range(world_size)] == shares
    if n < 2**63:  # and many batches at once
        starts, stops = zip(*shares, strict=True)
        for rank in range(world_size):
            start, stop = share(np.array([n, n]), rank, world_size)
            assert start.tolist() == [starts[rank]] * 2
            assert stop.tolist() == [stops[rank]] * 2


def test_the_same_plan_over_three_ranks() -> None:
    plan = EpochPlan(labeled=range(6), unlabeled=range(-1, -12, -1), batch_size=4)
    ranks = [[(list(b), b.start, b.own, b.weight) for b in one] for one in samplers(plan, 3)]
    # Weights are W·n_r/n; the last batch has two images for three ranks, and a filler.
    assert ranks[0] == [
        ([-8], 0, 1, 0.75),
        ([4], 0, 1, 0.75),
        ([-10], 0, 1, 0.75),
        ([-9], 0, 1, 1.0),
        ([0], 0, 0, 0.0),
    ]
    assert ranks[1] == [
        ([-5], 1, 1, 0.75),
        ([1], 1, 1, 0.75),
        ([-4], 1, 1, 0.75),
        ([-1], 1, 1, 1.0),
        ([0], 0, 1, 1.5),
    ]
    assert ranks[2] == [
        ([-7, -6], 2, 2, 1.5),
        ([3, 2], 2, 2, 1.5),
        ([-11, -2], 2, 2, 1.5),
        ([-3], 2, 1, 1.0),
        ([5], 1, 1, 1.5),
    ]


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "batch_size", "arguments", "kinds"),
    [
        (0, 0, 4, {}, ""),
        (0, 0, 4, {"last_batch": "pad"}, ""),
        (1, 0, 4, {}, "L"),
        (0, 1, 4, {}, "U"),
        (8, 4, 4, {"order": "labeled_first"}, "LLU"),
        (9, 4, 4, {"order": "labeled_first"}, "LLLU"),
        (3, 3, 4, {"last_batch": "drop"}, ""),  # nothing is left
        (3, 9, 4, {"last_batch": "drop"}, "UU"),
        (3, 9, 4, {"last_batch": "drop", "order": "paired"}, "UU"),  # no labeled batch to pair with
        (3, 0, 10**6, {"last_batch": "pad"}, "L"),  # a pool far smaller than its batch
        (1, 5, 1, {"order": "paired"}, "LULULULULU"),
        (1, 5, 1, {"order": "paired", "mu": 2}, "LUULUULU"),
        (1, 5, 1, {"order": "paired", "mu": 10**18}, "LUUUUU"),
        (5, 1, 1, {"order": "paired"}, "LU"),  # the unlabeled pool is through, and so is the epoch
        (5, 0, 1, {"order": "paired"}, "LLLLL"),  # one kind alone: once through it
        (0, 5, 1, {"order": "paired"}, "UUUUU"),
    ],
)
def test_kinds_at_the_edges(
    labeled: int, unlabeled: int, batch_size: int, arguments: dict[str, Any], kinds: str
) -> None:
    plan = EpochPlan(
        labeled=range(labeled),
        unlabeled=range(-1, -1 - unlabeled, -1),
        batch_size=batch_size,
        **arguments,
    )
    assert "".join("LU"[batch.kind] for batch in plan) == kinds
    assert "".join("LU"[kind] for kind in plan.kinds()) == kinds
    assert len(plan) == len(kinds)


# ---------------------------------------------------------------------------------------------------
# Promises 1 to 4: every index, one kind, any number of ranks, weights
# ---------------------------------------------------------------------------------------------------


@examples
@given(plans())
def test_the_plan_equals_a_slow_and_obvious_one(plan: EpochPlan) -> None:
    expected = slow_plan(plan)
    assert as_lists(plan) == expected
    assert [(plan[t].kind, plan[t].indices.tolist()) for t in range(len(plan))] == expected


@examples
@given(plans(), world_sizes)
def test_promise_1_every_index_comes_once_unless_the_policy_says_otherwise(
    plan: EpochPlan, world_size: int
) -> None:
    seen = ranks_together(samplers(plan, world_size))
    for kind, pool in ((LABELED_KIND, plan.labeled), (UNLABELED_KIND, plan.unlabeled)):
        counts = Counter(i for _, k, indices in seen for i in indices if k == kind)
        batches = sum(k == kind for _, k, _ in seen)
        assert set(counts) <= {int(i) for i in pool}
        if kind == LABELED_KIND and plan.order == "paired" and len(plan.unlabeled):
            continue  # it is started again as often as needed; see below
        if plan.last_batch == "partial":
            assert counts == Counter({int(i): 1 for i in pool})
        elif plan.last_batch == "drop":
            assert set(counts.values()) <= {1}
            assert len(pool) - counts.total() == len(pool) % plan.batch_size
        elif len(pool):  # pad: no image comes twice more often than another
            assert counts.total() == batches * plan.batch_size
            assert 0 <= counts.total() - len(pool) < plan.batch_size
            assert max(counts.values()) - min(counts[int(i)] for i in pool) <= 1


@examples
@given(plans(["paired"]))
def test_promise_1_paired_goes_through_the_labeled_pool_again_and_again(plan: EpochPlan) -> None:
    steps = as_lists(plan)
    labeled = [indices for kind, indices in steps if kind == LABELED_KIND]
    unlabeled = len(steps) - len(labeled)
    once = Counter(i for kind, indices in steps for i in indices if kind == UNLABELED_KIND)
    if plan.last_batch != "pad":
        assert set(once.values()) <= {1}
    if not labeled or not unlabeled:
        return
    assert len(labeled) == -(-unlabeled // plan.mu)
    one = EpochPlan(labeled=plan.labeled, batch_size=plan.batch_size, last_batch=plan.last_batch)
    for first in range(0, len(labeled), len(one)):
        counts = Counter(itertools.chain.from_iterable(labeled[first : first + len(one)]))
        if plan.last_batch != "pad":
            assert max(counts.values()) == 1
        if plan.last_batch != "drop" and first + len(one) <= len(labeled):
            assert set(counts) == {int(i) for i in plan.labeled}


@examples
@given(plans(), world_sizes)
def test_promise_2_at_each_step_all_ranks_have_one_and_the_same_kind(
    plan: EpochPlan, world_size: int
) -> None:
    of_ranks = samplers(plan, world_size)
    assert {len(one) for one in of_ranks} == {len(plan)}
    walks = [list(one) for one in of_ranks]
    assert {len(walk) for walk in walks} == {len(plan)}
    for t, batches in enumerate(zip(*walks, strict=True)):
        assert {(batch.step, batch.kind) for batch in batches} == {(t, plan[t].kind)}
        # Negative numbers are unlabeled.
        assert {i < 0 for batch in batches for i in batch} == {plan[t].kind == UNLABELED_KIND}


@examples
@given(plans(), world_sizes)
def test_promise_3_the_ranks_slices_are_the_global_batch(plan: EpochPlan, world_size: int) -> None:
    of_ranks = samplers(plan, world_size)
    assert ranks_together(of_ranks) == [(t, *step) for t, step in enumerate(as_lists(plan))]
    for rank, one in enumerate(of_ranks):
        for batch in one:
            start, stop = share(batch.size, rank, world_size)
            assert (batch.start, batch.own) == (start, stop - start)
            assert batch.own in (batch.size // world_size, -(-batch.size // world_size))


@examples
@given(plans(), world_sizes)
def test_promise_4_the_weighted_means_average_to_the_global_mean(
    plan: EpochPlan, world_size: int
) -> None:
    for batches in zip(*samplers(plan, world_size), strict=True):
        size = batches[0].size
        assert {batch.size for batch in batches} == {size}
        assert sum(batch.own for batch in batches) == size
        assert sum(batch.weight for batch in batches) == pytest.approx(world_size)
        indices = plan[batches[0].step].indices
        for batch in batches:
            assert batch.weight == world_size * batch.own / size
            # Never an empty batch: a rank without an image has another's, at no weight.
            assert len(batch) == max(batch.own, 1)
            assert list(batch) == indices[batch.start : batch.start + len(batch)].tolist()
        average = np.mean([batch.weight * np.mean(batch) for batch in batches])
        assert average == pytest.approx(indices.mean())


@examples
@given(st.integers(0, 10**6), st.integers(1, 100))
def test_shares_are_even_and_leave_nothing_out(n: int, world_size: int) -> None:
    parts = [share(n, rank, world_size) for rank in range(world_size)]
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == n
    assert {stop - start for start, stop in parts} <= {n // world_size, -(-n // world_size)}


@examples
@given(plans(["interleave"]))
def test_interleave_spreads_both_kinds_evenly(plan: EpochPlan) -> None:
    # Up to any step, each kind has had its share of the steps to within one.
    unlabeled = np.concatenate([[0], np.cumsum(plan.kinds())])
    steps = np.arange(len(unlabeled))
    if len(plan):
        assert np.abs(unlabeled - steps * unlabeled[-1] / len(plan)).max() <= 1


def test_orders_mix_the_kinds_as_they_say() -> None:
    def kinds(order: Order, epoch: int = 0) -> str:
        plan = EpochPlan(
            labeled=range(100), unlabeled=range(-300, 0), batch_size=1, order=order, epoch=epoch
        )
        return "".join("LU"[kind] for kind in plan.kinds())

    assert kinds("labeled_first") == "L" * 100 + "U" * 300
    assert max(map(len, kinds("interleave").split("L"))) <= 6  # unlabeled in a row
    assert max(map(len, kinds("shuffle").split("L"))) > 6
    for order in ("interleave", "shuffle"):
        assert kinds(order, epoch=0) != kinds(order, epoch=1)


def test_the_pools_are_taken_as_they_are() -> None:
    # FixMatch gives its labeled images to the unlabeled pool too; a rare class may stand in it twice.
    plan = EpochPlan(labeled=[1, 2, 2], unlabeled=[1, 2, 3], batch_size=2)
    counts = Counter((kind, i) for kind, indices in as_lists(plan) for i in indices)
    assert counts == Counter({(0, 1): 1, (0, 2): 2, (1, 1): 1, (1, 2): 1, (1, 3): 1})


# ---------------------------------------------------------------------------------------------------
# Promise 5: restoring, over one list of samplers
# ---------------------------------------------------------------------------------------------------

POOLS: dict[str, Any] = {"labeled": range(13), "unlabeled": range(-1, -30, -1), "batch_size": 4}

FACTORIES: dict[str, dict[str, Any]] = {
    "interleave": POOLS,
    "shuffle": POOLS | {"order": "shuffle"},
    "labeled_first": POOLS | {"order": "labeled_first"},
    "paired": POOLS | {"order": "paired"},
    "paired, mu 3": POOLS | {"order": "paired", "mu": 3},
    "drop": POOLS | {"last_batch": "drop"},
    "pad": POOLS | {"last_batch": "pad", "seed": 2**64},
    "skip_unlabeled": POOLS | {"skip_unlabeled": True},
    "skip_unlabeled, shuffle": POOLS | {"skip_unlabeled": True, "order": "shuffle"},
    "labeled only": POOLS | {"unlabeled": ()},
    "unlabeled only": POOLS | {"labeled": []},
    "fewer images than ranks": {"labeled": [7], "unlabeled": [-1, -2], "batch_size": 3},
    "no images": {"labeled": [], "unlabeled": [], "batch_size": 3},
    "arrays": {
        "labeled": np.arange(13, dtype=np.uint16),
        "unlabeled": -1 - np.arange(29),
        "batch_size": np.int64(4),
        "seed": np.uint8(3),
    },
    "orders that are computed": POOLS,  # and not drawn whole, as though the pools were large
    "blocks of a step or two": POOLS,
}

Make = Callable[..., HomogeneousBatchSampler]


def sampler_of(
    name: str, rank: int = 0, num_replicas: int = 1, **changes: Any
) -> HomogeneousBatchSampler:
    arguments = {"rank": rank, "num_replicas": num_replicas} | FACTORIES[name] | changes
    return HomogeneousBatchSampler(**arguments)


@pytest.fixture(params=FACTORIES)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    name: str = request.param
    if name == "orders that are computed":
        monkeypatch.setattr(keyed_random, "EXACT_UP_TO", 0)
    if name == "blocks of a step or two":
        monkeypatch.setattr(plan_module, "_LOOKAHEAD", 5)
        monkeypatch.setattr(plan_module, "_BLOCK", 7)
    return lambda *args, **kwargs: sampler_of(name, *args, **kwargs)


def consume(one: HomogeneousBatchSampler, count: int | None = None) -> list[Step]:
    """Train on the next batches of a single rank, and count them as a trainer does."""
    steps: list[Step] = []
    for batch in itertools.islice(iter(one), count):
        steps.append((batch.step, batch.kind, list(batch)))
        one.step = batch.step + 1
    return steps


def epoch_of(make: Make, epoch: int) -> list[Step]:
    one = make()
    one.set_epoch(epoch)
    return ranks_together([one])


def elsewhere(make: Make, **arguments: Any) -> HomogeneousBatchSampler:
    """A sampler that has been somewhere else, as a state may find it."""
    one = make(**arguments)
    one.set_epoch(7)
    one.step = 2
    next(iter(one), None)
    return one


def test_cut_at_every_step(make: Make) -> None:
    whole = epoch_of(make, 0)
    for cut in range(len(whole) + 1):
        first = make()
        before = consume(first, cut)
        second = elsewhere(make)
        second.load_state_dict(first.state_dict())
        assert len(second) == len(whole) - cut
        assert before + consume(second) == whole
        second.set_epoch(1)
        assert consume(second) == epoch_of(make, 1)


def test_cut_twice(make: Make) -> None:
    whole = epoch_of(make, 3)
    for cut, again in itertools.combinations(range(len(whole) + 1), 2):
        one = make()
        seen: list[Step] = []
        one.set_epoch(3)
        for stop in (cut, again, len(whole)):
            seen += consume(one, stop - len(seen))
            state = one.state_dict()
            one = elsewhere(make)
            one.load_state_dict(state)
        assert seen == whole


def test_cut_at_an_epochs_end_before_and_after_the_next_is_set(make: Make) -> None:
    one = make()
    consume(one)
    at_the_end = one.state_dict()
    one.set_epoch(1)
    at_the_start = one.state_dict()
    for state in (at_the_end, at_the_start):
        other = elsewhere(make)
        other.load_state_dict(state)
        if state is at_the_end:
            assert (other.epoch, list(other)) == (0, [])
        other.set_epoch(1)
        assert consume(other) == epoch_of(make, 1)


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2), (4, 8), (8, 5), (1, 11), (11, 1)]
)
def test_cut_at_one_world_size_and_gone_on_with_at_another(make: Make, before: int, after: int) -> None:
    whole = epoch_of(make, 2)
    for cut in {0, 1, len(whole) // 2, max(0, len(whole) - 1), len(whole)}:
        first = [make(rank=rank, num_replicas=before) for rank in range(before)]
        for one in first:
            one.set_epoch(2)
        seen = ranks_together(first)[:cut]
        for one in first:
            one.step = seen[-1][0] + 1 if seen else 0
        states = [one.state_dict() for one in first]
        assert all(state == states[0] for state in states)  # it knows neither rank nor world size
        second = [elsewhere(make, rank=rank, num_replicas=after) for rank in range(after)]
        for one in second:
            one.load_state_dict(states[0])
        assert seen + ranks_together(second) == whole


def test_the_state_is_plain_and_survives_being_written_out(make: Make, tmp_path: Path) -> None:
    one = make()
    one.set_epoch(4)
    consume(one, 3)
    state = one.state_dict()
    assert set(state) == {"version", "epoch", "step", "fingerprint"}
    torch.save(state, tmp_path / "state.pt")
    for read in (json.loads(json.dumps(state)), torch.load(tmp_path / "state.pt", weights_only=True)):
        assert read == state
        other = make()
        other.load_state_dict(read)
        assert list(other) == list(one)
    # It is a copy: what becomes of it later does not reach the sampler.
    state["fingerprint"]["seed"] = "another"
    assert one.state_dict()["fingerprint"]["seed"] != "another"


def test_asking_for_an_iterator_changes_nothing(make: Make) -> None:
    one = make()
    one.set_epoch(1)
    consume(one, 2)
    before = one.state_dict()
    iterators = [iter(one), iter(one), iter(one)]
    next(iterators[0], None)
    assert one.state_dict() == before
    assert list(iterators[1]) == list(iterators[2]) == list(one)
    assert one.state_dict() == before


def test_an_iterator_stays_in_the_epoch_it_was_asked_for(make: Make) -> None:
    one = make()
    iterator = iter(one)
    one.set_epoch(5)
    one.step = 3
    assert [(batch.step, batch.kind, list(batch)) for batch in iterator] == epoch_of(make, 0)


def test_setting_the_same_epoch_keeps_the_progress_and_another_one_does_not(make: Make) -> None:
    first = make()
    first.set_epoch(2)
    consume(first, 3)
    one = make()
    one.load_state_dict(first.state_dict())
    rest = list(one)
    one.set_epoch(2)
    assert (one.epoch, list(one)) == (2, rest)
    one.set_epoch(3)
    assert (one.step, ranks_together([one])) == (0, epoch_of(make, 3))


def test_the_length_is_what_is_left(make: Make) -> None:
    one = make()
    for step in range(len(one.plan) + 1):
        one.step = step
        assert len(one) == len(list(one))


def test_large_and_small_blocks_make_the_same_plan(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epoch_of(make, 1)
    for lookahead, block in ((1, 1), (3, 100), (1000, 1), (4, 9)):
        monkeypatch.setattr(plan_module, "_LOOKAHEAD", lookahead)
        monkeypatch.setattr(plan_module, "_BLOCK", block)
        assert epoch_of(make, 1) == expected


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 5}, "batch_size was 4 and is 5"),
    ({"seed": 1}, "seed was 0 and is 1"),
    ({"order": "shuffle"}, "order was 'interleave' and is 'shuffle'"),
    ({"last_batch": "pad"}, "last_batch was 'partial' and is 'pad'"),
    ({"mu": 2}, "mu was 1 and is 2"),
    ({"labeled": range(14)}, "labeled was '[0-9a-f]{16}' and is '[0-9a-f]{16}'"),
    ({"labeled": list(reversed(range(13)))}, "labeled was"),  # the same images in another order
    ({"labeled": [*range(12), 99]}, "labeled was"),
    ({"unlabeled": ()}, "unlabeled was"),
    ({"batch_size": 5, "seed": 1}, "batch_size was 4 and is 5; seed was 0 and is 1"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[str(c) for c, _ in CHANGES])
def test_a_state_of_another_plan_is_refused(change: dict[str, Any], message: str) -> None:
    saved = sampler_of("interleave")
    consume(saved, 3)
    other = sampler_of("interleave", **change)
    with pytest.raises(ValueError, match=f"must come from the same plan: {message}.* Restore with"):
        other.load_state_dict(saved.state_dict())
    assert (other.epoch, other.step) == (0, 0)


def test_a_state_of_another_version_is_refused() -> None:
    one = sampler_of("interleave")
    for version in (2, None):
        with pytest.raises(ValueError, match=f"must be of version 1, got {version}"):
            one.load_state_dict(one.state_dict() | {"version": version})


class Echo(Dataset[Any]):
    """Gives the batches back as they reach it, in whichever process that is."""

    def __getitems__(self, batch: RankBatch) -> tuple[RankBatch, int]:
        return batch, os.getpid()


class FileEcho(Echo):
    """The same, having decoded each batch's images: file i holds the number i, as its index says."""

    def __init__(self, folder: Path) -> None:
        count = max(len(POOLS["labeled"]) + len(POOLS["unlabeled"]), 1)
        paths = [folder / f"{i}.png" for i in range(count)]
        for i, path in enumerate(paths):
            Image.new("L", (2, 3), i).save(path)
        self.files = ImageFiles(paths, np.arange(count), pil_to_tensor, mode="L")

    def __getitems__(self, batch: RankBatch) -> tuple[RankBatch, int]:
        loaded = self.files.__getitems__(batch)
        assert loaded.targets.tolist() == [i % len(self.files) for i in batch]
        assert loaded.images.flatten(1).tolist() == [[target] * 6 for target in loaded.targets]
        assert isinstance(loaded.indices, RankBatch)
        return loaded.indices, os.getpid()


ECHOES: dict[str, Callable[[Path], Echo]] = {"indices": lambda folder: Echo(), "files": FileEcho}


def as_it_is(batch: Any) -> Any:
    return batch


def echo_loader(
    echo: Echo, one: HomogeneousBatchSampler, workers: int, persistent: bool
) -> "DataLoader[Any]":
    return DataLoader(
        echo,
        batch_sampler=one,
        collate_fn=as_it_is,
        num_workers=workers,
        persistent_workers=persistent,
    )


# From Python 3.12 on, a fork beside torch's threads draws a warning; a loader forks all the same.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@forks
@pytest.mark.parametrize("loaded", ECHOES)
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_cut_while_a_loader_fetches_ahead(
    make: Make, loaded: str, workers: int, persistent: bool, tmp_path: Path
) -> None:
    echo = ECHOES[loaded](tmp_path)
    whole = epoch_of(make, 0)
    cut = len(whole) // 3
    one = make()
    loader = echo_loader(echo, one, workers, persistent)
    seen: list[Step] = []
    if cut:
        for batch, process in loader:
            assert (process == os.getpid()) == (workers == 0)
            seen.append((batch.step, batch.kind, list(batch)))
            one.step = batch.step + 1
            if len(seen) == cut:
                break
    state = one.state_dict()  # the workers are four batches ahead
    assert state["step"] == (seen[-1][0] + 1 if seen else 0)

    other = elsewhere(make)
    loader = echo_loader(echo, other, workers, persistent)
    other.load_state_dict(state)
    assert len(loader) == len(whole) - cut
    seen += [(batch.step, batch.kind, list(batch)) for batch, _ in loader]
    assert seen == whole
    other.set_epoch(1)  # the loader, and its workers if they persist, go on
    assert [(b.step, b.kind, list(b)) for b, _ in loader] == epoch_of(make, 1)


def test_a_rank_batch_keeps_its_place_through_pickle() -> None:
    for batch in sampler_of("interleave", rank=1, num_replicas=3):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(batch, protocol))
            assert type(again) is RankBatch
            assert again == batch
            for name in ("step", "kind", "size", "start", "own", "weight"):
                assert getattr(again, name) == getattr(batch, name)
                assert type(getattr(again, name)) in (int, float)
        assert all(type(i) is int for i in batch)


# ---------------------------------------------------------------------------------------------------
# Promise 6: seeds and epochs
# ---------------------------------------------------------------------------------------------------


def all_epochs() -> str:
    """Some epochs of all samplers in the list, to be compared between processes."""
    made = []
    for name, epoch in itertools.product(FACTORIES, (0, 1, 9)):
        one = sampler_of(name)
        one.set_epoch(epoch)
        made.append(list(one))
    return json.dumps(made)


def test_promise_6_another_process_makes_the_same_plans() -> None:
    command = [sys.executable, "-c", "from tests.test_sampler import *; print(all_epochs())"]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert printed.stdout.decode().strip() == all_epochs()


@pytest.mark.parametrize("order", ORDERS)
def test_promise_6_seed_and_epoch_are_not_added(order: Order) -> None:
    def plan(seed: int, epoch: int) -> str:
        pools: dict[str, Any] = {"labeled": range(40), "unlabeled": range(-60, 0)}
        return written_out(
            as_lists(EpochPlan(**pools, batch_size=7, order=order, seed=seed, epoch=epoch))
        )

    assert plan(3, 4) == plan(3, 4)
    keys = [*itertools.product(range(6), range(6)), (0, 2**64), (2**64, 0)]
    assert len({plan(seed, epoch) for seed, epoch in keys}) == len(keys)


@examples
@given(plans(), st.integers(0, 40))
def test_promise_6_a_pools_order_does_not_depend_on_the_other_pool(plan: EpochPlan, size: int) -> None:
    if plan.order == "paired":  # how often the labeled pool comes is the other pool's matter
        return
    arguments: dict[str, Any] = {
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "epoch": plan.epoch,
        "last_batch": plan.last_batch,
        "order": "labeled_first",
    }
    alone = {
        LABELED_KIND: EpochPlan(labeled=plan.labeled, unlabeled=range(-size, 0), **arguments),
        UNLABELED_KIND: EpochPlan(labeled=range(size), unlabeled=plan.unlabeled, **arguments),
    }
    for kind, other in alone.items():
        of_kind = [sorted(indices) for k, indices in as_lists(plan) if k == kind]
        expected = [sorted(indices) for k, indices in as_lists(other) if k == kind]
        if plan.order == "shuffle":
            of_kind, expected = sorted(of_kind), sorted(expected)
        assert of_kind == expected


def test_promise_6_two_equal_pools_are_shuffled_differently() -> None:
    plan = EpochPlan(labeled=range(100), unlabeled=range(100), batch_size=100, order="labeled_first")
    labeled, unlabeled = (batch.indices for batch in plan)
    assert abs(np.corrcoef(labeled, unlabeled)[0, 1]) < 0.3
    paired = EpochPlan(labeled=range(100), unlabeled=range(300), batch_size=100, order="paired")
    cycles = [batch.indices for batch in paired if batch.kind == LABELED_KIND]
    assert np.abs(np.corrcoef(cycles) - np.eye(3)).max() < 0.3


# ---------------------------------------------------------------------------------------------------
# Promise 7: any size
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_promise_7_a_billion_can_be_asked_for_anywhere(order: Order) -> None:
    labeled, unlabeled = range(10**7), range(-1, -1 - BILLION, -1)
    plan = EpochPlan(labeled=labeled, unlabeled=unlabeled, batch_size=64, order=order)
    assert len(plan) == (2 * 15_625_000 if order == "paired" else 15_625_000 + 156_250)
    edges = [0, plan_module._LOOKAHEAD - 1, 156_249, 10**7, len(plan) - 3]
    counts: Counter[int] = Counter()
    for t in edges:
        walked = next(plan.walk(t, t + 3))
        for i in range(3):
            kind, indices = plan[t + i]
            assert indices.tolist() == walked.indices[i, : walked.sizes[i]].tolist()
            assert {index < 0 for index in indices.tolist()} == {kind == UNLABELED_KIND}
            assert indices.min() >= -BILLION
            assert indices.max() < 10**7
            counts.update(indices.tolist())
    if order != "paired":  # there, the labeled pool comes more than once
        assert max(counts.values()) == 1
    with pytest.raises(IndexError, match=f"has {len(plan)} steps, and none of number {len(plan)}"):
        plan[len(plan)]


def peak_megabytes(action: Callable[[], Any]) -> float:
    """Most memory that was held at once, by Python and by numpy."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [EXACT_UP_TO, EXACT_UP_TO + 1, BILLION])
def test_promise_7_memory_does_not_grow_with_the_pool(size: int, order: Order) -> None:
    one = HomogeneousBatchSampler(
        range(size // 100),
        range(size // 100, size // 100 + size),
        batch_size=64,
        order=order,
        num_replicas=1,
        rank=0,
    )

    def some_of_it() -> None:
        next(itertools.islice(iter(one), 2000, None))
        one.step = 100
        one.state_dict()
        len(one)

    assert peak_megabytes(some_of_it) < (100 if size == EXACT_UP_TO else 30)


SMALL_PROCESS = """
import itertools, resource
from ssl_runner import HomogeneousBatchSampler
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
sampler = HomogeneousBatchSampler(range(10**7), range(10**7, 10**9 + 10**7), batch_size=64)
for skip in (False, True):
    sampler.skip_unlabeled = skip
    for batch in itertools.islice(sampler, 1000):
        pass
    sampler.load_state_dict(sampler.state_dict())
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_promise_7_a_process_with_a_billion_images_stays_small() -> None:
    command = [sys.executable, "-c", SMALL_PROCESS]
    megabytes = float(subprocess.run(command, capture_output=True, check=True).stdout)
    assert megabytes < 100


def test_promise_7_a_memory_mapped_pool_is_not_read_whole(tmp_path: Path) -> None:
    images = 10 * EXACT_UP_TO
    pool = np.memmap(tmp_path / "pool.u32", dtype=np.uint32, mode="w+", shape=(images,))
    pool[-1] = 7
    pool.flush()
    pool = np.memmap(tmp_path / "pool.u32", dtype=np.uint32, mode="r")
    one = HomogeneousBatchSampler(range(5), pool, batch_size=64, num_replicas=1, rank=0)

    def some_of_it() -> None:
        next(itertools.islice(iter(one), 2000, None))
        one.state_dict()

    assert peak_megabytes(some_of_it) < 30
    numbers = np.memmap(tmp_path / "numbers.i64", dtype=np.int64, mode="w+", shape=(1000,))
    numbers[:] = np.arange(1000) * 3
    mapped = EpochPlan(labeled=numbers, batch_size=64)
    assert as_lists(mapped) == as_lists(EpochPlan(labeled=range(0, 3000, 3), batch_size=64))
    assert mapped.fingerprint() == EpochPlan(labeled=range(0, 3000, 3), batch_size=64).fingerprint()


# ---------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (
            np.array([True, False]),
            r"got bool of shape \(2,\)\. Pass indices, such as numpy.flatnonzero",
        ),
        ([True, False], "got bool"),  # it would be taken for the images 1 and 0
        ([0.5, 1.0], "got float64"),
        (np.array([0.0]), "got float64"),
        ([[1, 2], [3, 4]], r"got int64 of shape \(2, 2\)"),
        (np.array(3), r"got int64 of shape \(\)"),
        (["a"], "got <U1"),
    ],
)
def test_a_pool_that_is_none(pool: Any, message: str) -> None:
    for name in ("labeled", "unlabeled"):
        arguments: dict[str, Any] = {"labeled": [0], "batch_size": 4, name: pool}
        with pytest.raises(
            ValueError, match=f"{name} must be whole numbers in one dimension, {message}"
        ):
            EpochPlan(**arguments)


@pytest.mark.parametrize("pool", [[], (), range(0), np.array([]), np.array([], dtype=bool)])
def test_a_pool_without_images(pool: Any) -> None:
    plan = EpochPlan(labeled=[5], unlabeled=pool, batch_size=4)
    assert as_lists(plan) == [(LABELED_KIND, [5])]
    assert plan.fingerprint() == EpochPlan(labeled=[5], batch_size=4).fingerprint()


def test_one_pool_in_any_form_makes_one_plan() -> None:
    forms: list[Any] = [*(form(range(-7, 60, 3)) for form in POOL_FORMS), torch.arange(-7, 60, 3)]
    made = [EpochPlan(labeled=pool, batch_size=5) for pool in forms]
    assert all(as_lists(plan) == as_lists(made[0]) for plan in made)
    assert all(plan.fingerprint() == made[0].fingerprint() for plan in made)


def test_long_pools_are_told_apart_by_length_and_sample() -> None:
    size = 10 * EXACT_UP_TO
    pools = [range(size), range(1, size + 1), range(size - 1, -1, -1), range(size + 1), range(size + 2)]
    prints = {EpochPlan(labeled=pool, batch_size=5).fingerprint()["labeled"] for pool in pools}
    assert len(prints) == len(pools)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0. Try 1."),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"mu": 0}, "mu must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"order": "sorted"}, "order must be one of interleave, shuffle, labeled_first, paired, got"),
        ({"last_batch": "keep"}, "last_batch must be one of partial, drop, pad, got 'keep'"),
        ({"num_replicas": 0}, "num_replicas must be at least 1, got 0. Try 1."),
        ({"rank": 2, "num_replicas": 2}, r"rank must be in \[0, 2\), got 2. Ranks count from 0."),
        ({"rank": -1}, r"rank must be in \[0, 1\), got -1"),
        (
            {"labeled": range(2**33), "unlabeled": range(2**33), "batch_size": 1},
            "an epoch must have fewer steps, got 17179869184. Raise batch_size.",
        ),
    ],
)
def test_an_argument_out_of_its_range(arguments: dict[str, Any], message: str) -> None:
    arguments = dict[str, Any](labeled=range(9), batch_size=4) | arguments
    with pytest.raises(ValueError, match=message):
        HomogeneousBatchSampler(**arguments)


def test_an_epoch_out_of_its_range() -> None:
    with pytest.raises(ValueError, match="epoch must be a whole number of at least 0, got -1"):
        sampler_of("interleave").set_epoch(-1)


# ---------------------------------------------------------------------------------------------------
# It stands alone
# ---------------------------------------------------------------------------------------------------


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_it_works_in_a_plain_loader_with_an_ordinary_data_set(workers: int) -> None:
    dataset = TensorDataset(torch.arange(100) * 10)
    batch_sampler = ssl_runner.HomogeneousBatchSampler(range(10), range(10, 100), batch_size=8)
    loader = DataLoader(dataset, batch_sampler=batch_sampler, num_workers=workers)
    assert len(loader) == 2 + 12
    seen = []
    for epoch in range(2):
        batch_sampler.set_epoch(epoch)
        for (images,) in loader:
            assert len({bool(image >= 100) for image in images}) == 1
            seen += images.tolist()
            batch_sampler.step += 1
    assert Counter(seen) == Counter({10 * i: 2 for i in range(100)})
    assert seen[:100] != seen[100:]
    assert batch_sampler.state_dict()["step"] == 14


def set_epoch_as_lightning_does(loader: "DataLoader[Any]", epoch: int) -> None:
    """Lightning and Fabric look in two places, neither of which is the batch sampler itself."""
    for found in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        set_epoch = getattr(found, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def set_epoch_of_the_batch_sampler(loader: "DataLoader[Any]", epoch: int) -> None:
    assert isinstance(loader.batch_sampler, HomogeneousBatchSampler)
    loader.batch_sampler.set_epoch(epoch)


@pytest.mark.parametrize("set_epoch", [set_epoch_as_lightning_does, set_epoch_of_the_batch_sampler])
def test_it_works_in_a_loop_that_sets_the_epoch_and_counts_nothing(
    set_epoch: Callable[["DataLoader[Any]", int], None],
) -> None:
    loader = DataLoader(TensorDataset(torch.arange(42)), batch_sampler=sampler_of("labeled only"))
    for epoch in range(3):
        set_epoch(loader, epoch)
        of_loop = [images.tolist() for (images,) in loader]
        assert of_loop == [step[2] for step in epoch_of(lambda: sampler_of("labeled only"), epoch)]


def test_a_process_among_several_must_have_its_group_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "torch.distributed must be initialized .* WORLD_SIZE=2. Call init_process_group first, or"
    incomplete: list[dict[str, Any]] = [{}, {"rank": 0}, {"num_replicas": 2}]
    for arguments in incomplete:
        with pytest.raises(ValueError, match=message):
            HomogeneousBatchSampler(range(9), batch_size=4, **arguments)
    one = HomogeneousBatchSampler(range(9), batch_size=4, rank=1, num_replicas=2)
    assert len(list(one)) == 3
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert HomogeneousBatchSampler(range(9), batch_size=4).num_replicas == 1


PLAIN_SCRIPT = """
import json, os, sys
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset
from ssl_runner import HomogeneousBatchSampler

dist.init_process_group("gloo")
sampler = HomogeneousBatchSampler(range(10), range(10, 60), batch_size=7)
loader = DataLoader(TensorDataset(torch.arange(60)), batch_sampler=sampler)
steps = []
for epoch in range(2):
    sampler.set_epoch(epoch)
    for place, (images,) in zip(sampler, loader, strict=True):
        loss = images.double().mean() * place.weight
        dist.all_reduce(loss)
        steps.append((images[: place.own].tolist(), loss.item() / dist.get_world_size()))
        sampler.step = place.step + 1
with open(sys.argv[1] + os.environ["RANK"], "w") as file:
    json.dump(steps, file)
dist.destroy_process_group()
"""


def test_it_works_in_a_plain_torchrun_script(tmp_path: Path, runs: Runs) -> None:
    script, result = tmp_path / "script.py", tmp_path / "steps_of_rank_"
    script.write_text(PLAIN_SCRIPT)
    launcher = (
        "torch.distributed.run --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0"
    )
    environment = os.environ | {"GLOO_SOCKET_IFNAME": LOOPBACK, "OMP_NUM_THREADS": "1"}
    runs.start(*launcher.split(), str(script), str(result), environment=environment).succeed()
    ranks = [json.loads(Path(f"{result}{rank}").read_text()) for rank in range(2)]
    plans = [
        EpochPlan(labeled=range(10), unlabeled=range(10, 60), batch_size=7, epoch=e) for e in (0, 1)
    ]
    steps = [indices for plan in plans for _, indices in as_lists(plan)]
    assert any(len(indices) == 1 for indices in steps)  # one rank has a filler
    for (one, loss), (other, loss_of_other), indices in zip(*ranks, steps, strict=True):
        assert one + other == indices
        assert loss == loss_of_other == pytest.approx(np.mean(indices))
