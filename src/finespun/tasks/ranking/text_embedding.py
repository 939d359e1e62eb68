"""Text embeddings: a vector a text, such that those who belong together are near each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr, model_validator

from finespun.data.cells import number_problem
from finespun.errors import ModelError
from finespun.tasks.base import Batch, Columns, Judgement, Miner, Outputs, Problem, Role, Values
from finespun.tasks.inputs.text import TextEncoder
from finespun.tasks.metrics.scores import regression_scores
from finespun.tasks.ranking import sentence_transformers
from finespun.tasks.ranking.baselines import lexical
from finespun.tasks.ranking.pairs import MINED, SCORED, SIDES, TextPairs, number_of, side
from finespun.tasks.ranking.ranked import Queries, Ranked
from finespun.tasks.ranking.search.catalogue import Catalogue

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection

    from finespun.tasks.ranking.mining import HardNegatives

RANKINGS = ("recall_at_1", "recall_at_10", "mrr_at_10", "ndcg_at_10")
PROFILE = ("spearman", "pearson")
REPEATED = 0.05  # share of rows whose positive another row has, too, that is worth a remark


class TextEmbedding(TextPairs, Ranked):
    """Learns from pairs (`text`, `positive`), triplets (`negative`, too) or, with `score`, pairs and how alike they are.

    Of pairs and triplets, each query ranks all distinct positives and negatives of the data, and the texts of `data.items`.
    """

    answers_untrained: ClassVar[bool] = True
    item_roles: ClassVar[tuple[str, ...]] = ("text",)

    loss_function: Literal["info_nce", "triplet", "cosent", "cosine"]
    temperature: PositiveFloat  # cosines are divided by it in info_nce and cosent
    margin: NonNegativeFloat  # of triplet
    hard_negatives: NonNegativeInt  # of info_nce: items that the model ranks first, wrongly, are added to each row's negatives
    pooling: Literal["mean", "cls", "last"]
    vector_dtype: Literal["float32", "bfloat16"]  # what vectors are computed in once the model is trained
    dimensions: Annotated[tuple[PositiveInt, ...], Field(strict=False)]  # Matryoshka: the loss is the mean over these widths
    monitor: Literal["val/recall_at_1", "val/recall_at_10", "val/mrr_at_10", "val/ndcg_at_10", "val/spearman", "val/loss"]
    monitor_mode: Literal["max", "min"]
    _miner: HardNegatives | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        name = self.monitor.removeprefix("val/")
        if name != "loss" and (name == "spearman") != self.scored:
            fitting = "val/spearman" if self.scored else "val/mrr_at_10"
            raise ValueError(f"monitor: {self.monitor} is none of loss_function: {self.loss_function}; say {fitting}")
        if (self.monitor_mode == "min") != (name == "loss"):
            raise ValueError(f"monitor_mode: {self.monitor_mode} would keep the worst epoch by {self.monitor}; say the other")
        if len({*self.dimensions}) != len(self.dimensions):
            raise ValueError("dimensions: names a width twice; name each once")
        if self.hard_negatives and self.loss_function != "info_nce":
            raise ValueError(f"hard_negatives: {self.loss_function} has no place for them; set 0, or loss_function: info_nce")
        return self

    @property
    def scored(self) -> bool:
        """Whether rows say how alike two texts are."""
        return self.loss_function in SCORED

    @property
    def ranks(self) -> bool:
        return not self.scored

    @property
    def dtype(self) -> str:  # type: ignore[override]  # a constant of other tasks
        return self.vector_dtype

    @property
    def whole_steps(self) -> bool:  # type: ignore[override]  # a constant of other rankings
        return self.loss_function in {"info_nce", "cosent"}

    @property
    def input_roles(self) -> Mapping[str, Role]:
        return {"text": Role(), **({"positive": Role()} if self.scored else {})}

    @property
    def answer_roles(self) -> Mapping[str, Role]:
        if self.scored:
            return {"score": Role()}
        needed = self.loss_function == "triplet"
        more = {"negative": Role(needed=needed, verbatim=True)} if needed or self.loss_function == "info_nce" else {}
        return {"positive": Role(verbatim=True), **more}

    @property
    def headline(self) -> tuple[str, ...]:
        return ("spearman", "pearson") if self.scored else ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10")

    @property
    def cannot_keep(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant of other tasks
        return ("bad_target",) if self.scored else ()

    @property
    def unasked(self) -> tuple[str, ...]:
        return () if self.scored else SIDES

    def answers(self, values: Values) -> Sequence[str]:
        return ()

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        return ["similarity"]

    def content(self, values: Values) -> str:
        return "\n".join([values["text"], values["positive"]]) if self.scored else str(values["text"])

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from super().problems(values, labels)
        if "score" not in values:
            return
        problem = number_problem(values["score"])
        if problem:
            yield "bad_target", "score", f"{problem}, or set data.checks.bad_target: drop"
        elif self.loss_function == "cosine" and abs(float(values["score"])) > 1:
            yield (
                "bad_target",
                "score",
                "is no cosine, which is from -1 to 1; scale the column, or set task.loss_function: cosent",
            )

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        if self.scored:
            return
        texts, positives = rows["text"].to_pylist(), rows["target"].to_pylist()
        repeated = 1 - len({*positives}) / len(positives)
        if repeated >= REPEATED:
            yield (
                f"{repeated:.0%} of the rows have a positive that another row has, too: in one batch, neither counts as the"
                " other's negative"
            )
        copies = sum(number_of(text) == positive for text, positive in zip(texts, positives, strict=True))
        if copies:
            yield f"{copies:,} of {len(texts):,} positives are copies of their text, from which nothing is learnt"

    def encoder(self, folder: Path) -> TextEncoder:
        self._catalogue = Catalogue.read(folder) if self.ranks else None
        return super().encoder(folder)

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        columns = super().encode(rows, encoder, labels)
        if labels is not None and self.scored:
            columns["target"] = pa.array([float(row["score"]) for row in rows], pa.float64())
        elif labels is not None:
            columns["target"] = pa.array([number_of(row["positive"]) for row in rows], pa.int64())
        return columns

    def items(
        self, splits: Sequence[pa.Table], more: Iterable[Values], encoder: TextEncoder, labels: Sequence[str]
    ) -> pa.Table:
        """Returns each distinct positive and negative of all splits, then the texts of `data.items`."""
        import pyarrow as pa  # noqa: PLC0415

        known = (text for table in splits for role in SIDES if role in table.column_names for text in table[role].to_pylist())
        texts = list(dict.fromkeys([*known, *(str(row["text"]) for row in more)]))
        ids, lengths, _ = self.tokens(texts, encoder, self.item_prefix)
        return pa.table({
            "row": pa.array(range(len(texts)), pa.int64()), "item": pa.array(texts, pa.string()), "input_ids": ids,
            "length": pa.array(lengths, pa.int32()), "target": pa.array(np.zeros(len(texts), np.int64)),
        })  # fmt: skip

    def equip(self, model: Any, encoder: Any, folder: Path) -> None:
        super().equip(model, encoder, folder)
        width = model.config.get_text_config().hidden_size
        wrong = next((size for size in self.dimensions if size > width), None)
        if wrong:
            raise ModelError(f"task.dimensions: {wrong} is more than the {width} that vectors of {folder} have; leave it out")

    @property
    def miner(self) -> Miner | None:
        return self._miner

    def with_miner(self, train: pa.Table, encoder: TextEncoder) -> Self:
        if not self.hard_negatives:
            return self
        from finespun.tasks.ranking.mining import HardNegatives  # noqa: PLC0415  (imports torch)

        numbers = [number_of(text) for text in train["text"].to_pylist()]
        options: dict[str, Any] = {"encode": self.in_passes(1).vectors, "padding": encoder.pad_token_id}
        return self._with(_miner=HardNegatives(train, numbers, count=self.hard_negatives, **options))

    def augment(self, batch: Batch, encoder: TextEncoder, *, epoch: int, seed: int) -> Batch:
        return self._miner.added(batch) if self._miner else batch

    def vectors(self, model: Any, inputs: dict[str, torch.Tensor], times: int = 1) -> torch.Tensor:
        """Returns a vector a row, as the model gives it, (rows, width); of `times` as many rows as a step has."""
        from finespun.tasks.ranking.contrastive import in_chunks, pooled  # noqa: PLC0415  (imports torch)

        def encode(part: dict[str, torch.Tensor]) -> torch.Tensor:
            return pooled(model(**part).last_hidden_state, part["attention_mask"], self.pooling)

        return in_chunks(encode, inputs, self._passes * times if self._passes > 1 else 1)

    def forward(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Returns vectors (rows, width) by side, and the numbers of negatives; of those mined, as many of each row."""
        found = {"text": self.vectors(model, side(batch.inputs, ""))}
        for role in (*SIDES, MINED):
            if f"{role}_input_ids" in batch.inputs:
                times = self.hard_negatives if role == MINED else 1
                found[role] = self.vectors(model, side(batch.inputs, f"{role}_"), times)
            if f"{role}_number" in batch.inputs:
                found[f"{role}_number"] = batch.inputs[f"{role}_number"]
        return found

    def losses(self, output: Any, batch: Batch, *, training: bool = False) -> torch.Tensor:
        """Returns the loss of each row; of `cosent`, one of the whole step. Matryoshka: Kusupati et al., NeurIPS 2022."""
        import torch  # noqa: PLC0415

        from finespun.tasks.ranking.contrastive import step_losses  # noqa: PLC0415  (imports torch)

        widths = self.dimensions or (output["text"].shape[1],)
        options = self.model_dump(include={"loss_function", "temperature", "margin"})
        found = [step_losses(_narrowed(output, width), batch.targets, counted=batch.counted, **options) for width in widths]
        return torch.stack(found).mean(dim=0)

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        import torch  # noqa: PLC0415
        from torch.nn.functional import normalize  # noqa: PLC0415

        kind, half = inputs["input_ids"].device.type, self.dtype == "bfloat16" and model.dtype == torch.float32
        prefixes = ("", "positive_") if self.scored and "positive_input_ids" in inputs else ("",)
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            given = [self.vectors(model, side(inputs, prefix)) for prefix in prefixes]
        found, *others = (normalize(each.float(), dim=1) for each in given)
        for other in others:
            return [*(found * other).sum(dim=1, keepdim=True).double().cpu().numpy()]
        return self.ranked(found)

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        """Rankings of the split's own positives, each row a query; of scores, Spearman's correlation."""
        import torch  # noqa: PLC0415
        from torch.nn.functional import normalize  # noqa: PLC0415

        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        def read(output: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            sides = [normalize(output[name].float(), dim=1) for name in ("text", "positive")]
            return (torch.stack(sides, dim=1), targets) if not self.scored else ((sides[0] * sides[1]).sum(dim=1), targets)

        def score(found: Any, targets: Any, weights: Any) -> dict[str, NDArray[np.float64]]:
            if self.scored:
                return _correlations(targets, found, weights)
            return self.in_batchwise(found.astype(np.float32), targets, weights)

        return over_batches(PROFILE[:1] if self.scored else RANKINGS, read, score)

    def in_batchwise(self, vectors: NDArray[np.float32], numbers: Any, weights: Any) -> dict[str, NDArray[np.float64]]:
        """Returns scores of queries against the distinct positives of the same rows; `vectors` is (rows, 2, width)."""
        import torch  # noqa: PLC0415

        from finespun.tasks.ranking.scores import by_query, weighted  # noqa: PLC0415
        from finespun.tasks.ranking.search.nearest import nearest  # noqa: PLC0415  (imports torch)

        _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
        places = nearest(torch.from_numpy(vectors[:, 0]), torch.from_numpy(vectors[first, 1]), 10)[1]
        return weighted(by_query(places.numpy(), [{int(each)} for each in which], depth=10), weights)

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        raise NotImplementedError  # `judge` has what is reported

    def queries(self, rows: pa.Table) -> Queries:
        """Returns each distinct text once, with the positives of all rows that say it."""
        places = self.catalogue.places
        first: dict[str, int] = {}
        relevant: dict[str, set[int]] = {}
        for row, (text, positive) in enumerate(zip(rows["text"].to_pylist(), rows["positive"].to_pylist(), strict=True)):
            first.setdefault(text, row)
            relevant.setdefault(text, set()).add(places.get(positive, -1))
        return Queries([*first.values()], [*relevant.values()])

    def shown_queries(self, rows: pa.Table) -> list[str]:
        return [str(text) for text in rows["text"].to_pylist()]

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        if not self.scored:
            return super().judge(rows, outputs, labels)
        targets, cosines = rows["target"].to_numpy(), np.concatenate(outputs)
        table = {name: rows[name] for name in ("row", "text", "positive")}
        return Judgement(
            units=len(targets), scores=partial(_correlations, targets, cosines),
            table=table | {"score": targets, "predicted_score": cosines},
            actual=targets.tolist(), predicted=cosines.tolist(),
            constant=[] if np.ptp(targets) else ["score"],
        )  # fmt: skip

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        if self.scored and "positive" in rows.column_names:
            return [{"similarity": round(float(output[0]), 6)} for output in outputs]
        return super().predictions(rows, outputs, labels, top_k=top_k)

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        if self.scored:
            return {}
        return lexical(self.shown_queries(split), self.catalogue.names, self.candidates)

    def write_beside(self, folder: Path) -> None:
        """Writes the items, and what makes the folder a model of sentence-transformers."""
        super().write_beside(folder)
        prompts = {"query": self.query_prefix, "document": self.item_prefix}
        sentence_transformers.write(folder, pooling=self.pooling, max_length=self.max_length, prompts=prompts)


def _narrowed(output: Mapping[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """Returns the first dimensions of each vector."""
    return {name: each[:, :width] if each.ndim > 1 else each for name, each in output.items()}


def _correlations(targets: Any, cosines: Any, weights: Any) -> dict[str, NDArray[np.float64]]:
    found = regression_scores(targets[:, None], cosines[:, None], weights, labels=["score"])
    return {name: found[name] for name in PROFILE}
