"""The next item of each user, ranked among all: a causal transformer over what the user did before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, PrivateAttr, model_validator

from finespun.data.cells import is_blank
from finespun.tasks.base import Batch, Columns, Outputs, Problem, Role, Values
from finespun.tasks.inputs.text import TextEncoder, pad
from finespun.tasks.ranking import baselines, next_item
from finespun.tasks.ranking.ranked import Queries, Ranked
from finespun.tasks.ranking.scores import Values as Scores
from finespun.tasks.ranking.scores import by_place, coverage, weighted
from finespun.tasks.ranking.search.catalogue import Catalogue, stacked

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection

RESERVED = 2  # tokens: 0 padding, 1 the beginning of a history; then the items
BEGIN = 1
TEXT_TOKENS = 64  # of an item's text
SHOWN = 5  # items of a history, the latest
RANKINGS = ("recall_at_1", "recall_at_10", "mrr_at_10", "ndcg_at_10")


class ItemRecommendation(Ranked):
    """SASRec (Kang and McAuley, ICDM 2018): each item of a history is predicted from those before it, by a softmax over all.

    Vectors of items begin from what a pretrained text encoder makes of their texts, and are trained. Rows are those that
    `data.events` makes: a history, the item that came next, and the split.
    """

    processor: ClassVar[str] = "AutoTokenizer"  # of the items' texts
    auto_class: ClassVar[str] = "AutoModel"
    whole_steps: ClassVar[bool] = False
    input_roles: ClassVar[Mapping[str, Role]] = {"history": Role(lists=True)}
    answer_roles: ClassVar[Mapping[str, Role]] = {
        "item": Role(verbatim=True),
        "user": Role(needed=False, verbatim=True),  # whom a row is of: the model is never given it
    }
    item_roles: ClassVar[tuple[str, ...]] = ("item", "text")
    headline: ClassVar[tuple[str, ...]] = ("ndcg_at_10", "recall_at_10", "mrr_at_10", "coverage_at_10")
    unit: ClassVar[str] = "events"

    item_vectors: Literal["text", "random"]  # what they begin from
    width: PositiveInt  # of vectors
    layers: PositiveInt
    heads: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    max_history: PositiveInt  # events that the model reads, the latest
    leave_out_seen: bool  # items of the history are not recommended again
    monitor: Literal["val/ndcg_at_10", "val/recall_at_10", "val/recall_at_1", "val/mrr_at_10", "val/loss"]
    monitor_mode: Literal["max", "min"]

    _places: tuple[Sequence[str], Mapping[str, int]] | None = PrivateAttr(default=None)
    _begun: next_item.Begun | None = PrivateAttr(default=None)
    _of_items: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} is not divided by heads: {self.heads}; say a multiple")
        if (self.monitor_mode == "min") != (self.monitor == "val/loss"):
            raise ValueError(f"monitor_mode: {self.monitor_mode} would keep the worst epoch by {self.monitor}; say the other")
        return self

    @property
    def model_columns(self) -> tuple[str, ...]:
        return ("row",) if self._of_items else ("input_ids",)

    def content(self, values: Values) -> str:
        """Returns whose history it is, and how long: two users may have done the same, and are two rows."""
        return "\n".join([str(values.get("user", "")), *map(str, _listed(values["history"]))])

    def answers(self, values: Values) -> Sequence[str]:
        return ()

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        return []  # `prepare` names the items

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        history = values["history"]
        if isinstance(history, str) and not is_blank(history):
            yield "unexpected_list", "history", 'is no list of items; write it as JSON: ["first", "second"]'
        elif any(not isinstance(each, str) or is_blank(each) for each in _listed(history)):
            yield "empty_text", "history", "holds an item without a name; remove it"
        yield from super().problems(values, labels)

    def encoder(self, folder: Path) -> TextEncoder:
        self._catalogue = Catalogue.read(folder)
        return TextEncoder.read(folder)

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns histories as names and numbers; items that nobody has ever seen are left out."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        places = self.catalogue.places if labels is None else self._numbers(labels)
        histories = [[str(each) for each in _listed(row["history"])] for row in rows]
        ids = [[places[each] for each in history if each in places] for history in histories]
        lengths = np.array([len(each) for each in ids], dtype=np.int32)
        columns: Columns = {
            "history": pa.array(histories, pa.list_(pa.string())), "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "length": pa.array(np.minimum(lengths, self.max_history) + 1, pa.int32()),
            "truncated": pa.array(lengths > self.max_history, pa.bool_()),
        }  # fmt: skip
        if labels is not None:
            columns["target"] = pa.array([places[str(row["item"])] for row in rows], pa.int64())
            columns["user"] = pa.array([str(row.get("user", "")) for row in rows], pa.string())
        return columns

    def _numbers(self, labels: Sequence[str]) -> Mapping[str, int]:
        if self._places is None or self._places[0] is not labels:
            self._places = (labels, {name: place for place, name in enumerate(labels)})
        return self._places[1]

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: TextEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns tokens, mask and places counted from the end, (rows, longest), and all items of each history, then -1."""
        import torch  # noqa: PLC0415  (prepare encodes with these classes and imports no torch)

        if "input_ids" not in columns:
            return {"row": torch.as_tensor(np.array([*columns["row"]]))}, super().collate(columns, encoder)[1]
        histories: list[Any] = [np.asarray(each, dtype=np.int64) for each in columns["input_ids"]]
        tokens: list[Any] = [np.append(BEGIN, each[-self.max_history :] + RESERVED) for each in histories]
        ids, mask = pad(tokens, 0)
        lengths = mask.sum(dim=1, keepdim=True)
        positions = (self.max_history + 1 - lengths + torch.arange(mask.shape[1])).clamp(max=self.max_history)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "seen": pad(histories, -1)[0]}
        return inputs, super().collate({name: each for name, each in columns.items() if name == "target"}, encoder)[1]

    def counts(self, table: pa.Table) -> NDArray[np.float64] | None:
        return np.asarray(table["length"].to_numpy(), dtype=np.float64) if "input_ids" in table.column_names else None

    def items(
        self, splits: Sequence[pa.Table], more: Iterable[Values], encoder: TextEncoder, labels: Sequence[str]
    ) -> pa.Table:  # fmt: skip
        """Returns all items in the order of their numbers: text, its tokens, and how many training events are of it."""
        import pyarrow as pa  # noqa: PLC0415

        texts = {row["item"]: row["text"] for row in more}
        tokenizer = encoder.tokenizer
        tokenizer.enable_truncation(TEXT_TOKENS)
        tokenizer.no_padding()
        found = [each.ids for each in tokenizer.encode_batch_fast([texts.get(name, "") for name in labels])]
        return pa.table({
            "row": pa.array(range(len(labels)), pa.int64()), "item": pa.array(labels, pa.string()),
            "text": pa.array([texts.get(name, "") for name in labels], pa.string()),
            "text_ids": pa.array(found, pa.list_(pa.int32())),
            "count": pa.array(baselines.counts(splits[0], len(labels)), pa.int64()),
            "length": pa.array(np.ones(len(labels), np.int32)), "target": pa.array(np.zeros(len(labels), np.int64)),
        })  # fmt: skip

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        empty = sum(not history for history in rows["input_ids"].to_pylist())
        if empty:
            yield f"{empty:,} of {rows.num_rows:,} rows have no history: what most begin with is all that can be said of them"

    def processor_options(self, encoder: TextEncoder) -> dict[str, Any]:
        return {"model_max_length": TEXT_TOKENS}

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return {}

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"history": row["history"]}

    def built(self, model: Any, encoder: TextEncoder, items: pa.Table) -> Any:
        self._begun = next_item.begin(model, items, encoder, **self.model_dump(include={*next_item.OPTIONS}))
        return self._begun.model

    def forward(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Returns the mean loss of each row's events (of the last alone where nothing trains), and the place of the last."""
        return next_item.losses_and_places(
            model, batch.inputs, batch.targets, cold=self._begun.cold if self._begun else None, leave_out=self.leave_out_seen,
        )  # fmt: skip

    def losses(self, output: Any, batch: Batch, *, training: bool = False) -> torch.Tensor:
        found: torch.Tensor = output["losses"]
        return found

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        vectors = next_item.vectors(model)
        if self._of_items:
            return [*vectors[inputs["row"]].double().cpu().numpy()]
        asked = next_item.last(next_item.hidden(model, inputs), inputs["attention_mask"])
        seen = [row[row >= 0].cpu() for row in inputs["seen"]] if self.leave_out_seen else None
        return self.ranked(asked, without=seen)

    def of_items(self) -> Self:
        return self._with(_catalogue=None, _of_items=True)

    def with_items(self, items: pa.Table, vectors: Outputs) -> Self:
        """Ranks by trained vectors; items that no training event is of get theirs from their texts alone."""
        found, counts = stacked(vectors), items["count"].to_numpy()
        if self._begun is not None:
            found = next_item.placed_by_text(found, self._begun.text, counts == 0)
        return self._with(_catalogue=Catalogue(items.select(["item", "text", "count"]), found), _of_items=False)

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        def read(output: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return output["places"], targets

        def score(places: Any, _: Any, weights: Any) -> dict[str, NDArray[np.float64]]:
            return weighted(by_place(places), weights)

        return over_batches(RANKINGS, read, score)

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        raise NotImplementedError  # `judge` has what is reported

    def queries(self, rows: pa.Table) -> Queries:
        return Queries([*range(rows.num_rows)], [{target} for target in rows["target"].to_pylist()])

    def shown_queries(self, rows: pa.Table) -> list[str]:
        places = self.catalogue.places
        return [" | ".join(self.called(places[n]) for n in history[-SHOWN:] if n in places) or "(no history)"
                for history in rows["history"].to_pylist()]  # fmt: skip

    def called(self, place: int) -> str:
        return str(self._texts[place] or self.catalogue.names[place])

    @property
    def _texts(self) -> list[str]:
        return self.catalogue.column("text")

    def values(self, places: NDArray[np.int64], asked: Queries) -> Scores:
        counts = np.array(self.catalogue.column("count"), dtype=np.float64)
        return super().values(places, asked) | {"popularity_at_10": counts[places[:, :10]].mean(axis=1)}

    def measures(self, places: NDArray[np.int64], asked: Queries) -> Any:
        return partial(_measured, self.values(places, asked), places[:, :10], len(self.catalogue.names))

    def kinds(self, rows: pa.Table, asked: Queries) -> dict[str, Any]:
        """Returns which part of the catalogue what is asked for is of, by how many training events are of it."""
        counts = np.array(self.catalogue.column("count"), dtype=np.float64)
        targets = rows["target"].to_numpy()
        edges = np.quantile(counts[counts > 0], (0.5, 0.9)) if (counts > 0).any() else np.zeros(2)
        names = np.array(["rare half", "middle", "most popular tenth"], dtype=object)[np.searchsorted(edges, counts[targets])]
        names[counts[targets] == 0] = "new item"
        return {"user": rows["user"], "popularity": names.tolist()}

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        return baselines.collaborative(train, split, len(labels), self.candidates, leave_out=self.leave_out_seen)


def _listed(history: Any) -> Sequence[Any]:
    """Returns a history as a list; an empty cell is that of somebody new."""
    return [] if isinstance(history, str) else history


def _measured(values: Scores, places: NDArray[np.int64], items: int, weights: NDArray[np.float64]) -> Scores:
    return weighted(values, weights) | {"coverage_at_10": coverage(places, items, weights)}
