"""How much wider an ellipse must be that was fitted to few errors, so that the next one lies in it as often."""

from __future__ import annotations

import numpy as np

from geowarp_ros.types import FloatArray

HELD = 0.95
"""Share of the next errors that the 95 % ellipse shall hold."""


def widening(normalized: FloatArray, dimensions: int, fitted: int) -> float:
    """Factor on covariances that were fitted to these very errors, the larger of two.

    The first is Student's: for Gaussian errors whose scale was estimated, NEES over dimensions is F-distributed
    (Gelman et al., "Bayesian Data Analysis", 3rd ed., sec. 3.2), not chi-squared; few errors have long tails. The
    second counts: of n errors and the next one, which is as likely to be the largest as any, the one of rank
    0.95·(n + 1) is a 95 % bound whatever their distribution (Vovk et al., "Algorithmic Learning in a Random
    World", 2005). Fewer than 19 have no such rank: the largest then counts as the quantile that it is.

    Args:
        normalized: (N,) NEES of the errors by the fitted covariances.
        dimensions: Of each error.
        fitted: Number of parameters that were fitted.

    Returns:
        Factor on the covariances, not on the standard deviations.
    """
    from scipy.stats import chi2, f

    count = len(normalized)
    freedom = max(dimensions * count - fitted, 1)
    student = dimensions * f.ppf(HELD, dimensions, freedom) * normalized.sum() / freedom
    ranked = np.interp(HELD * (count + 1), np.arange(1, count + 1), np.sort(normalized))
    counted = ranked / chi2.ppf(min(HELD, count / (count + 1)), dimensions)
    return float(max(student / chi2.ppf(HELD, dimensions), counted))
