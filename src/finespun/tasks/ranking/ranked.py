"""A ranking as a task's answer: the items nearest to a query, of the whole catalogue."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, PrivateAttr

from finespun.errors import DataError, ModelError
from finespun.tasks.base import Defaults, Judgement, Outputs
from finespun.tasks.ranking.scores import Values, by_query, first_hits, weighted
from finespun.tasks.ranking.search.catalogue import Catalogue, stacked

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

SHOWN = 5  # items of a ranking in the table of predictions


class Queries(NamedTuple):
    """The queries of a split: the place of the row that says each, and the positions of the items that it asks for."""

    rows: list[int]
    relevant: list[set[int]]


class Ranked(Defaults):
    """Ranks all items of a catalogue for each query.

    With a catalogue, outputs are positions and scores of the nearest items, (2, candidates) a row; without one, vectors, as
    they are when the catalogue itself is computed.
    """

    from_logits: ClassVar[bool] = False
    whole_steps: ClassVar[bool] = True
    several_answers: ClassVar[bool] = True

    candidates: PositiveInt  # items that are kept of each ranking, the best; no prediction gives more
    _catalogue: Catalogue | None = PrivateAttr(default=None)
    _passes: int = PrivateAttr(default=1)

    @property
    def ranks(self) -> bool:
        return True

    def in_passes(self, passes: int) -> Self:
        return self._with(_passes=passes)

    def of_items(self) -> Self:
        return self._with(_catalogue=None)

    def with_items(self, items: pa.Table, vectors: Outputs) -> Self:
        kept = [name for name in items.column_names if name not in ("row", "target", "length", "input_ids")]
        return self._with(_catalogue=Catalogue(items.select(kept), stacked(vectors)))

    def _with(self, **private: Any) -> Self:
        copy = self.model_copy()
        for name, value in private.items():
            setattr(copy, name, value)
        return copy

    def settled(self, config: Mapping[str, Any]) -> Self:
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The items.

        Raises:
            ModelError: the model's folder has none.
        """
        if self._catalogue is None:
            raise ModelError("items.arrow is not beside the model, so there is nothing to rank; run `dvc repro finetune`")
        return self._catalogue

    def write_beside(self, folder: Path) -> None:
        if self._catalogue is not None:
            self._catalogue.write(folder)

    def ranked(self, vectors: torch.Tensor, without: list[torch.Tensor] | None = None) -> Outputs:
        """Returns the nearest items of each row's vector, or the vectors where there is no catalogue."""
        if self._catalogue is None:
            return [*vectors.double().cpu().numpy()]
        return self._catalogue.nearest(vectors.float(), self.candidates, without=without)

    @abstractmethod
    def queries(self, rows: pa.Table) -> Queries:
        """Returns the queries of a split and what they ask for."""

    @abstractmethod
    def shown_queries(self, rows: pa.Table) -> list[str]:
        """Returns how a person reads each row's query."""

    def values(self, places: NDArray[np.int64], asked: Queries) -> Values:
        """Returns each score of each query, (queries,)."""
        return by_query(places, asked.relevant, depth=self.candidates)

    def measures(self, places: NDArray[np.int64], asked: Queries) -> Any:
        """Returns what `Judgement.scores` is: all scores as a function of weights over queries."""
        return partial(weighted, self.values(places, asked))

    def called(self, place: int) -> str:
        """Returns what a person calls an item."""
        return self.catalogue.names[place]

    def kinds(self, rows: pa.Table, asked: Queries) -> dict[str, Any]:
        """Returns further columns of the table of predictions, by some of which slices are made."""
        return {}

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        asked = self.queries(rows)
        found = np.stack([outputs[row] for row in asked.rows])
        places = found[:, 0].astype(np.int64)
        hits = np.array([[p in wanted for p in row] for row, wanted in zip(places.tolist(), asked.relevant, strict=True)])
        first = first_hits(hits)
        texts = self.shown_queries(rows)
        numbers = rows["row"].to_numpy()
        table: dict[str, Any] = {
            "row": numbers[asked.rows],
            "query": [texts[row] for row in asked.rows],
            "expected": [[self.called(place) for place in sorted(wanted)] for wanted in asked.relevant],
            "found": [[self.called(place) for place in row[:SHOWN]] for row in places.tolist()],
            "place": first,
            **self.kinds(rows, asked),
        }
        return Judgement(
            units=len(asked.rows), scores=self.measures(places, asked), table=table, classes=(),
            actual=[1.0] * len(first), predicted=[float(place or self.candidates + 1) for place in first],
        )  # fmt: skip

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `item` and `score` of each row; the next nearest as `item_2`, `score_2`; `vector` without a catalogue."""
        if self._catalogue is None:
            return [{VECTOR: [float(value) for value in output.astype(np.float32)]} for output in outputs]
        if top_k > self.candidates:
            raise DataError(
                f"--top-k: {top_k} asked for, and the model keeps task.candidates: {self.candidates}; ask for fewer"
            )
        names = self.catalogue.names
        found = []
        for places, scores in outputs:
            answer: dict[str, Any] = {}
            for rank, (place, score) in enumerate(zip(places[:top_k], scores[:top_k], strict=True), 1):
                suffix = "" if rank == 1 else f"_{rank}"
                there = bool(np.isfinite(score))
                answer |= {
                    f"item{suffix}": names[int(place)] if there else None,
                    f"score{suffix}": round(float(score), 6) if there else None,
                }
            found.append(answer)
        return found


VECTOR = "vector"
