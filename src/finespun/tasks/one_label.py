"""One label as a task's answer: what classifying texts and images has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from finespun.errors import DataError, did_you_mean, listed
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Values
from finespun.tasks.scores import classification_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection


class OneLabel(Defaults):
    """Binary and multi-class answers."""

    answer_roles: ClassVar[tuple[str, ...]] = ("label",)
    cannot_keep: ClassVar[tuple[str, ...]] = ("unknown_label", "bad_image")
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "f1_macro", "log_loss")

    shown: ClassVar[tuple[str, ...]]
    simple: ClassVar[tuple[str, float]]  # of the input: what a simple method sees, and how little it is held back

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    monitor: Literal["val/accuracy", "val/f1_macro", "val/f1_micro", "val/loss"]
    monitor_mode: Literal["max", "min"]

    def answers(self, values: Values) -> Sequence[str]:
        return [values["label"]]

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        names = list(found)
        if len(names) < 2:
            raise DataError(
                f"data.columns.label: {columns['label']!r} says only {listed(names)}; a classifier needs two labels or more:"
                " look at the column (of an image folder: at its sub-folders)"
            )
        return names

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        if "label" in values:
            yield from unknown_label(values["label"], labels)

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Returns `target`, the position of each row's label, where labels are given."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if labels is None:
            return {}
        index = {label: position for position, label in enumerate(labels)}
        return {"target": pa.array([index[row["label"]] for row in rows], pa.int64())}

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return {**named_outputs(labels), "problem_type": "single_label_classification"}

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        smoothing = self.label_smoothing if training else 0.0
        return functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        from torchmetrics import MetricCollection  # noqa: PLC0415
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score  # noqa: PLC0415

        count = len(labels)
        return MetricCollection({
            "accuracy": MulticlassAccuracy(count, average="micro"),
            "f1_macro": MulticlassF1Score(count, average="macro"),
            "f1_micro": MulticlassF1Score(count, average="micro"),
        })  # fmt: skip

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return softmax(logits)

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
            units=len(targets), scores=lambda weights: classification_scores(targets, probabilities, weights, labels),
            table=table, actual=actual, predicted=predicted, classes=labels,
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


def unknown_label(label: str, labels: Sequence[str] | None) -> Iterator[Problem]:
    """Yields what is wrong with one label."""
    if labels is None and not label.strip():
        yield "unknown_label", "label", "is empty; write the label, or set data.checks.unknown_label: drop"
    if labels is not None and label not in labels:
        hint = did_you_mean(label, labels)
        yield "unknown_label", "label", f"is not one of {listed(labels)}{hint}; correct the row or add it to data.labels"


def named_outputs(labels: Sequence[str]) -> dict[str, Any]:
    """Returns what a model's configuration says of its outputs."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: position for position, label in enumerate(labels)},
    }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns probabilities over the last axis, in double precision."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
