"""One label as a task's answer: what classifying texts and images has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from finespun.data.cells import is_list
from finespun.errors import DataError, did_you_mean, listed
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Role, Values, softmax
from finespun.tasks.metrics.scores import classification_scores
from finespun.tasks.metrics.temperature import fit_temperature

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


class OneLabel(Defaults):
    """Binary and multi-class answers."""

    answer_roles: ClassVar[Mapping[str, Role]] = {"label": Role()}
    cannot_keep: ClassVar[tuple[str, ...]] = ("unknown_label", "bad_image")
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "f1_macro", "log_loss")
    problem_type: ClassVar[str | None] = "single_label_classification"

    shown: ClassVar[tuple[str, ...]]
    simple: ClassVar[tuple[str, float]]  # of the input: what a simple method sees, and how little it is held back

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    calibrate: bool = False
    temperature: PositiveFloat | None = None  # None until `decide` has chosen, and where the head's own numbers have it in them
    monitor: Literal["val/accuracy", "val/f1_macro", "val/f1_micro", "val/loss"]
    monitor_mode: Literal["max", "min"]

    def answers(self, values: Values) -> Sequence[str]:
        return [values["label"].strip()]

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        names = list(found)
        if len(names) < 2:
            raise DataError(
                f"data.columns.label: {columns['label']!r} says only {listed(names)}; a classifier needs two labels or more:"
                " look at the column (of an image folder: at its sub-folders)"
            )
        return names

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        label = values.get("label")
        if label is None:
            return
        if is_list(label) and not (labels and label in labels):
            yield "unexpected_list", "label", "is a list written as text; write one label, or set task: multi_label"
        remedy = unknown_label(label.strip(), labels)
        if remedy:
            yield "unknown_label", "label", remedy

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Returns `target`, the position of each row's label, where labels are given."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if labels is None:
            return {}
        index = {label: position for position, label in enumerate(labels)}
        return {"target": pa.array([index[label] for row in rows for label in self.answers(row)], pa.int64())}

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        smoothing = self.label_smoothing if training else 0.0
        return functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)

    @property
    def decides(self) -> bool:
        return self.calibrate

    def decide(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> dict[str, Any]:
        """Chooses the temperature of least log loss."""
        return {"calibration_temperature": fit_temperature(rows["target"].to_numpy(), np.stack(outputs))}

    def settled(self, config: Mapping[str, Any]) -> Self:
        chosen = config.get("calibration_temperature")
        return self.model_copy(update={"temperature": chosen}) if chosen else self

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return softmax(logits / self.temperature if self.temperature else logits)

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return classification_scores(targets, outputs, weights, labels)

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `label` and `probability` of each row; the next likely as `label_2`, `probability_2` and so on."""
        found = []
        for chances in outputs:
            ranked = np.argsort(-chances, kind="stable")[:top_k]
            answer: dict[str, Any] = {}
            for place, index in enumerate(ranked, 1):
                suffix = "" if place == 1 else f"_{place}"
                answer |= {f"label{suffix}": labels[index], f"probability{suffix}": round(float(chances[index]), 6)}
            found.append(answer)
        return found

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        targets, probabilities = rows["target"].to_numpy(), np.stack(outputs)
        actual = [labels[target] for target in targets]
        predicted = [labels[best] for best in probabilities.argmax(axis=1)]
        table = {name: rows[name] for name in ("row", *self.shown) if name in rows.column_names}
        table |= {"label": actual, "predicted": predicted}
        table |= {f"probability/{label}": probabilities[:, position] for position, label in enumerate(labels)}
        return Judgement(
            units=len(targets), scores=partial(self.scores, targets, probabilities, labels=labels),
            table=table, actual=actual, predicted=predicted, classes=labels,
            without_rows=[label for label in labels if label not in {*actual}],
        )  # fmt: skip

    @abstractmethod
    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        """Returns what simple methods see of both, (rows, features) each: the input's."""

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (1 s that only reports need)

        name, freedom = self.simple
        targets = train["target"].to_numpy()
        shares = np.bincount(targets, minlength=len(labels)) / len(targets)
        seen, asked = self.features(train, split)
        linear = LogisticRegression(C=freedom, max_iter=1000).fit(seen, targets)
        found = np.zeros((split.num_rows, len(labels)))
        found[:, linear.classes_] = linear.predict_proba(asked)
        return {"majority_class": [shares] * split.num_rows, f"{name}_logistic": list(found)}


def unknown_label(label: str, labels: Sequence[str] | None) -> str | None:
    """Returns what is wrong with a label and what to do, or None."""
    if labels is None:
        return None if label.strip() else "is empty; write the label, or set data.checks.unknown_label: drop"
    if label in labels:
        return None
    return f"is not one of {listed(labels)}{did_you_mean(label, labels)}; correct the row or add it to data.labels"
