"""B2: the model's own arithmetic on real tokens, as a share of what sgemm reaches in the same process.

Each number of threads has a process of its own; there, rounds of training and of sgemm take turns. Products with padding, the
optimizer, dropout, norms and everything else that is not a matrix product of the model count as nothing: they are the loss.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from against_trainer import Rows, fresh_model, lognormal_rows, ours, sgemm

ROWS, ROUNDS = 1280, 2


def model_flops(rows: Rows) -> float:
    """Floating-point operations of one training epoch on real tokens: forward and backward are 3 forward passes.

    A layer multiplies each token by 4 matrices of width x width and 2 of width x intermediate, and attention multiplies each
    token twice with all tokens of its row (Kaplan et al., 2020, table 1). The last one does so with the first token of a row
    alone, but for keys and values: 2 matrices. What is not computed counts as nothing, and so does the head.
    """
    config = fresh_model().config
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens = sum(len(row["input_ids"]) for row in rows)
    pairs = sum(len(row["input_ids"]) ** 2 for row in rows)
    whole = 2 * tokens * (4 * width * width + 2 * width * inner) + 4 * pairs * width
    last = 2 * tokens * 2 * width * width + 2 * len(rows) * (2 * width * width + 2 * width * inner) + 4 * tokens * width
    return 3 * ((layers - 1) * whole + last)


def measure() -> None:
    """Prints the table's line for this process's threads."""
    rows = lognormal_rows(ROWS)
    work = model_flops(rows) / 1e9
    reached, probes = [], []
    for number in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            run = ours(rows, Path(folder))
            probe, started = sgemm(), time.perf_counter()
            run()
            seconds = time.perf_counter() - started
        if number:  # the first warms up
            reached.append(work / seconds)
            probes.append(max(probe, sgemm()))
    shares = [mine / top for mine, top in zip(reached, probes, strict=True)]
    print(
        f"| {torch.get_num_threads()} | {max(reached):.0f} | {min(probes):.0f} to {max(probes):.0f} |"
        f" {max(shares):.2f} ({min(shares):.2f}) |"
    )


def main() -> None:
    """Measures with one thread and with two."""
    warnings.simplefilter("ignore")
    if sys.argv[1:]:
        measure()
        return
    print(f"{ROWS} rows of lognormal lengths, one epoch with its validation, float32, {ROUNDS} rounds\n")
    print("| threads | model GFLOP/s on real tokens | sgemm GFLOP/s | share, best (worst) |\n|---|---|---|---|", flush=True)
    for threads in ("1", "2"):
        subprocess.run([sys.executable, __file__, "here"], check=True, env={**os.environ, "OMP_NUM_THREADS": threads})


if __name__ == "__main__":
    main()
