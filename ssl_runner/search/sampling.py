"""The random searcher: which values each sample has, known before anything runs."""

import hashlib
from collections.abc import Mapping

from ssl_runner.search.domains import Domain, Value


def place_of(search_seed: int, sample: int, setting: str) -> float:
    """A random number in [0, 1) that depends on nothing but its arguments.

    So more samples or more settings never change a draw, and every group of a search draws the same
    values of the settings that it shares with others.
    """
    digest = hashlib.sha256(repr((int(search_seed), int(sample), setting)).encode()).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) / 2**53


def sample_of(search: Mapping[str, Domain], search_seed: int, sample: int) -> dict[str, Value]:
    """The values of one sample, by their settings' names.

    Args:
        search: What each setting is drawn from.
        search_seed: Fixes all samples.
        sample: The sample's number, from 0.
    """
    return {name: domain.draw(place_of(search_seed, sample, name)) for name, domain in search.items()}
