"""The nearest of more items than each is compared with: an HNSW graph (Malkov and Yashunin, TPAMI 2018), by usearch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finespun.errors import ModelError

EXACT = 1_000_000  # items up to which each query is compared with all
FILE = "items.usearch"
ADDED = 2**16  # items that are added at once
QUERIES = 128  # whose candidates are scored at once
GRAPH: dict[str, Any] = {"connectivity": 32, "expansion_add": 200}  # finer than usearch's default, which misses up to a tenth
EXPANSION = 512  # candidates that the graph is searched for, at least; four times what is asked for


class ItemIndex:
    """A graph over items' vectors, (items, width); what it finds is scored exactly, by the vectors themselves.

    The largest dot product is the smallest distance once each item has one more number, which makes all equally long, and each
    query a 0 (Bachrach et al., "Speeding Up the Xbox Recommender System", RecSys 2014).
    """

    def __init__(self, vectors: NDArray[np.float32], graph: Any) -> None:
        self.vectors, self.graph = vectors, graph

    @classmethod
    def build(cls, vectors: NDArray[np.float32]) -> ItemIndex:
        from usearch.index import Index  # noqa: PLC0415  (an extra)

        graph = Index(ndim=vectors.shape[1] + 1, metric="l2sq", dtype="f32", **GRAPH)
        squares = np.concatenate([_squares(vectors[start : start + ADDED]) for start in range(0, len(vectors), ADDED)])
        missing = np.sqrt(squares.max() - squares)
        for start in range(0, len(vectors), ADDED):
            some = np.column_stack([vectors[start : start + ADDED], missing[start : start + ADDED]])
            graph.add(np.arange(start, start + len(some)), some, threads=torch.get_num_threads())
        return cls(vectors, graph)

    @classmethod
    def read(cls, vectors: NDArray[np.float32], path: Path) -> ItemIndex:
        """Opens a file that `write` made, memory-mapped.

        Raises:
            ModelError: it is damaged, or of other items.
        """
        from usearch.index import Index  # noqa: PLC0415

        remedy = "remove it, and it is built anew, or run `dvc repro --force finetune`"
        try:
            graph = Index.restore(str(path), view=True)
        except Exception as error:  # usearch raises nothing narrower
            raise ModelError(f"{path}: is no index that can be read ({error}); {remedy}") from error
        if graph is None or (len(graph), graph.ndim) != (len(vectors), vectors.shape[1] + 1):
            raise ModelError(f"{path}: is no index of the {len(vectors):,} items beside it; {remedy}")
        return cls(vectors, graph)

    def write(self, path: Path) -> None:
        self.graph.save(str(path))

    def nearest(
        self, queries: torch.Tensor, count: int, *, without: list[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """As `search.nearest.nearest`, of nearly all nearest items: tests compare both."""
        given = queries.cpu().numpy().astype(np.float32)
        found = [
            self._block(given[start : start + QUERIES], count, without[start : start + QUERIES] if without else None)
            for start in range(0, len(given), QUERIES)
        ]
        scores, places = (np.concatenate(each) for each in zip(*found, strict=True)) if found else np.empty((2, 0, count))
        return torch.from_numpy(scores), torch.from_numpy(places.astype(np.int64))

    def _block(
        self, queries: NDArray[np.float32], count: int, without: list[torch.Tensor] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:  # fmt: skip
        asked = min(len(self.vectors), count + max((len(each) for each in without or ()), default=0))
        self.graph.expansion_search = max(EXPANSION, 4 * asked)
        matches = self.graph.search(np.pad(queries, ((0, 0), (0, 1))), asked, threads=torch.get_num_threads())
        places = np.asarray(matches.keys, dtype=np.int64).reshape(len(queries), asked)
        there = np.arange(asked) < np.asarray(matches.counts).reshape(-1, 1)
        places = np.where(there, places, 0)
        scores = np.where(there, np.einsum("qw,qaw->qa", queries, self.vectors[places]), -np.inf).astype(np.float32)
        for row, seen in enumerate(without or ()):
            scores[row, np.isin(places[row], seen.numpy())] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(places, best, axis=1)


def opened(vectors: NDArray[np.float32], folder: Path | None) -> ItemIndex | None:
    """Returns the index beside a model, or builds it; None, and a warning, where usearch is not installed.

    Raises:
        ModelError: as `ItemIndex.read`.
    """
    items = f"{len(vectors):,} items"
    try:
        import usearch  # noqa: F401, PLC0415
    except ImportError:
        print(f"warning: {items} are all compared with each query, which is slow: pip install 'finespun[index]'", flush=True)  # noqa: T201
        return None
    if folder is not None and (folder / FILE).is_file():
        return ItemIndex.read(vectors, folder / FILE)
    print(f"building an index of {items}", flush=True)  # noqa: T201
    return ItemIndex.build(vectors)


def _squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray((vectors.astype(np.float64) ** 2).sum(axis=1))
