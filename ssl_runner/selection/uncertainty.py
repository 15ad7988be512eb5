"""How unsure a model is of each image, or how far several models disagree: higher asks first.

Settles 2009, "Active learning literature survey" (Computer Sciences Technical Report 1648, University
of Wisconsin–Madison), section 3.1 "Uncertainty sampling" and section 3.2 "Query by committee"; the same
in Settles 2012, "Active learning" (Morgan & Claypool), chapters 2 and 3.
"""

from typing import Literal, get_args

import numpy as np

from ssl_runner.errors import did_you_mean, require

# M = models, N = images, K = classes

Measure = Literal["bald", "vote_entropy"]


def least_confidence(probabilities_NK: np.ndarray) -> np.ndarray:
    """One less the probability of the likeliest class (Settles 2009, section 3.1, "least confident").

    Args:
        probabilities_NK: float64, shape (N, K).

    Returns:
        Scores in [0, 1 − 1/K], shape (N,).
    """
    scores_N: np.ndarray = 1 - probabilities_NK.max(axis=1)
    return scores_N


def margin(probabilities_NK: np.ndarray) -> np.ndarray:
    """One less the distance between the two likeliest classes (Settles 2009, section 3.1, "margin
    sampling", after Scheffer, Decomain & Wrobel 2001).

    Args:
        probabilities_NK: float64, shape (N, K). With one class the second has probability 0.

    Returns:
        Scores in [0, 1], shape (N,).
    """
    if probabilities_NK.shape[1] == 1:
        return 1 - probabilities_NK[:, 0]
    two_N2 = np.partition(probabilities_NK, -2, axis=1)[:, -2:]
    scores_N: np.ndarray = 1 - (two_N2[:, 1] - two_N2[:, 0])
    return scores_N


def entropy(probabilities_NK: np.ndarray) -> np.ndarray:
    """Shannon's entropy in nats (Settles 2009, section 3.1, "entropy"), with 0 log 0 = 0.

    Args:
        probabilities_NK: float64, shape (N, K).

    Returns:
        Scores in [0, log K], shape (N,).
    """
    from scipy.special import entr  # slow to load, and few trials choose

    scores_N: np.ndarray = entr(probabilities_NK).sum(axis=1)
    return scores_N


def disagreement(probabilities_MNK: np.ndarray, measure: Measure = "bald") -> np.ndarray:
    """How far several models disagree on each image, in nats.

    - `bald`: entropy of the mean less the mean entropy, which is the mutual information of label and
      model (Houlsby, Huszár, Ghahramani & Lengyel 2011, "Bayesian active learning for classification
      and preference learning", section 2, equation 2). High where each model is sure, of another class.
    - `vote_entropy`: entropy of the models' votes, a vote going to a model's likeliest class, of equal
      ones the first (Settles 2009, section 3.2.1, after Dagan & Engelson 1995). M models give it few
      values, so that many images are equal; hence it is not the default.

    Args:
        probabilities_MNK: float64, shape (M, N, K).

    Returns:
        Scores in [0, log min(M, K)], shape (N,).

    Raises:
        InputError: If the measure is unknown.
    """
    known = get_args(Measure)
    require(
        measure in known,
        "the measure",
        f"one of {', '.join(known)}",
        measure,
        did_you_mean(measure, known),
    )
    models, _, classes = probabilities_MNK.shape
    if measure == "bald":
        mean_entropy_N = sum(map(entropy, probabilities_MNK)) / models
        # Rounding may put equal models a little below zero.
        scores_N: np.ndarray = np.maximum(entropy(probabilities_MNK.mean(axis=0)) - mean_entropy_N, 0)
        return scores_N
    votes_MN = probabilities_MNK.argmax(axis=2)
    share_NK = np.stack([(votes_MN == k).mean(axis=0) for k in range(classes)], axis=1)
    return entropy(share_NK)
