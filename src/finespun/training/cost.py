"""What training cost: time, memory, speed, and the size of what came of it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

import torch

SPEED = "train/samples_per_second"


def training_cost(model: Any, history: Iterable[Mapping[str, str]], seconds: float) -> dict[str, float]:
    """Returns parameters, minutes, rows and steps a second, and the peak of memory (the GPU's, where there is one)."""
    rows = list(history)
    speeds = [float(row["value"]) for row in rows if row["name"] == SPEED]
    steps = len({row["step"] for row in rows if row["name"] == "train/loss"})
    found = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_minutes": seconds / 60,
        "peak_memory_mb": peak_memory() / 1e6,
    }
    found |= {"train_steps_per_second": steps / seconds} if steps else {}  # a head may be solved without steps
    return found | ({"train_rows_per_second": fmean(speeds)} if speeds else {})


def peak_memory() -> int:
    """Returns the most memory that this process has held at once, in bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
