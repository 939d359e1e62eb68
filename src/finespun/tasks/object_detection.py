"""Boxes around objects in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finespun.tasks.answers.boxes import LEAST, PADDING, WHOLE, BoxList
from finespun.tasks.base import Batch, Outputs
from finespun.tasks.inputs.augmentation import warped
from finespun.tasks.inputs.tiles import joined_boxes
from finespun.tasks.inputs.whole_images import ORIGINAL, WholeImages

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from finespun.tasks.inputs.image_encoder import ImageEncoder


SEVERAL_A_QUERY = ("conditional_detr", "deformable_detr")  # of which transformers keeps more answers than there are queries


class ObjectDetection(WholeImages, BoxList):
    """Detectors of transformers; the loss is the model's own, with its own matching of queries and boxes."""

    auto_class: ClassVar[str] = "AutoModelForObjectDetection"

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: ImageEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns inputs and boxes as shares of what the model is given, which with padding is more than the image."""
        inputs, targets = super().collate(columns, encoder)
        filled = self._filled(inputs)
        if filled is not None and targets is not None:
            share = (filled / filled.new_tensor(encoder.size)).flip(1)
            targets[..., 1:5] *= share.repeat(1, 2)[:, None]
        return inputs, targets

    def augment(self, batch: Batch, encoder: ImageEncoder, *, epoch: int, seed: int) -> Batch:
        """Boxes move with the pixels: each becomes the smallest upright one around its corners, cut at the image's sides."""
        changed = super().augment(batch, encoder, epoch=epoch, seed=seed)
        if not self.augmentation.moves:
            return changed
        rows = batch.rows.to(batch.targets.device)
        matrix, flip = self.augmentation.moved(rows, encoder.size, epoch=epoch, seed=seed)
        if "pixel_mask" in changed.inputs:
            mask = warped(changed.inputs["pixel_mask"][:, None].float(), matrix, flip=flip, outside=0.0)[:, 0].long()
            changed = changed._replace(inputs=changed.inputs | {"pixel_mask": mask})
        return changed._replace(targets=moved_boxes(batch.targets, matrix, flip, encoder.size))

    def _joined(self, rows: pa.Table, outputs: Outputs) -> tuple[pa.Table, Outputs]:
        """Returns a row an image and its boxes, where rows are tiles of images."""
        if not self.cut:
            return rows, outputs
        parts = [*self._by_image(rows, outputs)]
        table = rows.take([place for place, _, _ in parts])
        if WHOLE in table.column_names:
            table = table.set_column(table.column_names.index("target"), "target", table[WHOLE])
        sizes = zip(*(table[name].to_pylist() for name in ORIGINAL), strict=True)
        joined = []
        for (_, tiles, found), size in zip(parts, sizes, strict=True):
            known = [each[each[:, 0] >= 0].astype(np.float64) for each in found]
            joined.append(joined_boxes(known, tiles, size))
        return table, joined

    def forward(self, model: Any, batch: Batch) -> Any:
        """Returns `losses` (rows,), the model's own loss for each row, and `found` (rows, boxes, 6)."""
        labels = []
        for boxes in batch.targets:
            known = boxes[(boxes[:, 0] != PADDING) & (boxes[:, 5] == 0)]  # crowds are no examples
            labels.append({"class_labels": known[:, 0].long(), "boxes": known[:, 1:5]})
        output = model(**_given(model, batch.inputs), labels=labels)
        return {"losses": output.loss.expand(len(labels)), "found": self._found(model, output)}

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        """Returns label, score and edges (as shares of the image) of each row's boxes, (boxes, 6), the highest scores first."""
        found = self._found(model, model(**_given(model, inputs))).double()
        filled = self._filled(inputs)
        if filled is not None:
            found = _without_padding(found, filled / filled.new_tensor(inputs["pixel_values"].shape[-2:]))
        return [*found.cpu().numpy()]

    def _found(self, model: Any, output: Any) -> torch.Tensor:
        logits = output.logits.detach()
        several = model.config.model_type in SEVERAL_A_QUERY
        most = self.max_boxes if several else min(self.max_boxes, logits.shape[1])
        return found_boxes(logits, output.pred_boxes.detach(), model.config.num_labels, most)


