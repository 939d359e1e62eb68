"""One label for each text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from finespun.config.sections import Section
from finespun.errors import did_you_mean, listed
from finespun.tasks.scores import classification_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torchmetrics import MetricCollection

    from finespun.tasks.base import Columns


class TextClassification(Section):
    """Binary and multi-class classification of texts."""

    roles: ClassVar[tuple[str, ...]] = ("text", "label")
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"

    max_length: PositiveInt
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    monitor: Literal["val/accuracy", "val/f1_macro", "val/f1_micro", "val/loss"]
    monitor_mode: Literal["max", "min"]

    def content(self, values: Mapping[str, str]) -> str:
        return values["text"]

    def target(self, values: Mapping[str, str]) -> str:
        return values["label"]

    def problems(self, values: Mapping[str, str], labels: Sequence[str] | None) -> Iterator[tuple[str, str, str]]:
        if not values["text"].strip():
            yield "empty_text", "text", "is empty; write the text, or set data.checks.empty_text: drop"
        label = values["label"]
        if labels is None and not label.strip():
            yield "unknown_label", "label", "is empty; write the label, or set data.checks.unknown_label: drop"
        if labels is not None and label not in labels:
            hint = did_you_mean(label, labels)
            yield "unknown_label", "label", f"is not one of {listed(labels)}{hint}; correct the row or add it to data.labels"

    def encode(self, rows: Sequence[Mapping[str, str]], tokenizer: Tokenizer, labels: Sequence[str] | None) -> Columns:
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        tokenizer.enable_truncation(self.max_length)
        tokenizer.no_padding()
        encodings = tokenizer.encode_batch_fast([row["text"] for row in rows])
        ids = [encoding.ids for encoding in encodings]
        columns = {
            "text": pa.array([row["text"] for row in rows], pa.string()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "length": pa.array([len(one) for one in ids], pa.int32()),
            "truncated": pa.array([bool(encoding.overflowing) for encoding in encodings], pa.bool_()),
        }
        if labels is not None:
            index = {label: position for position, label in enumerate(labels)}
            columns["target"] = pa.array([index[row["label"]] for row in rows], pa.int64())
        return columns

    def collate(self, columns: Mapping[str, Sequence[Any]], pad_token_id: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        import torch  # noqa: PLC0415  (prepare encodes with this class and imports no torch)

        ids, mask = pad(columns["input_ids"], pad_token_id)
        targets = torch.as_tensor(np.asarray(columns["target"], dtype=np.int64))
        return {"input_ids": ids, "attention_mask": mask}, targets

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: position for position, label in enumerate(labels)},
            "problem_type": "single_label_classification",
        }

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        smoothing = self.label_smoothing if training else 0.0
        return functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)

    def metrics(self, num_labels: int) -> MetricCollection:
        from torchmetrics import MetricCollection  # noqa: PLC0415
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score  # noqa: PLC0415

        return MetricCollection({
            "accuracy": MulticlassAccuracy(num_labels, average="micro"),
            "f1_macro": MulticlassF1Score(num_labels, average="macro"),
            "f1_micro": MulticlassF1Score(num_labels, average="micro"),
        })  # fmt: skip

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def predictions(self, outputs: NDArray[np.float64], labels: Sequence[str]) -> dict[str, list[Any]]:
        best = outputs.argmax(axis=1)
        return {"label": [labels[index] for index in best], "probability": outputs.max(axis=1).round(6).tolist()}

    def scores(
        self, targets: NDArray[np.int64], outputs: NDArray[np.float64], weights: NDArray[np.float64], labels: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        return classification_scores(targets, outputs, weights, labels)

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  (1.4 s that only reports need)
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415

        targets = train["target"].to_numpy()
        shares = np.bincount(targets, minlength=len(labels)) / len(targets)
        linear = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1000)
        )
        linear.fit(train["text"].to_pylist(), targets)
        found = np.zeros((split.num_rows, len(labels)))
        found[:, linear.classes_] = linear.predict_proba(split["text"].to_pylist())
        return {"majority_class": np.tile(shares, (split.num_rows, 1)), "tfidf_logistic": found}


def pad(ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns token ids and attention mask, (rows, longest) each; a row without tokens is one token of padding."""
    import torch  # noqa: PLC0415

    lengths = np.array([len(one) for one in ids])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    padded = np.full(mask.shape, pad_token_id, dtype=np.int64)
    padded[mask] = np.concatenate([np.asarray(one, dtype=np.int64) for one in ids])
    return torch.from_numpy(padded), torch.from_numpy(mask.astype(np.int64))
