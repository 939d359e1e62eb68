"""Any number of labels as a task's answer: what texts and images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from finespun.data.cells import Unclear
from finespun.errors import DataError
from finespun.tasks.answers.one_label import unknown_label
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Role, Values
from finespun.tasks.metrics.scores import best_thresholds, multi_label_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

NONE = "(none)"  # in pictures: no label on one of the sides


class SeveralLabels(Defaults):
    """Each label is given or not, from a threshold of its own on that is chosen on the validation split for the best F1."""

    answer_roles: ClassVar[Mapping[str, Role]] = {"labels": Role(lists=True, indicators=True)}
    headline: ClassVar[tuple[str, ...]] = ("f1_macro", "f1_micro", "average_precision", "exact_match")
    problem_type: ClassVar[str | None] = "multi_label_classification"
    cannot_keep: ClassVar[tuple[str, ...]] = ("bad_target",)

    shown: ClassVar[tuple[str, ...]]
    simple: ClassVar[tuple[str, float]]  # of the input: what a simple method sees, and how little it is held back

    delimiter: Annotated[str, Field(min_length=1)]
    monitor: Literal["val/f1_macro", "val/f1_micro", "val/average_precision", "val/loss"]
    monitor_mode: Literal["max", "min"]
    thresholds: Annotated[tuple[float, ...], Field(strict=False)] | None = None  # by label; None until `decide` has chosen

    def answers(self, values: Values) -> Sequence[str]:
        given = values["labels"]
        parts = given.split(self.delimiter) if isinstance(given, str) else given
        return list(dict.fromkeys(part.strip() for part in parts if isinstance(part, str) and part.strip()))

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        parts = values.get("labels", ())
        for part in parts:
            if isinstance(part, Unclear):
                remedy = "write 1 or 0 (true or false, yes or no), or set data.checks.bad_target: drop"
                yield "bad_target", "labels", f"column {part.column!r} says {part.cell!r}; {remedy}"
            elif not isinstance(part, str):
                yield "unexpected_list", "labels", "holds something that is no text; write a list of labels"
        if isinstance(parts, list) and all(part in ("0", "1") for part in parts) and len(parts) > len({*parts}):
            remedy = "write the names of those that are 1, or a column for each label (data.columns.labels: [first, second])"
            yield "unexpected_list", "labels", f"is a list of 0 and 1; {remedy}"
        if "labels" in values and labels is not None:
            told = ((answer, unknown_label(answer, labels)) for answer in self.answers(values))
            yield from (("unknown_label", "labels", f"{answer!r} {remedy}") for answer, remedy in told if remedy)

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        names = list(found)
        if not names:
            raise DataError(f"data.columns.labels: no row has a label in {columns['labels']!r}; look at the column")
        return names

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Returns `target`, 0 or 1 for each label, where labels are given."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if labels is None:
            return {}
        given = [set(self.answers(row)) for row in rows]
        found = [[float(label in each) for label in labels] for each in given]
        return {"target": pa.array(found, pa.list_(pa.float32()))}

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        return functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(dim=1)

    def divergence(self, logits: torch.Tensor, others: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        one, other = logits.float(), others.float()
        return ((one.sigmoid() - other.sigmoid()) * (one - other)).mean(dim=1) / 2  # each label is yes or no

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return multi_label_scores(targets, outputs, weights, thresholds=self._from(len(labels)), labels=labels)

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500))))

    @property
    def decides(self) -> bool:
        return True

    def decide(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> dict[str, Any]:
        return {"label_thresholds": best_thresholds(_targets(rows), np.stack(outputs)).tolist()}

    def settled(self, config: Mapping[str, Any]) -> Self:
        chosen = config.get("label_thresholds")
        return self.model_copy(update={"thresholds": tuple(chosen)}) if chosen and self.thresholds is None else self

    def _from(self, count: int) -> NDArray[np.float64]:
        return np.full(count, 0.5) if self.thresholds is None else np.asarray(self.thresholds)

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `labels` (a list, the likeliest first) and `probabilities` of those given and of the `top_k` likeliest."""
        found = []
        for chances in outputs:
            ranked = np.argsort(-chances, kind="stable")
            given = [labels[index] for index in ranked if chances[index] >= self._from(len(labels))[index]]
            shown = ranked[: max(top_k, len(given))]
            found.append(
                {"labels": given, "probabilities": {labels[index]: round(float(chances[index]), 6) for index in shown}}
            )
        return found

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        targets, probabilities = _targets(rows), np.stack(outputs)
        predicted = probabilities >= self._from(len(labels))
        table: dict[str, Any] = {name: rows[name] for name in ("row", *self.shown) if name in rows.column_names}
        for name, sets in (("labels", targets > 0), ("predicted", predicted)):
            table[name] = [[labels[index] for index in np.flatnonzero(row).tolist()] for row in sets]
        table |= {f"probability/{label}": probabilities[:, position] for position, label in enumerate(labels)}
        pairs = [
            (labels[index] if targets[row, index] else NONE, labels[index] if predicted[row, index] else NONE)
            for row, index in np.argwhere((targets > 0) | predicted).tolist()
        ] or [(NONE, NONE)]
        return Judgement(
            units=len(targets),
            scores=partial(self.scores, targets, probabilities, labels=labels),
            table=table, actual=[a for a, _ in pairs], predicted=[p for _, p in pairs], classes=[*labels, NONE],
            without_rows=[label for label, rows in zip(labels, targets.sum(axis=0), strict=True) if not rows],
        )  # fmt: skip

    @abstractmethod
    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        """Returns what simple methods see of both, (rows, features) each: the input's."""

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (1 s that only reports need)

        name, freedom = self.simple
        targets = _targets(train)
        seen, asked = self.features(train, split)
        linear = LogisticRegression(C=freedom, max_iter=1000)
        found = np.empty((split.num_rows, len(labels)))
        for position, column in enumerate(targets.T):
            varied = column.min() < column.max()
            found[:, position] = linear.fit(seen, column).predict_proba(asked)[:, 1] if varied else column[0]
        return {"label_shares": [targets.mean(axis=0)] * split.num_rows, f"{name}_logistic": list(found)}


def _targets(rows: pa.Table) -> NDArray[np.float64]:
    return np.stack(rows["target"].to_numpy()).astype(np.float64)
