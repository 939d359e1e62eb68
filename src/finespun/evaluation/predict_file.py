"""Labels for the rows of a file: streaming, in order, with all other columns kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finespun.data import sources
from finespun.data.sources import Row, chunks
from finespun.errors import DataError, ModelError, did_you_mean, listed
from finespun.models.pretrained import load_model, load_tokenizer, pad_token_id
from finespun.tasks.text_classification import TextClassification, pad
from finespun.training.hardware import choose_accelerator

BATCH_TOKENS = 4096  # tokens of one forward pass, padding included


def predict_file(source: Path, output: Path, *, folder: Path, text_column: str | None) -> int:
    """Predicts `source` into `output` and returns the number of rows.

    Raises:
        ModelError: `folder` holds no fine-tuned model.
        DataError: the file cannot be read, or has no such column.
    """
    for path in {source, output} - {Path("-")}:
        sources.format_of(path)  # before a model is loaded and rows are read
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no fine-tuned model; run `dvc repro` first, or name one with --model")
    lines = _lines_of_text() if str(source) == "-" else sources.read(source)
    column = "text" if str(source) == "-" else text_column or _trained_column(folder)
    return sources.write(_predicted(lines, Texts(folder), column, str(source)), output)


def _lines_of_text() -> Iterator[sources.Line]:
    for number, line in enumerate(sys.stdin, 1):
        yield sources.Line(number, {"text": line.rstrip("\n")})


def _trained_column(folder: Path) -> str:
    path = folder / "run.json"
    if not path.is_file():
        return "text"
    return str(json.loads(path.read_text(encoding="utf-8"))["columns"]["text"])


def _predicted(lines: Iterator[sources.Line], texts: Texts, column: str, name: str) -> Iterator[Row]:
    for chunk in chunks(lines):
        for line in chunk:
            if column not in line.row:
                near = did_you_mean(column, line.row)
                raise DataError(
                    f"{name}:{line.number}: has no column {column!r}{near}; it has: {listed(line.row)}; set --text-column"
                )
        labels, probabilities = texts.predict(["" if line.row[column] is None else str(line.row[column]) for line in chunk])
        for line, label, probability in zip(chunk, labels, probabilities, strict=True):
            yield {**line.row, _free("label", line.row): label, _free("probability", line.row): probability}


def _free(name: str, row: Row) -> str:
    """A name for a new column: nothing of the user's is written over."""
    while name in row:
        name = f"predicted_{name}"
    return name


class Texts:
    """A fine-tuned text classifier."""

    def __init__(self, folder: Path) -> None:
        self.device = choose_accelerator("auto")
        self.tokenizer = load_tokenizer(folder)
        self.model: Any = load_model(folder, auto_class=TextClassification.auto_class, options={}).to(self.device).eval()

    def predict(self, texts: list[str]) -> tuple[list[str], list[float]]:
        """Returns the likeliest label of each text and its probability."""
        ids = self.tokenizer(texts, truncation=True)["input_ids"]
        order = np.argsort([-len(one) for one in ids], kind="stable")
        best = np.zeros(len(texts), dtype=int)
        probability = np.zeros(len(texts))
        start = 0
        while start < len(order):
            rows = order[start : start + max(1, BATCH_TOKENS // max(1, len(ids[order[start]])))]
            padded, mask = pad([ids[row] for row in rows], pad_token_id(self.tokenizer))
            batch = {"input_ids": padded.to(self.device), "attention_mask": mask.to(self.device)}
            with torch.inference_mode():
                chances = self.model(**batch).logits.float().softmax(dim=-1).max(dim=-1)
            best[rows], probability[rows] = chances.indices.cpu().numpy(), chances.values.cpu().numpy()
            start += len(rows)
        labels = self.model.config.id2label
        return [labels[index] for index in best], probability.round(6).tolist()
