"""Images that cover the others: k-centre greedy on features."""

import numpy as np

from ssl_runner.selection.choice import Choice
from ssl_runner.selection.distances import nearest

# N = images, C = candidates, D = features


def coreset(
    features_ND: np.ndarray, labeled: np.ndarray, candidates: np.ndarray, number: int
) -> Choice:
    """Again and again the candidate farthest from all labeled and chosen ones.

    Sener & Savarese 2018, "Active learning for convolutional neural networks: a core-set approach",
    algorithm 1 (k-Center-Greedy), on the features before the last layer (their section 4). No choice
    of as many covers the candidates within less than half of the radius that is left.

    Where nothing is labeled, the first is the candidate nearest the candidates' mean.

    Args:
        features_ND: Features of all images, finite, shape (N, D).
        labeled: Indices of the labeled images, maybe none.
        candidates: Indices of the images to choose from.
        number: Images to choose, in [1, C].

    Returns:
        The choice; a score is the distance to the nearest labeled or earlier chosen image, ∞ where
        there is none. A smaller choice is the beginning of a larger one. Of equal distances the
        lowest index is first.
    """
    from scipy.spatial.distance import cdist  # slow to load, and few trials choose

    candidates = np.sort(candidates)
    points_CD = features_ND[candidates].astype(np.float64)
    if len(labeled):
        labeled_LD = features_ND[labeled].astype(np.float64)
        distance_C = nearest(points_CD, labeled_LD, 1)[:, 0]
        position = int(distance_C.argmax())
    else:
        distance_C = np.full(len(points_CD), np.inf)
        position = int(cdist(points_CD, points_CD.mean(axis=0, keepdims=True)).argmin())
    positions = np.empty(number, np.int64)
    scores = np.empty(number)
    for i in range(number):
        positions[i], scores[i] = position, distance_C[position]
        to_new_C = cdist(points_CD, points_CD[position : position + 1])[:, 0]
        np.minimum(distance_C, to_new_C, out=distance_C)
        distance_C[position] = -1  # chosen; a duplicate of it is at distance 0
        position = int(distance_C.argmax())
    return Choice(candidates[positions].astype(np.int64), scores)
