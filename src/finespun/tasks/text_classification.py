"""One label for each text, or for each pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finespun.tasks.base import Columns, Outputs, Problem, Values
from finespun.tasks.one_label import OneLabel
from finespun.tasks.text import TextEncoder, TextInput

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


class TextClassification(TextInput, OneLabel):
    """Binary and multi-class classification of texts."""

    roles: ClassVar[tuple[str, ...]] = ("text", "label")

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from self.input_problems(values)
        yield from self.label_problems(values, labels)

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        return self.encode_inputs(rows, encoder) | self.encode_targets(rows, labels)

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: TextEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        return self.collate_inputs(columns, encoder), self.collate_targets(columns)

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (1 s that only reports need)

        targets = train["target"].to_numpy()
        shares = np.bincount(targets, minlength=len(labels)) / len(targets)
        seen, asked = self.words(train, split)
        linear = LogisticRegression(C=10.0, max_iter=1000).fit(seen, targets)
        found = np.zeros((split.num_rows, len(labels)))
        found[:, linear.classes_] = linear.predict_proba(asked)
        return {"majority_class": [shares] * split.num_rows, "tfidf_logistic": list(found)}
