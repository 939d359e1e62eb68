"""Simple methods that rank items: what a model must be better than."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finespun.tasks.base import Outputs

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ITEMS = 8_000  # of EASE, which inverts a matrix of items by items
REGULARISATION = 250.0  # of EASE
FACTORS = 32  # of ALS
BLOCK = 1024  # users


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


def collaborative(
    train: pa.Table, split: pa.Table, items: int, count: int, *, leave_out: bool
) -> dict[str, Outputs]:  # fmt: skip
    """Returns rankings by popularity, by item-kNN (cosines of items' users), by EASE and by ALS, where `implicit` is installed.

    EASE: Steck, WWW 2019; ALS: Hu et al., "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.

    Args:
        train: rows that the methods are fitted on.
        split: rows whose histories they are asked about.
        items: how many there are.
        count: how many are ranked.
        leave_out: items of a history are not ranked.
    """
    seen, asked = events_of(train, items, targets=True), events_of(split, items, targets=False)
    popular = np.asarray(seen.sum(axis=0), dtype=np.float64).ravel()
    common = (seen.T @ seen).tocsr().astype(np.float64)
    sizes = np.sqrt(np.maximum(popular, 1.0))
    cosines = common.multiply(1 / sizes[:, None]).multiply(1 / sizes[None, :]).tolil()
    cosines.setdiag(0)
    methods: dict[str, Any] = {"popularity": popular, "item_knn": cosines.tocsr()}
    if items <= MOST_ITEMS:
        methods["ease"] = _ease(common.toarray())
    found = {name: _ranked(method, asked, count, leave_out=leave_out) for name, method in methods.items()}
    factors = _factors(seen, asked)
    return found | ({"als": _ranked(factors[1].T, asked, count, leave_out=leave_out, users=factors[0])} if factors else {})


def _factors(seen: Any, asked: Any) -> tuple[Any, Any] | None:
    """Returns ALS's vectors of who is asked about, (users, factors), and of all items, (items, factors)."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415  (an extra that only this baseline needs)
        from threadpoolctl import threadpool_limits  # noqa: PLC0415
    except ImportError:
        print("warning: baseline als left out: pip install 'finespun[als]'", flush=True)  # noqa: T201
        return None
    with threadpool_limits(1, "blas"):  # its own threads and those of BLAS hinder each other
        model = AlternatingLeastSquares(factors=FACTORS, random_state=0)
        model.fit(seen, show_progress=False)
        return model.recalculate_user(np.arange(asked.shape[0]), asked), model.item_factors


def _ease(common: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.linalg.inv(common + REGULARISATION * np.eye(len(common)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def _ranked(method: Any, asked: Any, count: int, *, leave_out: bool, users: Any = None) -> Outputs:
    """Ranks items by what all users give them, (items,), or by users (their histories, where not given) times a matrix."""
    users = asked if users is None else users
    found: list[NDArray[np.float64]] = []
    for start in range(0, asked.shape[0], BLOCK):
        some, histories = users[start : start + BLOCK], asked[start : start + BLOCK]
        alike = getattr(method, "ndim", 2) == 1
        scores = np.tile(method, (some.shape[0], 1)) if alike else np.asarray(_dense(some @ method), dtype=np.float64)
        if leave_out:
            scores[histories.toarray() > 0] = -np.inf
        places = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        found += [*np.stack([places.astype(np.float64), np.take_along_axis(scores, places, axis=1)], axis=1)]
    return found


def _dense(found: Any) -> Any:
    return found.toarray() if hasattr(found, "toarray") else found


def events_of(rows: pa.Table, items: int, *, targets: bool) -> Any:
    """Returns which items each row's history holds, sparse (rows, items), with what came next or without."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415  (reports alone need it)

    histories = rows["input_ids"].to_pylist()
    if targets:
        histories = [[*history, target] for history, target in zip(histories, rows["target"].to_pylist(), strict=True)]
    ends = np.cumsum([0, *map(len, histories)])
    places = np.concatenate([np.asarray(each, dtype=np.int64) for each in histories])
    found = csr_matrix((np.ones(len(places)), places, ends), shape=(len(histories), items))
    found.sum_duplicates()
    found.data[:] = 1.0
    return found


def counts(train: pa.Table, items: int) -> NDArray[np.int64]:
    """Returns how many training events are of each item, (items,)."""
    events = [*train["input_ids"].to_pylist(), train["target"].to_pylist()]
    return np.bincount(np.concatenate([np.asarray(each, dtype=np.int64) for each in events]), minlength=items)
