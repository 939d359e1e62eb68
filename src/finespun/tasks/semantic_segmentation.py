"""A class for each pixel of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finespun.tasks.answers.masks import Masks, nearest
from finespun.tasks.answers.pixels import IGNORED, boundaries, confusion, upsampled
from finespun.tasks.base import Batch, Outputs
from finespun.tasks.inputs.augmentation import warped
from finespun.tasks.inputs.tiles import joined_mask
from finespun.tasks.inputs.whole_images import ORIGINAL, WholeImages

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import torch

    from finespun.tasks.inputs.image_encoder import ImageEncoder


IGNORED_AS = ("semantic_loss_ignore_index", "loss_ignore_index")  # of configurations; the second is UperNet's


class SemanticSegmentation(WholeImages, Masks):
    """Semantic segmentation; logits may be smaller than the image, and are scaled up as transformers does it."""

    auto_class: ClassVar[str] = "AutoModelForSemanticSegmentation"

    def equip(self, model: Any, encoder: ImageEncoder, folder: Path) -> None:
        """Has the model's own loss skip what ours skips."""
        super().equip(model, encoder, folder)
        name = next((name for name in IGNORED_AS if hasattr(model.config, name)), None)
        if name:
            setattr(model.config, name, IGNORED)

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: ImageEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns `pixel_values` and, where masks are known, `labels`, which `predict` counts against."""
        inputs, targets = super().collate(columns, encoder)
        return (inputs if targets is None else inputs | {"labels": targets}), targets

    def augment(self, batch: Batch, encoder: ImageEncoder, *, epoch: int, seed: int) -> Batch:
        """Masks move with the pixels; what comes in from outside has no class."""
        changed = super().augment(batch, encoder, epoch=epoch, seed=seed)
        if not self.augmentation.moves:
            return changed
        matrix, flip = self.augmentation.moved(
            batch.rows.to(batch.targets.device), encoder.size, epoch=epoch, seed=seed
        )  # fmt: skip
        masks = warped(batch.targets[:, None].float(), matrix, flip=flip, outside=float(IGNORED))[:, 0].long()
        return changed._replace(inputs=changed.inputs | {"labels": masks}, targets=masks)

    def _joined(self, rows: pa.Table, outputs: Outputs) -> tuple[pa.Table, Outputs]:
        """Returns a row an image and its mask, or its counts (pixels of two tiles count twice), where rows are tiles."""
        if not self.cut:
            return rows, outputs
        parts = [*self._by_image(rows, outputs)]
        table = rows.take([place for place, _, _ in parts])
        if "target" in table.column_names:
            return table, [np.sum(found, axis=0) for _, _, found in parts]
        sizes = zip(*(table[name].to_pylist() for name in ORIGINAL), strict=True)
        joined: list[Any] = []
        for (_, tiles, found), size in zip(parts, sizes, strict=True):
            masks = [nearest(mask.astype(np.uint8), tile.size) for mask, tile in zip(found, tiles, strict=True)]
            joined.append(joined_mask(masks, tiles, size))
        return table, joined

    def forward(self, model: Any, batch: Batch) -> Any:
        return model(pixel_values=batch.inputs["pixel_values"]).logits

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        """Returns counts of each row whose mask is known, else the mask, (height, width).

        Of a padded image, the mask is of what is not padding.
        Counts are (classes, classes + 4): pixels of each class that are predicted as each, and those of boundaries.
        """
        import torch  # noqa: PLC0415  (prepare encodes with this class and imports no torch)

        logits, pixels = model(pixel_values=inputs["pixel_values"]).logits, inputs["pixel_values"]
        found = upsampled(logits, inputs.get("labels", pixels)).argmax(1)
        if "labels" in inputs:
            given = found, inputs["labels"], logits.shape[1]
            found = torch.cat([confusion(*given), boundaries(*given)], dim=2)
        outputs, filled = [*found.cpu().numpy()], self._filled(inputs)
        if "labels" in inputs or filled is None:
            return outputs
        return [mask[:height, :width] for mask, (height, width) in zip(outputs, filled.tolist(), strict=True)]
