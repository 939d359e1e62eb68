"""The images of a split that a model got most wrong, drawn twice: as they are labelled and as they are predicted."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from finespun.data.images import INLINE
from finespun.evaluation.drawing import COLOURS, DRAWN, framed, mask_of, overlaid
from finespun.tasks.answers.several_labels import NONE
from finespun.tasks.base import Encoder, Task
from finespun.tasks.inputs.image_files import pixels_of

MOST = 24  # rows that are drawn
SIDE = 256  # pixels of an image's longer side
GAP = 4  # pixels between the two
COLUMN = "picture"  # of the predictions: a JPEG as text, in the rows that are drawn


def with_pictures(
    predictions: pa.Table, rows: pa.Table, *, model: Any, task: Task, encoder: Encoder, labels: Sequence[str]
) -> pa.Table:
    """Returns predictions with the column `picture`, where answers have places in images; the worst rows have one.

    These rows are predicted again: of a whole split no masks are kept.

    Args:
        predictions: a line a row, with `mistakes`, how many boxes are wrong, or `mean_iou`.
        rows: of prepared data, in the same order.
        model: on whichever device.
        task: says what outputs mean.
        encoder: the task's.
        labels: of the model.
    """
    if not set(DRAWN) & set(task.answer_roles) or rows.num_rows != predictions.num_rows:
        return predictions  # of tiles: no row has the whole image
    import torch  # noqa: PLC0415  (the report reads what is made here, and needs no torch)

    chosen = _worst(predictions)
    table = rows.take(pa.array(chosen))
    inputs, _ = task.collate(
        {name: table[name].to_pylist() for name in task.model_columns if name in table.column_names}, encoder
    )
    device = next(model.parameters()).device
    with torch.inference_mode():
        outputs = task.predict(model.eval(), {name: tensor.to(device) for name, tensor in inputs.items()})
    answers = task.predictions(table, outputs, labels, top_k=1)
    pictures: list[str | None] = [None] * predictions.num_rows
    for place, row, answer in zip(chosen, table.to_pylist(), answers, strict=True):
        actual = {"boxes": json.loads(predictions["boxes"][place].as_py())} if "boxes" in answer else {}
        pictures[place] = _side_by_side(row, actual, answer, labels)
    return predictions.append_column(COLUMN, pa.array(pictures, pa.string()))


def shown(predictions: pa.Table, labels: Sequence[str]) -> dict[str, Any] | None:
    """Returns `rows` (row, image, said, picture), the worst first, and a `legend` of (label, colour); None without pictures."""
    if COLUMN not in predictions.column_names:
        return None
    names = [name for name in ("row", "image", "mistakes", "mean_iou", COLUMN) if name in predictions.column_names]
    found = predictions.select(names).to_pylist()
    lines = [found[place] for place in _worst(predictions) if found[place][COLUMN]]
    for line in lines:
        count = line.get("mistakes")
        line["said"] = f"mean IoU {line['mean_iou']:.2f}" if count is None else f"{count} box{'es' * (count != 1)} wrong"
    boxes = "mistakes" in names
    legend = [
        (label, "#{:02x}{:02x}{:02x}".format(*_colour(place, boxes=boxes)))
        for place, label in enumerate(labels)
        if label != NONE
    ]
    return {"rows": lines, "legend": legend}


def _worst(predictions: pa.Table) -> list[int]:
    """Returns the places of the rows that are most wrong, the first of equals first."""
    if "mistakes" in predictions.column_names:
        order = np.argsort(-predictions["mistakes"].to_numpy(), kind="stable")
    else:
        order = np.argsort(np.nan_to_num(predictions["mean_iou"].to_numpy(), nan=1.0), kind="stable")
    return [int(place) for place in order[:MOST]]


def _colour(label: int, *, boxes: bool) -> tuple[int, int, int]:
    red, green, blue = COLOURS[(1 + label) % 256 if boxes else label].tolist()
    return red, green, blue


def _side_by_side(row: Mapping[str, Any], actual: Mapping[str, Any], answer: Mapping[str, Any], labels: Sequence[str]) -> str:
    pixels = pixels_of(row)
    inside = np.s_[: row["filled"][0], : row["filled"][1]] if "filled" in row else np.s_[:, :]  # all but padding
    original = row["original_width"], row["original_height"]
    share = SIDE / max(original)
    width, height = (max(1, round(share * side)) for side in original)
    image = Image.fromarray(pixels[inside]).resize((width, height))
    if "boxes" in answer:
        pair = [framed(image, each["boxes"], labels, scale=share) for each in (actual, answer)]
    else:
        target = np.frombuffer(row["target"], np.uint8).reshape(pixels.shape[:2])[inside]
        pair = [overlaid(image, mask) for mask in (target, mask_of(answer["mask"]))]
    whole = Image.new("RGB", (2 * width + GAP, height), "white")
    whole.paste(pair[0], (0, 0))
    whole.paste(pair[1], (width + GAP, 0))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=80)
    return f"{INLINE}jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
