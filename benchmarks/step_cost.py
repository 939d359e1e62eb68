"""What a step costs beyond a bare torch loop over the same batches: in Lightning's loop, and for a head alone.

The bare loop does what must be done (forward, loss, backward, clipping, optimizer, schedule, validation each epoch) and nothing
else. Arms run in turn; minima of a step's milliseconds are compared. The model is tiny, so that the harness is what is seen.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from against_trainer import BATCH, ROOT, Rows, lognormal_rows, ours
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.data.batches import training_steps
from finespun.models.dropout import Dropout, attend_quickly, drop_quickly
from finespun.tracking.client import Tracker

EPOCHS, ROWS, ROUNDS = {"whole": 3, "head": 30}, 6400, 3
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def tiny() -> BertForSequenceClassification:
    """A BERT of one small layer."""
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=30522)
    )


def bare(forward: Callable[[Batch], torch.Tensor], parameters: list[nn.Parameter], batches: list[Batch], epochs: int) -> None:
    """The loop that one would write by hand; the first batch is the validation split."""
    decayed, others = ([p for p in parameters if (p.ndim > 1) == matrix] for matrix in (True, False))
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, epochs * len(batches))
    for _ in range(epochs):
        for batch in batches:
            cross_entropy(forward(batch), batch[1]).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        with torch.inference_mode():
            cross_entropy(forward(batches[0]), batches[0][1])


def bare_whole(rows: Rows) -> float:
    """Seconds of the bare loop over the whole tiny model, on batches made beforehand: the very ones that finespun takes."""
    lengths = np.array([len(row["input_ids"]) for row in rows], dtype=np.int32)
    batches = []
    for positions in training_steps(lengths, BATCH, seed=42, epoch=0):
        part = [rows[position] for position in positions]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in part], batch_first=True)
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        batches.append((inputs, torch.tensor([row["labels"] for row in part])))
    model = tiny()
    drop_quickly(model)  # the arithmetic is the same on both sides
    attend_quickly(model, batches[0][0])
    model.train()
    started = time.perf_counter()
    bare(lambda batch: model(**batch[0]).logits, list(model.parameters()), batches, EPOCHS["whole"])
    return time.perf_counter() - started


def bare_head(rows: Rows, width: int = 384) -> float:
    """Seconds of the bare loop over a pooler and a classifier of MiniLM's width."""
    head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), Dropout(0.1), nn.Linear(width, 2))
    features, targets = torch.randn(len(rows), width), torch.tensor([row["labels"] for row in rows])
    started = time.perf_counter()
    batches = list(zip(features.split(BATCH), targets.split(BATCH), strict=True))
    bare(lambda batch: head(batch[0]), list(head.parameters()), batches, EPOCHS["head"])  # type: ignore[arg-type]
    return time.perf_counter() - started


def timed(run: Callable[[], object]) -> float:
    """Seconds of a run whose output nobody needs."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    return time.perf_counter() - started


def logged(rows: Rows, folder: Path, epochs: int) -> float:
    """Seconds of a run of finespun's over the tiny model whose metrics go to MLflow's embedded database."""
    config, _ = compose(Artifacts(project=ROOT, out=ROOT))
    tracked = Tracker(config.runtime, Artifacts(project=folder, out=folder)).start("bench", tags={}, params={})
    run = ours(rows, folder, epochs=epochs, model=tiny(), sink=tracked.log)

    def train_and_send() -> None:
        with tracked:
            run()

    return timed(train_and_send)


def main() -> None:
    """Prints the comparisons, on one thread: on more, waiting for each other is all that one would see of tiny products."""
    torch.set_num_threads(1)
    rows = lognormal_rows(ROWS)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(ROUNDS + 1):  # the first round warms up and computes the activations
            with (
                tempfile.TemporaryDirectory() as one,
                tempfile.TemporaryDirectory() as two,
                tempfile.TemporaryDirectory() as three,
            ):
                whole = ours(rows, Path(one), epochs=EPOCHS["whole"], model=tiny())
                head = ours(rows, Path(two), epochs=EPOCHS["head"], strategy="head", features=Path(cache))
                times = {
                    "bare, whole": bare_whole(rows), "finespun, whole": timed(whole),
                    "finespun, whole, to MLflow": logged(rows, Path(three), EPOCHS["whole"]),
                    "bare, head": bare_head(rows), "finespun, head": timed(head),
                }  # fmt: skip
            for name, seconds in times.items():
                found.setdefault(name, []).extend([seconds] if number else [])
    best = {name: 1000 * min(seconds) / (EPOCHS[name.split(", ")[1]] * ROWS / BATCH) for name, seconds in found.items()}
    print(f"{ROUNDS} rounds; steps of {BATCH} rows: {EPOCHS} epochs of {ROWS} rows\n")
    print("| loop | bare, ms a step | finespun, ms a step | more |\n|---|---|---|---|")
    for kind in ("whole", "whole, to MLflow", "head"):
        mine, other = best[f"finespun, {kind}"], best[f"bare, {kind.partition(',')[0]}"]
        print(f"| {kind} | {other:.3f} | {mine:.3f} | {mine - other:+.3f} |")
    print(json.dumps({name: [round(each, 2) for each in seconds] for name, seconds in found.items()}))


if __name__ == "__main__":
    main()
