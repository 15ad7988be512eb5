"""Random numbers by key: the same in every process, and independent under different keys."""

import hashlib
from functools import cached_property

import numpy as np

Key = tuple[int, ...]

EXACT_UP_TO = 1 << 22
"""A permutation of at most so many entries is stored, at 4 bytes each; a longer one is computed."""

_ROUNDS = 8

# Two odd multipliers with well-mixed bits: a prime by the golden ratio (Knuth, "The art of computer
# programming", volume 3, section 6.4), and one of lowbias32 (Wellons 2018, "Prospecting for hash
# functions").
_GOLDEN = np.uint32(0x9E3779B1)
_MIX = np.uint32(0x846CA68B)


def _hash(key: Key) -> bytes:
    """SHA-256 of the key, so that no two keys collide as (seed, epoch + 1) and (seed + 1, epoch) do
    when they are added."""
    return hashlib.sha256(repr(tuple(int(part) for part in key)).encode()).digest()


def _philox(key: Key) -> np.random.Philox:
    return np.random.Philox(key=int.from_bytes(_hash(key)[:16], "little"))


def generator(key: Key) -> np.random.Generator:
    """A counter-based generator of its own for this key."""
    return np.random.Generator(_philox(key))


def seed_of(key: Key) -> int:
    """A seed in [0, 2**63) for another library's generator."""
    return int.from_bytes(_hash(key)[16:24], "little") >> 1


def _mixed(values: np.ndarray, round_key: np.uint32) -> np.ndarray:
    """A hash of each value, well mixed in its upper bits; it wraps around on purpose."""
    mixed = (values + round_key) * _GOLDEN
    mixed ^= mixed >> np.uint32(16)
    mixed *= _MIX
    return mixed


def scattered(numbers: np.ndarray, widths: np.ndarray, key: Key) -> np.ndarray:
    """A random number in [0, width) for each of `numbers`, the same at every call; int64."""
    first, second = _philox(key).random_raw(2).astype(np.uint32)
    noise = _mixed(_mixed(numbers.astype(np.uint32), first), second)
    return ((noise * widths.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


class Permutation:
    """A permutation of `range(n)`, fixed by its key, with random access.

    Up to `EXACT_UP_TO` it is drawn exactly. Above that it is a Feistel network over the least
    power of two that holds n, walked along its cycle until it falls below n (Black and Rogaway
    2002, "Ciphers with arbitrary finite domains", section 3): no memory, and always a bijection.

    Both use only a generator's raw words, which NumPy promises not to change (NEP 19), so that a
    trial resumes in the same order under another NumPy release.

    Args:
        n: Entries, at least 0.
        key: Fixes the permutation, in every process.
    """

    def __init__(self, n: int, key: Key) -> None:
        self.n = n
        self.key = key

    @cached_property
    def _exact(self) -> np.ndarray:
        """Every number with random bits before it, sorted: faster than swapping entries."""
        bits = np.uint64(max(self.n - 1, 0).bit_length())
        words = np.random.PCG64DXSM(int.from_bytes(_hash(self.key), "little")).random_raw(self.n)
        words <<= bits
        words |= np.arange(self.n, dtype=np.uint64)
        words.sort()
        words &= (np.uint64(1) << bits) - np.uint64(1)
        return words.astype(np.uint32)

    @cached_property
    def _round_keys(self) -> np.ndarray:
        return _philox(self.key).random_raw(_ROUNDS).astype(np.uint32)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The entries at `positions`, each in [0, n); int64, of the same shape."""
        if self.n <= EXACT_UP_TO:
            return self._exact.take(positions).astype(np.int64)
        return self.computed_at(positions)

    def computed_at(self, positions: np.ndarray) -> np.ndarray:
        """The entries at `positions` by the Feistel network, for any n; int64."""
        entries = self._feistel(positions.ravel())
        outside = np.flatnonzero(entries >= self.n)
        while len(outside):
            entries[outside] = self._feistel(entries[outside])
            outside = outside[entries[outside] >= self.n]
        return entries.reshape(positions.shape)

    def _feistel(self, positions: np.ndarray) -> np.ndarray:
        """One pass of the network over its power of two. Each round alters one half by the other."""
        bits = (self.n - 1).bit_length()
        low_bits, high_bits = bits // 2, bits - bits // 2
        low = (positions & ((1 << low_bits) - 1)).astype(np.uint32)
        high = (positions >> low_bits).astype(np.uint32)
        for i in range(0, _ROUNDS, 2):
            high ^= _mixed(low, self._round_keys[i]) >> np.uint32(32 - high_bits)
            low ^= _mixed(high, self._round_keys[i + 1]) >> np.uint32(32 - low_bits)
        return (high.astype(np.int64) << low_bits) | low
