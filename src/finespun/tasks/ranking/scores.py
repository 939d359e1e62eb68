"""Scores of rankings over whole catalogues, as means over weighted queries. No sampled metrics."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 10, 100)  # places that recall is reported for
CUT = 10  # of MRR and nDCG
Values = dict[str, NDArray[np.float64]]


def by_query(places: NDArray[np.int64], relevant: Sequence[Collection[int]], *, depth: int) -> Values:
    """Returns each score of each query, (queries,).

    Args:
        places: positions of items, (queries, found), the best first.
        relevant: the positions that each query asks for; a position that is none (-1) can never be found.
        depth: how far rankings go; recall is reported to there.

    Returns:
        `recall_at_k`: the share of relevant items among the first k. `mrr_at_10`: one over the place of the first of them,
        0 where it is after the tenth. `ndcg_at_10`: gains of 1, discounted by log2 of the place (Järvelin and Kekäläinen,
        2002).
    """
    hits = np.array(
        [[place in wanted for place in row] for row, wanted in zip(places.tolist(), relevant, strict=True)], dtype=bool
    ).reshape(len(places), places.shape[1])
    count = np.array([max(1, len(each)) for each in relevant], dtype=np.float64)
    found: Values = {}
    for cut in CUTS:
        if cut <= depth:
            found[f"recall_at_{cut}"] = hits[:, :cut].sum(axis=1) / count
    first = first_hits(hits[:, :CUT])
    found[f"mrr_at_{CUT}"] = np.where(first > 0, 1 / np.maximum(first, 1), 0.0)
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    ideal = np.cumsum(discounts)[np.minimum(count, CUT).astype(np.int64) - 1]
    width = min(CUT, hits.shape[1])
    found[f"ndcg_at_{CUT}"] = hits[:, :width] @ discounts[:width] / ideal
    return found


def first_hits(hits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the place of each row's first hit, counted from 1; 0 where there is none."""
    if not hits.shape[1]:
        return np.zeros(len(hits), dtype=np.int64)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def weighted(values: Values, weights: NDArray[np.float64]) -> Values:
    """Returns the means over queries for weights (resamples, queries), (resamples,) each."""
    total = weights.sum(axis=1)
    return {name: weights @ each / total for name, each in values.items()}


def by_place(places: NDArray[np.int64]) -> Values:
    """Returns each score of queries with one relevant item, given its place, counted from 1, (queries,)."""
    near = places <= CUT
    found: Values = {f"recall_at_{cut}": (places <= cut).astype(np.float64) for cut in CUTS}
    found[f"mrr_at_{CUT}"] = near / places
    found[f"ndcg_at_{CUT}"] = near / np.log2(places + 1)
    return found


def coverage(places: NDArray[np.int64], items: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the share of all items that some query is given, (resamples,), for weights (resamples, queries).

    It is a property of all queries together: where a bootstrap counts some of them twice, it is that of all.
    """
    whole = len(np.unique(places)) / items
    return np.array([len(np.unique(places[row > 0])) / items if row.max() <= 1 else whole for row in weights])
