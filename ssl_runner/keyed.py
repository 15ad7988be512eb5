"""Random numbers by key: the same in every process, and independent under different keys."""

import hashlib
from functools import cached_property, lru_cache

import numpy as np

Key = tuple[int, ...]

EXACT_UP_TO = 1 << 22
"""Up to so many entries a permutation is drawn whole, at 4 bytes each; above, it is computed."""

_ROUNDS = 8
_CHUNK = 1 << 14  # positions computed at a time: their intermediate arrays stay in a core's cache

# Two odd multipliers with well-mixed bits: the golden ratio's, and one of SplitMix64's
# (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 13).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def _hash(key: Key) -> bytes:
    """SHA-256 of the key, so that no two keys collide as (seed, epoch + 1) and (seed + 1, epoch) do
    when they are added."""
    return hashlib.sha256(repr(tuple(int(part) for part in key)).encode()).digest()


def generator(key: Key) -> np.random.Generator:
    """A counter-based generator of its own for this key."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_hash(key)[:16], "little")))


def seed_of(key: Key) -> int:
    """A seed in [0, 2**63) for another library's generator."""
    return int.from_bytes(_hash(key)[16:24], "little") >> 1


def _mixed(values: np.ndarray, round_key: np.uint64) -> np.ndarray:
    """A well-mixed 64-bit hash of each value; multiplication wraps around on purpose."""
    mixed = np.asarray((values + round_key) * _GOLDEN)
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX
    mixed ^= mixed >> np.uint64(29)
    return mixed


class Permutation:
    """A permutation of `range(n)`, fixed by its key, that can be asked for anywhere.

    Up to `EXACT_UP_TO` it is drawn exactly. Above that it is a Feistel network over the least
    power of two that holds n, walked along its cycle until it falls below n (Black and Rogaway
    2002, "Ciphers with arbitrary finite domains", section 3): no memory, and a bijection always.

    Args:
        n: Entries, at least 0.
        key: Fixes the permutation, in every process.
    """

    def __init__(self, n: int, key: Key) -> None:
        self.n = n
        self.key = key
        self._chunk_start = 0
        self._chunk = np.empty(0, dtype=np.int64)

    @cached_property
    def _exact(self) -> np.ndarray:
        order = np.arange(self.n, dtype=np.uint32)
        generator(self.key).shuffle(order)
        return order

    @cached_property
    def _round_keys(self) -> np.ndarray:
        return generator(self.key).integers(0, 1 << 64, size=_ROUNDS + 1, dtype=np.uint64)

    def noise(self, numbers: np.ndarray) -> np.ndarray:
        """A random 64-bit number for each of `numbers`, of any values; repeatable, uint64."""
        return _mixed(numbers.astype(np.uint64), self._round_keys[_ROUNDS])

    def _feistel(self, positions: np.ndarray) -> np.ndarray:
        """One pass of the network over its power of two. Each round alters one half by the other."""
        bits = (self.n - 1).bit_length()
        low_bits, high_bits = np.uint64(bits // 2), np.uint64(bits - bits // 2)
        low_shift, high_shift = np.uint64(64) - low_bits, np.uint64(64) - high_bits
        low = positions & ((np.uint64(1) << low_bits) - np.uint64(1))
        high = positions >> low_bits
        for i in range(0, _ROUNDS, 2):
            high ^= _mixed(low, self._round_keys[i]) >> high_shift
            low ^= _mixed(high, self._round_keys[i + 1]) >> low_shift
        return (high << low_bits) | low

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The entries at `positions`, each in [0, n); int64."""
        if self.n <= EXACT_UP_TO:
            return np.asarray(self._exact[positions], dtype=np.int64)
        return self.computed_at(positions)

    def computed_at(self, positions: np.ndarray) -> np.ndarray:
        """The entries at `positions` by the Feistel network, whatever n is (n > 1); int64."""
        entries = self._feistel(positions.astype(np.uint64))
        outside = np.flatnonzero(entries >= self.n)
        while len(outside):
            entries[outside] = self._feistel(entries[outside])
            outside = outside[entries[outside] >= self.n]
        return entries.astype(np.int64)

    def slice(self, start: int, stop: int) -> np.ndarray:
        """The entries from `start` to `stop`, both within [0, n]; int64.

        Above `EXACT_UP_TO` a chunk is computed ahead and kept, so that walking along in small
        steps costs little for each.
        """
        if self.n <= EXACT_UP_TO:
            return self._exact[start:stop].astype(np.int64)
        chunk_stop = self._chunk_start + len(self._chunk)
        if start < self._chunk_start or stop > chunk_stop:
            chunk_stop = min(self.n, max(stop, start + _CHUNK))
            self._chunk_start = start
            self._chunk = self.computed_at(np.arange(start, chunk_stop))
        return self._chunk[start - self._chunk_start : stop - self._chunk_start]


@lru_cache(maxsize=4)
def permutation(n: int, key: Key) -> Permutation:
    """The permutation of this key. The few in use are kept, so that none is drawn twice."""
    return Permutation(n, key)
