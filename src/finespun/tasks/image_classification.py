"""One label for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finespun.tasks.base import Columns, Problem, Values
from finespun.tasks.image_encoder import ImageEncoder
from finespun.tasks.images import ImageInput
from finespun.tasks.one_label import OneLabel

if TYPE_CHECKING:
    import torch


class ImageClassification(ImageInput, OneLabel):
    """Binary and multi-class classification of images."""

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    roles: ClassVar[tuple[str, ...]] = ("image", "label")

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from self.label_problems(values, labels)
        yield from self.input_problems(values)

    def encode(self, rows: Sequence[Values], encoder: ImageEncoder, labels: Sequence[str] | None) -> Columns:
        return self.encode_inputs(rows, encoder) | self.encode_targets(rows, labels)

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: ImageEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        return self.collate_inputs(columns, encoder), self.collate_targets(columns)
