"""Pairs of texts for embeddings: movie reviews, the first half of each as the query for the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from finespun.models.pretrained import load_model
from finespun.tasks.base import Batch
from finespun.tasks.ranking.text_embedding import TextEmbedding
from helpers import real_rows

TASK: dict[str, Any] = {
    "loss_function": "info_nce", "temperature": 0.05, "margin": 0.2, "pooling": "mean", "dimensions": [], "max_length": 48,
    "vector_dtype": "float32", "hard_negatives": 0,
    "query_prefix": "", "item_prefix": "", "candidates": 100, "monitor": "val/loss", "monitor_mode": "min",
}  # fmt: skip
TARGET = {"_target_": "finespun.tasks.ranking.text_embedding.TextEmbedding"}


def build(**changes: Any) -> TextEmbedding:
    return TextEmbedding.model_validate(TASK | changes)


def pairs(count: int, *, negatives: bool = False, scores: bool = False) -> list[dict[str, str]]:
    """Real texts by role; a negative is the positive backwards, a score grows with the row's number."""
    texts = [row["text"] for row in real_rows(count + 40) if len(row["text"].split()) >= 4][:count]
    rows = []
    for place in range(count):
        words = texts[place].split()
        row = {"text": " ".join(words[: len(words) // 2]), "positive": texts[place]}
        row |= {"negative": " ".join(reversed(words))} if negatives else {}
        rows.append(row | ({"score": f"{place / count:.3f}"} if scores else {}))
    return rows


def batch_of(task: TextEmbedding, folder: Path, rows: list[dict[str, str]]) -> tuple[Batch, pa.Table]:
    encoder = task.encoder(folder)
    table = pa.table(task.encode(rows, encoder, ["similarity"]))
    kept = [name for name in (*task.model_columns, "target") if name in table.column_names]
    inputs, targets = task.collate({name: table[name].to_pylist() for name in kept}, encoder)
    assert targets is not None
    number = torch.arange(len(rows))
    return Batch(inputs, targets, number, torch.full((len(rows),), 1 / len(rows)), len(rows)), table


def model_of(folder: Path) -> Any:
    return load_model(folder, auto_class="AutoModel", options={}, new_head=True).eval()
