"""What each of finespun's own kernels is worth on a CPU: a step of MiniLM (forward, loss, backward) with one more at a time.

The same batches (lognormal lengths, mean 32) for all arms, in turn, in one process; minima of the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from against_trainer import fresh_model, lognormal_rows
from torch import nn
from torch.nn.functional import cross_entropy

from finespun.models.cpu import attention
from finespun.models.cpu.dropout import drop_quickly

KERNELS = {"transformers": 0, "+ dropout": 1, "+ attention": 2, "+ last block": 3}  # how many of ours an arm has


def batches(count: int, rows: int) -> list[dict[str, torch.Tensor]]:
    """Random words, grouped by length as in training."""
    lengths = np.sort([len(row["input_ids"]) for row in lognormal_rows(count * rows)]).reshape(count, rows)
    made = []
    for each in lengths:
        mask = torch.as_tensor(np.arange(each.max()) < each[:, None]).long()
        made.append({"input_ids": torch.randint(1000, 30000, tuple(mask.shape)) * mask, "attention_mask": mask})
    return made


@contextmanager
def kernels(model: nn.Module, example: dict[str, torch.Tensor], count: int) -> Iterator[None]:
    """Gives a model the first so many of our kernels."""
    with ExitStack() as stack:
        if count >= 1:
            drop_quickly(model)
        if count == 2:
            stack.enter_context(patch.object(attention, "narrow", lambda *_: []))
        if count >= 2:
            stack.enter_context(attention.quick_attention(model, example))
        yield


def seconds(count: int, given: list[dict[str, torch.Tensor]], *, bf16: bool) -> float:
    """CPU seconds of one pass over the batches, after a first step."""
    model = fresh_model()
    with kernels(model, given[0], count), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model.train()
        began = 0.0
        for number, batch in enumerate([given[0], *given]):
            began = time.process_time() if number == 1 else began
            cross_entropy(model(**batch).logits.float(), torch.zeros(len(batch["input_ids"]), dtype=torch.long)).backward()
            model.zero_grad()
        return time.process_time() - began


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    given = batches(options.batches, options.rows)
    for bf16 in (False, True):
        found: dict[str, list[float]] = {name: [] for name in KERNELS}
        for _ in range(options.rounds):
            for name, count in KERNELS.items():
                found[name].append(seconds(count, given, bf16=bf16))
        best = {name: min(times) for name, times in found.items()}
        print("bf16" if bf16 else "float32", f"({torch.get_num_threads()} threads)")
        for name, value in best.items():
            print(f"  {name:14s} {1000 * value / len(given):8.1f} CPU ms a step  {value / best['transformers']:.3f}")


if __name__ == "__main__":
    main()
