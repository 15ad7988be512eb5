"""Euclidean distances to the nearest points, in blocks of bounded memory."""

import numpy as np

# N = points, O = other points, D = features

_BLOCK = 1 << 20  # numbers in the largest array of a block: 8 MB


def nearest(points_ND: np.ndarray, others_OD: np.ndarray, count: int) -> np.ndarray:
    """The distances from each point to its `count` nearest others, rising.

    A matrix product finds them, and the differences of the coordinates measure them: the product alone
    would lose half the digits where points are close, and equal points would not be at distance zero.

    Args:
        points_ND: float64, shape (N, D).
        others_OD: float64, shape (O, D).
        count: In [1, O].

    Returns:
        float64, shape (N, count).
    """
    # Distances don't change with the origin, and the product loses less near it.
    origin_D = others_OD.mean(axis=0)
    centred_OD = others_OD - origin_D
    squares_O = np.einsum("od,od->o", centred_OD, centred_OD)
    distances = np.empty((len(points_ND), count))
    rows = max(1, _BLOCK // max(len(others_OD), count * points_ND.shape[1], 1))
    for start in range(0, len(points_ND), rows):
        block = points_ND[start : start + rows]
        less_own_square = squares_O - 2 * ((block - origin_D) @ centred_OD.T)
        found = np.argpartition(less_own_square, count - 1, axis=1)[:, :count]
        differences = others_OD[found] - block[:, None]
        distances[start : start + rows] = np.sqrt(np.einsum("ncd,ncd->nc", differences, differences))
    distances.sort(axis=1)
    return distances
