"""Permutations and generators by key: exact, well shuffled, and never shared by two keys."""

import itertools

import numpy as np
import pytest

from ssl_runner import keyed_random
from ssl_runner.keyed_random import EXACT_UP_TO, Permutation, generator, scattered, seed_of

# n = entries of a permutation

BINS = 32


def assert_permutation(entries: np.ndarray) -> None:
    assert np.array_equal(np.sort(entries), np.arange(len(entries)))


def excess(counts: np.ndarray) -> float:
    """Pearson's chi-square of a table against equal counts everywhere, in standard deviations of the
    normal variable that its cube root nearly is (Wilson and Hilferty 1931)."""
    statistic = float(((counts - counts.mean()) ** 2).sum() / counts.mean())
    freedom = counts.size - 1
    scale = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - scale)) / scale**0.5)


def together(one: np.ndarray, one_below: int, other: np.ndarray, other_below: int) -> np.ndarray:
    """How often the values of each of 32 equal ranges meet those of each other one; (32, 32)."""
    pairs = one * BINS // one_below * BINS + other * BINS // other_below
    return np.bincount(pairs, minlength=BINS * BINS).reshape(BINS, BINS).astype(float)


def suspicions(order: np.ndarray, next_order: np.ndarray, n: int) -> dict[str, float]:
    """What a bad shuffle would show, each in standard deviations.

    Args:
        order: Entries at consecutive positions, each in [0, n).
        next_order: Entries at the same positions under another key.
    """
    place = np.arange(len(order))
    step = (order[1:] - order[:-1]) % n
    return {
        "entry by position": excess(together(place, len(order), order, n)),
        "neighbors": excess(together(order[:-1], n, order[1:], n)),
        "next but one": excess(together(order[:-2], n, order[2:], n)),
        "lower bits of neighbors": excess(together(order[:-1] % BINS, BINS, order[1:] % BINS, BINS)),
        "lower bits by position": excess(together(place % BINS, BINS, order % BINS, BINS)),
        "half a chunk apart": excess(together(order[:-4096], n, order[4096:], n)),
        "steps up and down": excess(together(place[:-1], len(step), step, n)),
        "another key": excess(together(order, n, next_order, n)),
    }


def test_the_smallest_permutations_as_they_stand() -> None:
    # A training that was cut under one release goes on under the next: these must never change.
    positions = np.arange(10)
    assert Permutation(10, (0, 0)).at(positions).tolist() == [8, 4, 1, 0, 9, 5, 2, 6, 3, 7]
    assert Permutation(10, (0, 1)).at(positions).tolist() == [9, 4, 0, 3, 7, 5, 6, 8, 1, 2]
    assert Permutation(10, (0, 0)).computed_at(positions).tolist() == [3, 7, 6, 0, 5, 1, 9, 2, 4, 8]
    assert Permutation(10**9, (0, 0)).at(positions[:3]).tolist() == [658406814, 251215128, 9041922]
    assert scattered(positions, np.full(10, 5), (0,)).tolist() == [3, 2, 2, 1, 3, 2, 0, 4, 4, 2]
    assert seed_of((0, 0)) == 1119356512601718041


@pytest.mark.parametrize("key", [(0,), (1, 2, 3)])
def test_the_drawn_permutation_is_one_for_every_small_n(key: tuple[int, ...]) -> None:
    for n in range(2000):
        assert_permutation(Permutation(n, key).at(np.arange(n)))


def test_the_computed_permutation_is_one_for_every_small_n() -> None:
    for n in range(1, 2001):
        assert_permutation(Permutation(n, (n,)).computed_at(np.arange(n)))
    for n, key in itertools.product(range(1, 70), range(5)):
        assert_permutation(Permutation(n, (key, 1)).computed_at(np.arange(n)))


@pytest.mark.parametrize("bits", range(11, 19))
def test_the_computed_permutation_is_one_around_the_powers_of_two(bits: int) -> None:
    for n in (2**bits - 1, 2**bits, 2**bits + 1):
        assert_permutation(Permutation(n, (7,)).computed_at(np.arange(n)))


def test_both_ways_meet_at_the_threshold() -> None:
    for n in (EXACT_UP_TO, EXACT_UP_TO + 1):
        order = Permutation(n, (7,))
        entries = order.at(np.arange(n))
        assert (np.bincount(entries, minlength=n) == 1).all()
        assert ("_exact" in vars(order)) == (n == EXACT_UP_TO)


