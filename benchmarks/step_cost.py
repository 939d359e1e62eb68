"""What a step costs beyond a bare torch loop over the same batches: in Lightning's loop, and for a head alone.

The bare loop does what must be done (batches, forward, loss, backward, clipping, optimizer, schedule, validation each epoch)
and nothing else. Every arm runs on few and on many rows, in turn; the difference of the minima over the difference in steps is
what a step costs, the rest is what a run and its epochs cost. The model is tiny, so that the harness is what is seen.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from against_trainer import BATCH, ROOT, Rows, lognormal_rows, ours
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.data.batches import training_steps
from finespun.models.cpu.dropout import Dropout
from finespun.models.cpu.kernels import cpu_kernels
from finespun.tracking.client import Tracker

EPOCHS, ROWS, ROUNDS = {"whole": 2, "head": 20}, (1600, 6400), 4
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def tiny() -> BertForSequenceClassification:
    """A BERT of one small layer."""
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=30522)
    )


def bare(
    forward: Callable[[dict[str, torch.Tensor]], torch.Tensor], parameters: list[nn.Parameter],
    batches: Callable[[], Iterable[Batch]], epochs: int, steps: int,
) -> None:  # fmt: skip
    """The loop that one would write by hand; the first batch is the validation split."""
    decayed, others = ([p for p in parameters if (p.ndim > 1) == matrix] for matrix in (True, False))
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, epochs * steps)
    for _ in range(epochs):
        for inputs, targets in batches():
            cross_entropy(forward(inputs), targets).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        with torch.inference_mode():
            inputs, targets = next(iter(batches()))
            cross_entropy(forward(inputs), targets)


def collate(rows: Rows) -> Batch:
    """Pads rows, as one does by hand."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}, torch.tensor([row["labels"] for row in rows])


def bare_whole(rows: Rows) -> float:
    """Seconds of the bare loop over the whole tiny model; torch's loader makes the very batches that finespun takes."""
    lengths = np.array([len(row["input_ids"]) for row in rows], dtype=np.int32)
    steps = [positions.tolist() for positions in training_steps(lengths, BATCH, seed=42, epoch=0)]
    loader: Any = DataLoader(rows, batch_sampler=steps, collate_fn=collate)  # type: ignore[arg-type]
    model = tiny()
    with cpu_kernels(model, collate(rows[:4])[0], on=True):  # the arithmetic is the same on both sides
        model.train()
        started = time.perf_counter()
        bare(lambda inputs: model(**inputs).logits, list(model.parameters()), lambda: loader, EPOCHS["whole"], len(steps))
        return time.perf_counter() - started


def bare_head(rows: Rows, width: int = 384) -> float:
    """Seconds of the bare loop over a pooler and a classifier of MiniLM's width; all rows are shuffled at once, then cut."""
    head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), Dropout(0.1), nn.Linear(width, 2))
    features, targets = torch.randn(len(rows), width), torch.tensor([row["labels"] for row in rows])

    def batches() -> Iterator[Batch]:
        order = torch.randperm(len(rows))
        for part, answers in zip(features[order].split(BATCH), targets[order].split(BATCH), strict=True):
            yield {"input": part}, answers

    started = time.perf_counter()
    bare(lambda inputs: head(inputs["input"]), list(head.parameters()), batches, EPOCHS["head"], len(rows) // BATCH)
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


def arms(rows: Rows, cache: Path) -> dict[str, float]:
    """Seconds of each arm on some rows."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        tempfile.TemporaryDirectory() as three,
    ):
        whole = ours(rows, Path(one), epochs=EPOCHS["whole"], model=tiny())
        head = ours(rows, Path(two), epochs=EPOCHS["head"], strategy="head", features=cache / str(len(rows)))
        return {
            "bare, whole": bare_whole(rows), "finespun, whole": timed(whole),
            "finespun, whole, to MLflow": logged(rows, Path(three), EPOCHS["whole"]),
            "bare, head": bare_head(rows), "finespun, head": timed(head),
        }  # fmt: skip


def main() -> None:
    """Prints the comparisons, on one thread: on more, waiting for each other is all that one would see of tiny products."""
    torch.set_num_threads(1)
    best: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(ROUNDS + 1):  # the first round warms up and computes the activations
            for count in ROWS:
                for name, seconds in arms(lognormal_rows(count), Path(cache)).items():
                    if number:
                        best[name, count] = min(seconds, best.get((name, count), seconds))
    few, many = (rows / BATCH for rows in ROWS)
    print(f"{ROUNDS} rounds; {EPOCHS} epochs of {ROWS} rows, {BATCH} a step\n")
    print("| loop | bare, ms a step | finespun, ms a step | more | a run and its epochs: bare, ms | finespun, ms |")
    print("|---|---|---|---|---|---|")
    for kind in ("whole", "whole, to MLflow", "head"):
        part = kind.partition(",")[0]
        costs = []
        for name in (f"bare, {part}", f"finespun, {kind}"):
            step = (best[name, ROWS[1]] - best[name, ROWS[0]]) / (EPOCHS[part] * (many - few))
            costs.append((1000 * step, 1000 * (best[name, ROWS[0]] - EPOCHS[part] * few * step)))
        (bare_step, bare_rest), (step, rest) = costs
        print(f"| {kind} | {bare_step:.3f} | {step:.3f} | {step - bare_step:+.3f} | {bare_rest:.0f} | {rest:.0f} |")


if __name__ == "__main__":
    main()
