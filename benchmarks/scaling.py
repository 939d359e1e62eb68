"""B7: how cost grows with rows (1,000 to 100,000) and with epochs: exponents of a power law, fitted to CPU seconds.

The model is tiny, so that what the harness does to each row is what is seen, and one thread computes: waiting is no cost.
"""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from against_trainer import ROOT, lognormal_rows, ours, weights
from step_cost import tiny

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import compose
from finespun.data.checks import check_rows
from finespun.data.encode import encode_splits
from finespun.data.sources import tables

ROWS, EPOCHS = (1_000, 3_000, 10_000, 30_000, 100_000), (1, 2, 4, 8, 16)


def prepare(rows: int) -> Callable[[], object]:
    """Checks, splits and encodes so many reviews: the real ones, each time with a number of its own behind them."""
    folder = Path(tempfile.mkdtemp())
    config, _ = compose(Artifacts(project=ROOT, out=ROOT))
    task = targets.build("task", config.task)
    with (ROOT / config.data.path).open(encoding="utf-8", newline="") as file:
        real = [row for row in csv.DictReader(file) if row["sentiment"] != "neutral"]
    lines = [
        tables.Line(number + 2, {**real[number % len(real)], "text": f"{real[number % len(real)]['text']} {number}"})
        for number in range(rows)
    ]
    encoder = task.encoder(weights())

    def run() -> None:
        report = check_rows(lines, config.data, task)
        encode_splits(
            lines, data=config.data, task=task, encoder=encoder, labels=["negative", "positive"], folder=folder,
            left_out=report.left_out,
        )  # fmt: skip

    return run


def finetune(rows: int, epochs: int = 1) -> Callable[[], object]:
    """Fine-tunes a tiny model on so many rows."""
    return ours(lognormal_rows(rows), Path(tempfile.mkdtemp()), epochs=epochs, model=tiny())


def report(name: str, sizes: Iterable[int], make: Callable[[int], Callable[[], object]]) -> None:
    """Prints CPU seconds and the exponent of the power law through them."""
    found = []
    for size in sizes:
        with contextlib.redirect_stdout(io.StringIO()):
            run = make(size)
            started = time.process_time()
            run()
        found.append((size, time.process_time() - started))
    exponent = np.polyfit(*np.log(np.array(found)).T, 1)[0]
    seconds = ", ".join(f"{size:,}: {spent:.1f}" for size, spent in found)
    print(f"| {name} | {exponent:.2f} | {seconds} |", flush=True)


def main() -> None:
    """Measures preparing and fine-tuning."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        finetune(100)()  # the first call of everything is not what is measured
    print("| cost | exponent | CPU seconds |\n|---|---|---|")
    report("`prepare`, rows", ROWS, prepare)
    report("`finetune`, rows, one epoch", ROWS, finetune)
    report("`finetune`, epochs, 1,000 rows", EPOCHS, lambda epochs: finetune(1_000, epochs))


if __name__ == "__main__":
    main()
