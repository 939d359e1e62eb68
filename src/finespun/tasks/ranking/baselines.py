"""Simple methods that rank items: what a model must be better than."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finespun.tasks.base import Outputs


def lexical(queries: Sequence[str], items: Sequence[str], count: int) -> dict[str, Outputs]:
    """Returns BM25's rankings (Robertson et al., 1994) by bm25s; nothing, and a warning, where it is not installed."""
    try:
        import bm25s  # noqa: PLC0415  (an extra that only this baseline needs)
    except ImportError:
        print("warning: baseline bm25 left out: pip install 'finespun[retrieval]'", flush=True)  # noqa: T201
        return {}
    count = min(count, len(items))
    options: dict[str, Any] = {"stopwords": None, "show_progress": False}
    ranker = bm25s.BM25()
    ranker.index(bm25s.tokenize(list(items), **options), show_progress=False)
    asked = bm25s.tokenize(list(queries), return_ids=False, **options)
    places, scores = ranker.retrieve(asked, k=count, show_progress=False)
    return {"bm25": [*np.stack([places.astype(np.float64), scores.astype(np.float64)], axis=1)]}
