"""One number, or several, for each text or pair of texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from finespun.errors import DataError, listed
from finespun.tasks.base import Columns, Judgement, Outputs, Problem, Values
from finespun.tasks.scores import regression_scores
from finespun.tasks.text import TextEncoder, TextInput

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


class TextRegression(TextInput):
    """Predicts the numbers in the column, or columns, `target`, in the data's own unit."""

    roles: ClassVar[tuple[str, ...]] = ("text", "target")
    answer_roles: ClassVar[tuple[str, ...]] = ("target",)
    list_roles: ClassVar[tuple[str, ...]] = ("target",)
    cannot_keep: ClassVar[tuple[str, ...]] = ("bad_target",)
    headline: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "rmse", "r2")
    problem_type: ClassVar[str | None] = "regression"

    loss_function: Literal["mse", "mae", "huber"]
    huber_delta: PositiveFloat
    monitor: Literal["val/pearson", "val/spearman", "val/r2", "val/mse", "val/mae", "val/loss"]
    monitor_mode: Literal["max", "min"]

    def answers(self, values: Values) -> Sequence[str]:
        return ()

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from super().problems(values, labels)
        for text in _as_list(values.get("target", [])):
            if not (isinstance(text, str) and _is_number(text)):
                yield "bad_target", "target", "is not a number; correct it, or set data.checks.bad_target: drop"

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        return list(_as_list(columns["target"]))

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        columns = super().encode(rows, encoder, labels)
        if labels is not None:
            given = [_as_list(row["target"]) for row in rows]
            _require_as_many(given, rows, labels)
            columns["target"] = pa.array([[float(one) for one in each] for each in given], pa.list_(pa.float64()))
        return columns

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        numbers = logits.float()
        if self.loss_function == "mse":
            losses = functional.mse_loss(numbers, targets, reduction="none")
        elif self.loss_function == "mae":
            losses = functional.l1_loss(numbers, targets, reduction="none")
        else:
            losses = functional.huber_loss(numbers, targets, reduction="none", delta=self.huber_delta)
        return losses.mean(dim=1)

    def divergence(self, logits: torch.Tensor, others: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (logits.float() - others.float()).square().mean(dim=1)

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return regression_scores(targets, outputs, weights, labels=labels)

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return logits.astype(np.float64)

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns a number for each target, by the name of its column with `predicted_` before it."""
        return [
            {f"predicted_{label}": round(float(number), 6) for label, number in zip(labels, row, strict=True)}
            for row in outputs
        ]

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        targets, numbers = np.stack(rows["target"].to_numpy()), np.stack(outputs)
        table: dict[str, Any] = {name: rows[name] for name in ("row", *self.shown) if name in rows.column_names}
        for position, label in enumerate(labels):
            table |= {label: targets[:, position], f"predicted_{label}": numbers[:, position]}
        return Judgement(
            units=len(targets), scores=partial(self.scores, targets, numbers, labels=labels),
            table=table, actual=targets[:, 0].tolist(), predicted=numbers[:, 0].tolist(),
            constant=[label for label, spread in zip(labels, np.ptp(targets, axis=0), strict=True) if not spread],
        )  # fmt: skip

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        from sklearn.linear_model import Ridge  # noqa: PLC0415  (1 s that only reports need)

        targets = np.stack(train["target"].to_numpy())
        seen, asked = self.features(train, split)
        found = Ridge(alpha=1.0).fit(seen, targets).predict(asked).reshape(split.num_rows, -1)
        return {"mean": [targets.mean(axis=0)] * split.num_rows, "tfidf_ridge": list(found)}


def _require_as_many(given: Sequence[Sequence[str]], rows: Sequence[Values], labels: Sequence[str]) -> None:
    for numbers, row in zip(given, rows, strict=True):
        if len(numbers) != len(labels):
            raise DataError(
                f"the row {row['text'][:60]!r}: has {', '.join(numbers)} for {listed(labels)}; write each number into a column"
                " of its own, and name each in data.columns.target"
            )


def _as_list(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