def _given(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns what a detector is called with: `pixel_mask` too, where there is one and the detector takes it."""
    names = ("pixel_values",) if model.config.model_type == "yolos" else ("pixel_values", "pixel_mask")
    return {name: inputs[name] for name in names if name in inputs}


def _without_padding(found: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Returns detections (rows, boxes, 6) as shares of the images alone, cut at their ends; those beside them have no label.

    Args:
        found: with edges as shares of images and padding.
        share: (rows, 2), how much of height and width is the image.
    """
    import torch  # noqa: PLC0415

    edges = (found[..., 2:] / share.flip(1).repeat(1, 2)[:, None]).clamp(max=1)
    there = ((edges[..., 2:] - edges[..., :2]) > 0).all(-1)
    label = torch.where(there, found[..., 0], PADDING)
    return torch.cat([label[..., None], found[..., 1:2], edges], -1)


def found_boxes(logits: torch.Tensor, places: torch.Tensor, count: int, most: int) -> torch.Tensor:
    """Returns label, score and edges of the best boxes, (rows, boxes, 6), as the models' own post-processing finds them.

    Where logits (rows, queries, `count` + 1) have one for nothing, a query has one label (DETR, YOLOS); else each of its labels
    is an answer of its own (Deformable and Conditional DETR, RT-DETR, D-FINE).
    """
    import torch  # noqa: PLC0415

    half = places[..., 2:] / 2
    edges = torch.cat([places[..., :2] - half, places[..., :2] + half], -1)
    logits = logits.float()
    if logits.shape[-1] == count + 1:
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        scores, query = scores.topk(min(most, scores.shape[1]))
        labels = labels.gather(1, query)
    else:
        scores, place = logits.sigmoid().flatten(1).topk(min(most, logits[0].numel()))
        labels, query = place % logits.shape[-1], place // logits.shape[-1]
    edges = edges.gather(1, query[..., None].expand(-1, -1, 4))
    return torch.cat([labels[..., None].float(), scores[..., None], edges.float()], -1)


def moved_boxes(targets: torch.Tensor, matrix: torch.Tensor | None, flip: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Returns targets (rows, boxes, 6) as an image of (height, width) was flipped and moved; those that left it are padding.

    Args:
        targets: label, centre and size as shares of the image, crowd.
        matrix: (rows, 2, 3), from places of pixels to new ones, or None.
        flip: (rows,).
        size: of the images that the model is given.
    """
    import torch  # noqa: PLC0415

    label, x, y, width, height, crowd = targets.unbind(-1)
    x = torch.where(flip[:, None], 1 - x, x)
    if matrix is None:
        return torch.stack([label, x, y, width, height, crowd], -1)
    sides = targets.new_tensor([size[1], size[0]])
    corners = [torch.stack([x + right * width / 2, y + down * height / 2], -1) for right in (-1, 1) for down in (-1, 1)]
    places = torch.stack(corners, 2) * sides - 0.5  # (rows, boxes, corners, 2): the centre of the first pixel is 0
    turn, shift = matrix[:, None, None, :, :2].to(targets), matrix[:, None, None, :, 2].to(targets)
    places = ((turn @ places[..., None])[..., 0] + shift + 0.5) / sides
    low, high = places.amin(2), places.amax(2)
    whole = (high - low).prod(-1)
    low, high = low.clamp(0, 1), high.clamp(0, 1)
    kept = (high - low).prod(-1) > LEAST * whole
    label = torch.where(kept, label, PADDING)
    return torch.cat([label[..., None], (low + high) / 2, high - low, crowd[..., None]], -1)
