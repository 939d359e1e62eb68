"""Numbers as a task's answer: what texts and images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from finespun.data.cells import number_problem
from finespun.errors import DataError, listed
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Role, TargetScale, Values
from finespun.tasks.metrics.scores import regression_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

LARGEST = 1e18  # squares of numbers must be numbers in single precision
RESOLUTION = 1e-6  # of single precision, with a digit to spare
FAR = 100  # times the interquartile range


class Numbers(Defaults):
    """Predicts the numbers in the column, or columns, `target`, in the data's own unit.

    Training sees each target without its mean and in deviations, those of the training split (numbers more than 100 times the
    interquartile range from the median apart): losses are in that unit.
    """

    answer_roles: ClassVar[Mapping[str, Role]] = {"target": Role(lists=True)}
    cannot_keep: ClassVar[tuple[str, ...]] = ("bad_target",)
    headline: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "rmse", "r2")
    problem_type: ClassVar[str | None] = "regression"

    input_roles: ClassVar[Mapping[str, Role]]
    shown: ClassVar[tuple[str, ...]]
    simple: ClassVar[tuple[str, float]]  # of the input: what a simple method sees

    loss_function: Literal["mse", "mae", "huber"]
    huber_delta: PositiveFloat
    target_scale: TargetScale | None = None  # None: that of the training split
    monitor: Literal["val/pearson", "val/spearman", "val/r2", "val/mse", "val/mae", "val/loss"]
    monitor_mode: Literal["max", "min"]

    def answers(self, values: Values) -> Sequence[str]:
        return ()

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        for text in _as_list(values.get("target", [])):
            problem = number_problem(text) if isinstance(text, str) else "is not a number"
            if problem:
                drop = "" if "decimal comma" in problem else ", or set data.checks.bad_target: drop"  # 1.234 would be left
                yield "bad_target", "target", f"{problem}{drop}"
            elif abs(float(text)) > LARGEST:
                yield "bad_target", "target", f"is beyond {LARGEST:g}; correct it, or write the column in a larger unit"

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        return list(_as_list(columns["target"]))

    def fitted(self, train: pa.Table, labels: Sequence[str]) -> Self:
        if self.target_scale:
            return self
        columns = [column[~_far(column)] for column in _numbers(train).T]
        mean, deviation = ([float(found) for found in map(what, columns)] for what in (np.mean, np.std))
        for label, column, middle, spread in zip(labels, columns, mean, deviation, strict=True):
            if np.ptp(column) <= RESOLUTION * np.abs(column).max():
                told = f"is {column[0]:g} in all" if not np.ptp(column) else f"differs by {spread:.1g} from {middle:g} in"
                remedy = "leave it out of data.columns.target" if len(labels) > 1 else "name another column"
                if np.ptp(column):
                    remedy = "too little for single precision: subtract a constant from the column"
                raise DataError(
                    f"data.columns.target: {label!r} {told} {len(column):,} rows of the training split, so there is nothing to"
                    f" learn; {remedy}"
                )
        return self._in(mean, deviation)

    def _in(self, mean: Sequence[float], deviation: Sequence[float]) -> Self:
        return self.model_copy(update={"target_scale": TargetScale(mean=tuple(mean), deviation=tuple(deviation))})

    def scale(self) -> TargetScale | None:
        return self.target_scale

    def settled(self, config: Mapping[str, Any]) -> Self:
        given = config.get("target_scale")
        return self._in(given["mean"], given["deviation"]) if given else self.model_copy(update={"target_scale": None})

    def scaled(self, targets: torch.Tensor) -> torch.Tensor:
        if self.target_scale is None:
            return targets
        mean, deviation = (targets.new_tensor(each) for each in (self.target_scale.mean, self.target_scale.deviation))
        return (targets - mean) / deviation

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        for label, column in zip(labels, _numbers(rows).T, strict=True):
            if not np.ptp(column):
                yield f"{label} is {column[0]:g} in all {len(column):,} rows: correlations and R² of this split say nothing"
            far = np.flatnonzero(_far(column))
            if len(far):
                yield (
                    f"{label}: {len(far)} of {len(column):,} rows are more than {FAR} times the interquartile range from the"
                    f" median (row {rows['row'][int(far[0])]}: {column[far[0]]:g}); correct them, or set task.loss_function:"
                    " huber, so that a few do not outweigh all others"
                )

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Returns `target`, a number for each label, where labels are given."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if labels is None:
            return {}
        given = [(str(row[next(iter(self.input_roles))]), _as_list(row["target"])) for row in rows]
        _require_as_many(given, labels)
        return {"target": pa.array([[float(one) for one in each] for _, each in given], pa.list_(pa.float64()))}

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        numbers, targets = logits.float(), self.scaled(targets)
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
        numbers = logits.astype(np.float64)
        return numbers * self.target_scale.deviation + self.target_scale.mean if self.target_scale else numbers

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns a number for each target, to nine digits, by the name of its column with `predicted_` before it."""
        return [
            {f"predicted_{label}": float(f"{number:.9g}") for label, number in zip(labels, row, strict=True)} for row in outputs
        ]

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        targets, numbers = _numbers(rows), np.stack(outputs)
        table: dict[str, Any] = {name: rows[name] for name in ("row", *self.shown) if name in rows.column_names}
        for position, label in enumerate(labels):
            table |= {label: targets[:, position], f"predicted_{label}": numbers[:, position]}
        return Judgement(
            units=len(targets), scores=partial(self.scores, targets, numbers, labels=labels),
            table=table, actual=targets[:, 0].tolist(), predicted=numbers[:, 0].tolist(),
            constant=[label for label, spread in zip(labels, np.ptp(targets, axis=0), strict=True) if not spread],
        )  # fmt: skip

    @abstractmethod
    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        """Returns what simple methods see of both, (rows, features) each: the input's."""

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        from sklearn.linear_model import Ridge  # noqa: PLC0415  (1 s that only reports need)

        targets = _numbers(train)
        seen, asked = self.features(train, split)
        found = Ridge(alpha=1.0).fit(seen, targets).predict(asked).reshape(split.num_rows, -1)
        return {"mean": [targets.mean(axis=0)] * split.num_rows, f"{self.simple[0]}_ridge": list(found)}


def _numbers(rows: pa.Table) -> NDArray[np.float64]:
    """Returns the targets, (rows, targets)."""
    return np.stack(rows["target"].to_numpy()).astype(np.float64)


def _far(column: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which numbers are so far from all others that mean and deviation are taken without them."""
    low, middle, high = np.percentile(column, (25, 50, 75))
    return np.asarray((np.abs(column - middle) > FAR * (high - low)) & (high > low))


def _require_as_many(given: Sequence[tuple[str, Sequence[str]]], labels: Sequence[str]) -> None:
    for name, numbers in given:
        if len(numbers) != len(labels):
            raise DataError(
                f"the row {name[:60]!r}: has {', '.join(numbers)} for {listed(labels)}; write each number into a column"
                " of its own, and name each in data.columns.target"
            )


def _as_list(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
