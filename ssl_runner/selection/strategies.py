"""The strategies by name, and one function that chooses by any of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ssl_runner.errors import Described, InputError, did_you_mean, require
from ssl_runner.keyed_random import scattered
from ssl_runner.selection.choice import Choice, check_finite, check_probabilities, highest
from ssl_runner.selection.coverage import coreset
from ssl_runner.selection.typical import typiclust
from ssl_runner.selection.uncertainty import Measure, disagreement, entropy, least_confidence, margin

# M = models, N = images, C = candidates, K = classes, D = features

Needs = Literal["nothing", "probabilities", "models", "features"]

# One stream of random numbers per purpose, so that none of them shifts another (`mislabeled` has 1).
_RANDOM = 0

_LONGEST = 1 << 32  # `scattered` tells so many indices apart


@dataclass(frozen=True)
class Pool:
    """What a strategy chooses from, checked.

    Attributes:
        candidates: Indices of the images that may be chosen, rising, shape (C,).
        labeled: Indices of the labeled images, rising.
        seed: Fixes what is random.
        measure: The measure of disagreement.
        probabilities_MCK: Of the candidates, by each model, float64; empty where not needed.
        features_ND: Of all images; empty where not needed.
    """

    candidates: np.ndarray
    labeled: np.ndarray
    seed: int
    measure: Measure
    probabilities_MCK: np.ndarray
    features_ND: np.ndarray


@dataclass(frozen=True)
class Strategy:
    """A way to choose.

    Attributes:
        needs: What it looks at: nothing, one model's probabilities or the mean of several models',
            the probabilities of several `models`, or features.
        score: What its score says, for people.
        choose: The choice of so many images.
    """

    needs: Needs
    score: str
    choose: Callable[[Pool, int], Choice]


def random(candidates: np.ndarray, number: int, seed: int) -> Choice:
    """Images at random. An image keeps its score whatever the other candidates are, so that choosing
    in several rounds chooses the same as at once.

    Args:
        candidates: Indices of the images to choose from, below 2³².
        number: Images to choose, in [1, C].
        seed: Fixes the choice.

    Returns:
        The choice; scores are in [0, 1), and mean nothing.
    """
    widths = np.full(len(candidates), _LONGEST, np.uint64)
    scores = scattered(candidates, widths, (seed, _RANDOM)) / _LONGEST
    return highest(scores, candidates, number)


def _by(score: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pool, int], Choice]:
    """The highest scores by the mean of the models' probabilities."""
    return lambda pool, number: highest(
        score(pool.probabilities_MCK.mean(axis=0)), pool.candidates, number
    )


STRATEGIES: dict[str, Strategy] = {
    "random": Strategy(
        "nothing", "a random number", lambda pool, number: random(pool.candidates, number, pool.seed)
    ),
    "least_confidence": Strategy(
        "probabilities", "1 less the probability of the likeliest class", _by(least_confidence)
    ),
    "margin": Strategy(
        "probabilities", "1 less the distance between the two likeliest classes", _by(margin)
    ),
    "entropy": Strategy("probabilities", "entropy of the probabilities, in nats", _by(entropy)),
    "disagreement": Strategy(
        "models",
        "how far the models disagree, in nats",
        lambda pool, number: highest(
            disagreement(pool.probabilities_MCK, pool.measure), pool.candidates, number
        ),
    ),
    "coreset": Strategy(
        "features",
        "distance to the nearest image labeled or chosen before",
        lambda pool, number: coreset(pool.features_ND, pool.labeled, pool.candidates, number),
    ),
    "typiclust": Strategy(
        "features",
        "1 / mean distance to the nearest images of its cluster",
        lambda pool, number: typiclust(
            pool.features_ND, pool.labeled, pool.candidates, number, pool.seed
        ),
    ),
}


def _indices(name: str, given: npt.ArrayLike, images: int | None) -> np.ndarray:
    """Indices as given, checked and rising; `images` is None where nothing says how many there are."""
    images = _LONGEST if images is None else images
    array = np.asarray(given)
    if array.size == 0:
        return np.empty(0, np.int64)
    require(
        array.ndim == 1 and np.issubdtype(array.dtype, np.integer),
        name,
        "a list of indices",
        Described(f"an array of {array.dtype} of shape {array.shape}"),
        "Give whole numbers, such as numpy.flatnonzero(mask).",
    )
    unique = np.unique(array)
    for wrong in (unique[0], unique[-1]):
        require(0 <= wrong < images, name, f"in [0, {images})", int(wrong), "Count the images from 0.")
    if len(unique) < len(array):
        twice = unique[np.unique(array, return_counts=True)[1] > 1][0]
        raise InputError(f"{name} must differ, got {twice} twice. Try numpy.unique.")
    return unique.astype(np.int64)


