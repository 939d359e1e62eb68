"""The bootstrap: resampled units as weights, and percentile intervals (Efron and Tibshirani, 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK_CELLS = 5_000_000  # weights held at once while resampling: 40 MB


def resamples(units: int, count: int) -> Iterator[NDArray[np.float64]]:
    """Yields weights, (some, units) each: how often each unit is drawn; the same at every call."""
    random = np.random.Generator(np.random.Philox(key=0))
    at_once = max(1, CHUNK_CELLS // units)
    for start in range(0, count, at_once):
        some = min(at_once, count - start)
        drawn = random.integers(0, units, size=(some, units)) + np.arange(some)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=some * units).reshape(some, units).astype(np.float64)


def interval(samples: NDArray[np.float64], confidence: float) -> dict[str, float]:
    """Returns the percentile interval of some samples of a score."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, (tail, 1 - tail))
    return {"low": float(low), "high": float(high)}
