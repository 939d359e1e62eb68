"""Comparing two models on the same rows: paired bootstrap intervals, and McNemar's exact test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finespun.evaluation.analysis.resampling import interval, resamples
from finespun.tasks.base import Judgement


def differences(
    ours: Judgement, theirs: Judgement, names: Sequence[str], *, count: int, confidence: float
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Returns how much higher each score is than the other's, with its interval: both are scored on the same resamples."""
    assert ours.units == theirs.units, "both must have judged the same rows"
    ones = np.ones((1, ours.units))
    whole = [each.scores(ones) for each in (ours, theirs)]
    samples: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for weights in resamples(ours.units, count):
        one, other = ours.scores(weights), theirs.scores(weights)
        for name in names:
            samples[name].append(one[name] - other[name])
    return {
        name: {
            "value": float(whole[0][name][0] - whole[1][name][0]),
            **interval(np.concatenate(samples[name]), confidence),
        }
        for name in names
    }  # fmt: skip


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, float]:
    """Returns how many rows only one of two models has right, and the two-sided exact p-value that chance made the difference.

    Args:
        ours: (rows,) whether one model's prediction is right.
        theirs: (rows,) the other's, of the same rows.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  (0.4 s that only comparisons need)

    first, second = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p_value = float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0
    return {"only_first": first, "only_second": second, "p_value": p_value}