@pytest.mark.parametrize("n", [1000, EXACT_UP_TO + 1, 10**9, 2**40 + 1, 2**62])
def test_it_can_be_asked_for_anywhere(n: int) -> None:
    order = Permutation(n, (5, 6))
    positions = np.concatenate([np.arange(100), n - 1 - np.arange(100), [n // 2, n // 2]])
    entries = order.at(positions)
    assert entries.dtype == np.int64
    assert entries.min() >= 0
    assert entries.max() < n
    assert len(np.unique(entries)) == len(positions) - 1  # one position was asked for twice
    assert [order.at(np.array([p])).item() for p in positions] == entries.tolist()
    assert np.array_equal(order.at(positions.reshape(2, -1)), entries.reshape(2, -1))
    assert np.array_equal(Permutation(n, (5, 6)).at(positions), entries)
    assert not np.array_equal(Permutation(n, (5, 7)).at(positions), entries)


@pytest.mark.parametrize("n", [70_000, EXACT_UP_TO, 3 << 21, 10**8, 10**9, 10**12])
@pytest.mark.parametrize("key", [(0, 0), (12345, 67)])
def test_it_shuffles_well(n: int, key: tuple[int, int]) -> None:
    start = n // 3 if n > 10**6 else 0
    positions = np.arange(start, min(n, start + (1 << 18)))
    order, next_order = (Permutation(n, (key[0], key[1] + e)).at(positions) for e in (0, 1))
    found = suspicions(order, next_order, n)
    assert max(found.values()) < 4.5, found  # one in three hundred thousand, of 96 figures


def test_the_computed_one_shuffles_a_small_pool_as_well_as_a_drawn_one() -> None:
    # Every entry comes at every position equally often, over many keys.
    n, keys = 37, 3000
    counts = np.zeros((2, n, n))
    for key in range(keys):
        order = Permutation(n, (key,))
        counts[0, np.arange(n), order.at(np.arange(n))] += 1
        counts[1, np.arange(n), order.computed_at(np.arange(n))] += 1
    assert excess(counts[0]) < 4.5
    assert excess(counts[1]) < 4.5


@pytest.mark.parametrize(
    "bad", ["as they come", "evenly spaced", "chunks as they come", "two rounds of the network"]
)
def test_a_bad_shuffle_would_be_noticed(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 10**8
    positions = np.arange(1 << 18)
    if bad == "as they come":
        order = positions * (n // len(positions))
    elif bad == "evenly spaced":
        order = positions * 61_803_399 % n
    elif bad == "chunks as they come":
        order = positions // 64 * 64 * (n >> 18) + generator((1,)).permutation(64)[positions % 64]
    else:
        monkeypatch.setattr(keyed_random, "_ROUNDS", 2)
        order = Permutation(n, (0,)).at(positions)
    assert max(suspicions(order, generator((2,)).permutation(order), n).values()) > 10


def test_no_two_keys_share_a_stream() -> None:
    keys: list[tuple[int, ...]] = [
        *itertools.product(range(12), range(12), range(3)),
        (1, 23),
        (12, 3),
        (123,),
        (),
    ]
    assert len({generator(key).integers(1 << 63) for key in keys}) == len(keys)
    assert len({seed_of(key) for key in keys}) == len(keys)
    assert all(0 <= seed_of(key) < 2**63 for key in keys)
    # Neighbors in each part of the key are as good as any.
    draws = np.array([generator(key).random(4000) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]])
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 4.5 / 4000**0.5


def test_a_key_is_its_numbers_whatever_their_type() -> None:
    assert seed_of(tuple(np.array([3, 4], dtype=np.uint8))) == seed_of((3, 4))
    assert seed_of((2**100, 1)) != seed_of((2**100 + 1, 1))


def test_scattered_numbers_are_even_and_can_be_asked_for_again() -> None:
    numbers = np.arange(100_000)
    for width in (1, 2, 7, 100, 12345):
        places = scattered(numbers, np.full(len(numbers), width), (3, width))
        assert places.min() >= 0
        assert places.max() < width
        assert np.array_equal(
            scattered(numbers[500:600], np.full(100, width), (3, width)), places[500:600]
        )
    widths = np.full(len(numbers), BINS)
    places, others = scattered(numbers, widths, (3,)), scattered(numbers, widths, (4,))
    assert excess(together(numbers, len(numbers), places, BINS)) < 4.5
    assert excess(together(places[:-1], BINS, places[1:], BINS)) < 4.5
    assert excess(together(places, BINS, others, BINS)) < 4.5
