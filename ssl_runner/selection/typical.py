"""Typical images of the clusters that no label covers yet."""

import heapq
import warnings

import numpy as np

from ssl_runner.errors import InputError
from ssl_runner.keyed_random import seed_of
from ssl_runner.selection.choice import Choice
from ssl_runner.selection.distances import nearest

# N = images, P = labeled images and candidates, D = features

NEIGHBOURS = 20
MOST_CLUSTERS = 500
FEW_CLUSTERS = 50
SMALL_CLUSTER = 5
"""The paper's constants: see `typiclust`."""


def require_scikit_learn() -> None:
    """Raise an `InputError` if k-means, which is scikit-learn's, is not installed."""
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise InputError(
            "typiclust needs scikit-learn, which is not installed. Try pip install 'scikit-learn>=1.5'."
        ) from error


def clusters_of(points_PD: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The cluster of each point by k-means, shape (P,); the same for any number of threads.

    Args:
        points_PD: float32 or float64, finite, shape (P, D).
        count: Clusters, in [1, P]; equal points may leave some of them empty.
        seed: Fixes the choice of the first centres.

    Raises:
        InputError: If scikit-learn is not installed.
    """
    require_scikit_learn()
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    random_state = seed_of((seed,)) % 2**32
    if count <= FEW_CLUSTERS:
        estimator = KMeans(count, n_init=1, random_state=random_state)
    else:
        estimator = MiniBatchKMeans(count, batch_size=5000, n_init=1, random_state=random_state)
    # Several threads add up centres in the order in which they finish: other bits at each run.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters
        clusters_P: np.ndarray = estimator.fit_predict(points_PD)
    return clusters_P


def typicality(points_ND: np.ndarray) -> np.ndarray:
    """The inverse of the mean distance to the nearest of the other points, at most 20 of them.

    Hacohen, Dekel & Weinshall 2022, section 3, equation for "typicality". ∞ where all of them are
    equal to the point, 0 for a point alone.

    Args:
        points_ND: float64, shape (N, D).

    Returns:
        float64, shape (N,).
    """
    neighbours = min(NEIGHBOURS, len(points_ND) - 1)
    if neighbours == 0:
        return np.zeros(len(points_ND))
    mean_N = nearest(points_ND, points_ND, neighbours + 1)[:, 1:].mean(axis=1)  # the first is itself
    with np.errstate(divide="ignore"):
        typicality_N: np.ndarray = 1 / mean_N
    return typicality_N


def typiclust(
    features_ND: np.ndarray, labeled: np.ndarray, candidates: np.ndarray, number: int, seed: int
) -> Choice:
    """The most typical image of the largest cluster that no label covers, cluster after cluster.

    Hacohen, Dekel & Weinshall 2022, "Active learning on a budget: opposite strategies suit high and low
    budgets", section 3, algorithm 1: k-means into as many clusters as there will be labels, at most
    500, by mini-batches above 50. For very few labels.

    The next image is of the cluster with the fewest labeled or chosen images; of equal ones the
    largest, then the one with the lowest index. Clusters of fewer than five images come last: the
    authors leave them out, but then not every number could be chosen.

    Args:
        features_ND: Features of all images, finite, shape (N, D). Neural networks' features are best
            brought to length 1 first, as the authors do.
        labeled: Indices of the labeled images, maybe none.
        candidates: Indices of the images to choose from.
        number: Images to choose, in [1, len(candidates)].
        seed: Fixes where k-means begins.

    Returns:
        The choice; a score is the image's typicality within its cluster. Scores fall within a
        cluster, not over the whole choice.

    Raises:
        InputError: If scikit-learn is not installed.
    """
    images_P = np.sort(np.concatenate([labeled, candidates]))
    points_PD = features_ND[images_P]
    points_PD = points_PD.astype(np.promote_types(points_PD.dtype, np.float32), copy=False)
    count = min(len(labeled) + number, MOST_CLUSTERS, len(images_P))
    clusters_P = clusters_of(points_PD, count, seed)
    is_candidate_P = np.isin(images_P, candidates)
    typicality_P = np.empty(len(images_P))
    queue = []
    waiting: dict[int, list[int]] = {}
    members_of = np.split(
        np.argsort(clusters_P, kind="stable"), np.cumsum(np.bincount(clusters_P))[:-1]
    )
    for members in members_of:
        if not len(members):
            continue
        typicality_P[members] = typicality(points_PD[members].astype(np.float64))
        open_members = members[is_candidate_P[members]]
        if len(open_members):
            first = int(members[0])
            # Taken from the end: the most typical last, of equal ones the lowest index last.
            order = np.lexsort((-open_members, typicality_P[open_members]))
            waiting[first] = open_members[order].tolist()
            covered = len(members) - len(open_members)
            queue.append((len(members) < SMALL_CLUSTER, covered, -len(members), first))
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < number:
        is_small, covered, negative_size, first = queue[0]
        chosen.append(waiting[first].pop())
        if waiting[first]:
            heapq.heapreplace(queue, (is_small, covered + 1, negative_size, first))
        else:
            heapq.heappop(queue)
    return Choice(images_P[chosen].astype(np.int64), typicality_P[chosen])