def _probabilities(strategy: str, given: npt.ArrayLike | None) -> np.ndarray:
    """Probabilities with their models' dimension, shape (M, N, K), not yet checked."""
    needs_models = STRATEGIES[strategy].needs == "models"
    shape = "(models, images, classes)" if needs_models else "(images, classes)"
    array = np.empty(0) if given is None else np.asarray(given)
    if given is None or array.ndim not in ({3} if needs_models else {2, 3}):
        shown = "none" if given is None else f"an array of shape {array.shape}"
        raise InputError(
            f"{strategy} needs the probabilities of {'several models' if needs_models else 'a model'}, "
            f"shape {shape}, got {shown}. Give probabilities=."
        )
    probabilities_MNK = array if array.ndim == 3 else array[None]
    least = 2 if needs_models else 1
    require(
        len(probabilities_MNK) >= least,
        "the number of models",
        f"at least {least} for {strategy}",
        len(probabilities_MNK),
        "Give the probabilities of more models, or choose by entropy." if needs_models else "Give one.",
    )
    return probabilities_MNK


def _features(strategy: str, given: npt.ArrayLike | None) -> np.ndarray:
    """Features as an array of shape (N, D), not yet checked for NaN."""
    array = np.empty(0) if given is None else np.asarray(given)
    if array.ndim != 2 or not array.shape[1]:
        shown = "none" if given is None else f"an array of shape {array.shape}"
        raise InputError(
            f"{strategy} needs features, shape (images, features), got {shown}. Give features=."
        )
    return array


def _images_of(probabilities: npt.ArrayLike | None, features: npt.ArrayLike | None) -> int:
    """How many images there are, by what is given of them."""
    if probabilities is not None:
        return int(np.shape(probabilities)[-2])
    if features is not None:
        return len(np.asarray(features))
    raise InputError("random must know what to choose from, got no images. Give candidates=.")


def choose(
    strategy: str,
    number: int,
    *,
    probabilities: npt.ArrayLike | None = None,
    features: npt.ArrayLike | None = None,
    labeled: npt.ArrayLike = (),
    candidates: npt.ArrayLike | None = None,
    seed: int = 0,
    measure: Measure = "bald",
) -> Choice:
    """Choose images to label next, the most wanted first.

    The order of `labeled` and of `candidates` doesn't matter. Rows of images that are neither are not
    looked at, nor are the probabilities of labeled images.

    Args:
        strategy: A name of `STRATEGIES`.
        number: Images to choose.
        probabilities: Each image's probabilities, shape (N, K), or those of several models, (M, N, K).
        features: Each image's features, usually those before the last layer, shape (N, D).
        labeled: Indices of the images that have a label.
        candidates: Indices of the images that may be chosen; None: all that are not labeled.
        seed: Fixes what is random: `random`, and where `typiclust`'s k-means begins.
        measure: How `disagreement` is measured, `bald` or `vote_entropy`.

    Returns:
        The choice; `STRATEGIES[strategy].score` says what its scores mean.

    Raises:
        InputError: If something is missing, not finite, or does not fit, or if there are fewer
            candidates than are asked for.
    """
    require(
        strategy in STRATEGIES,
        "the strategy",
        f"one of {', '.join(STRATEGIES)}",
        strategy,
        did_you_mean(strategy, STRATEGIES),
    )
    needs = STRATEGIES[strategy].needs
    probabilities_MNK, features_ND = np.empty((0, 0, 0)), np.empty((0, 0))
    images: int | None = None
    if needs in ("probabilities", "models"):
        probabilities_MNK = _probabilities(strategy, probabilities)
        images = probabilities_MNK.shape[1]
    elif needs == "features":
        features_ND = _features(strategy, features)
        images = len(features_ND)
    elif candidates is None:
        images = _images_of(probabilities, features)
    labeled = _indices("labeled", labeled, images)
    if candidates is None:
        assert images is not None
        candidates = np.setdiff1d(np.arange(images), labeled, assume_unique=True)
    else:
        candidates = _indices("candidates", candidates, images)
        both = np.intersect1d(labeled, candidates, assume_unique=True)
        if len(both):
            raise InputError(
                f"candidates must not be labeled, got {both[0]}, which is. "
                "Leave the labeled images out."
            )
    if not len(candidates):
        raise InputError(
            "there must be an image to choose, got none: every image is labeled or left out."
        )
    require(
        1 <= number <= len(candidates),
        "the number of images to choose",
        f"in [1, {len(candidates)}], as many as are neither labeled nor left out",
        number,
        "Choose fewer." if number > 0 else "Choose one or more.",
    )
    probabilities_MCK = probabilities_MNK
    if needs in ("probabilities", "models"):
        probabilities_MCK = probabilities_MNK[:, candidates].astype(np.float64)
        for probabilities_CK in probabilities_MCK:
            check_probabilities(probabilities_CK, candidates)
    if needs == "features":
        for rows in (labeled, candidates):
            check_finite(features_ND[rows], rows, "features")
    pool = Pool(candidates, labeled, seed, measure, probabilities_MCK, features_ND)
    return STRATEGIES[strategy].choose(pool, number)
