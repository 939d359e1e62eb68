"""One label for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from finespun.tasks.base import Columns, Outputs, Problem, Values
from finespun.tasks.image_encoder import ImageEncoder
from finespun.tasks.images import ImageInput
from finespun.tasks.one_label import OneLabel

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

SMALL = 16  # side of the grey pictures that a simple method sees


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

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (1 s that only reports need)

        targets = train["target"].to_numpy()
        shares = np.bincount(targets, minlength=len(labels)) / len(targets)
        linear = LogisticRegression(C=1.0, max_iter=1000).fit(grey(train), targets)
        found = np.zeros((split.num_rows, len(labels)))
        found[:, linear.classes_] = linear.predict_proba(grey(split))
        return {"majority_class": [shares] * split.num_rows, "pixels_logistic": list(found)}


def grey(table: pa.Table) -> NDArray[np.float32]:
    """Returns small grey pictures, (rows, 256) from 0 to 1, never holding more than one large one."""
    from PIL import Image  # noqa: PLC0415

    found = np.empty((table.num_rows, SMALL * SMALL), dtype=np.float32)
    place = 0
    for batch in table.select(["pixels", "height"]).to_batches():
        for pixels, height in zip(batch["pixels"], batch["height"].to_pylist(), strict=True):
            data = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(height, -1, 3)
            small = Image.fromarray(data).convert("L").resize((SMALL, SMALL), Image.Resampling.BOX)
            found[place] = np.asarray(small, dtype=np.float32).ravel() / 255
            place += 1
    return found
