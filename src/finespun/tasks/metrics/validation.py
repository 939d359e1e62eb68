"""Validation metrics as torchmetrics: what batches leave is kept, on all ranks, and the maths of scores.py reads all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection

Read = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Score = Callable[[Any, Any, NDArray[np.float64]], dict[str, NDArray[np.float64]]]


class OverBatches(Metric):
    """One of the scores of a function of what `read` makes of all batches."""

    full_state_update = False
    first: list[torch.Tensor]
    second: list[torch.Tensor]

    def __init__(self, name: str, read: Read, score: Score, **options: Any) -> None:
        super().__init__(**options)
        self.name, self.read, self.score = name, read, score
        self.add_state("first", default=[], dist_reduce_fx="cat")
        self.add_state("second", default=[], dist_reduce_fx="cat")

    def update(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Keeps what the score needs of a batch."""
        first, second = self.read(logits, targets)
        self.first.append(first)
        self.second.append(second)

    def compute(self) -> torch.Tensor:
        """Returns the score of all that was kept, each unit counted once."""
        kept = [torch.cat(each) if isinstance(each, list) else each for each in (self.first, self.second)]
        first, second = ((each.cpu().double() if each.is_floating_point() else each.cpu()).numpy() for each in kept)
        found = self.score(first, second, np.ones((1, len(first))))[self.name]
        return torch.tensor(float(found[0]), dtype=torch.float32, device=kept[0].device)


def over_batches(names: Iterable[str], read: Read, score: Score) -> MetricCollection:
    """Returns scores as metrics: `read` makes two tensors (units, ...) of a batch's logits and targets, `score` reads all."""
    return MetricCollection({name: OverBatches(name, read, score) for name in names})
