"""One label for each text, or for each pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finespun.tasks.base import Columns, Problem, Values
from finespun.tasks.one_label import OneLabel
from finespun.tasks.text import TextEncoder, TextInput

if TYPE_CHECKING:
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
