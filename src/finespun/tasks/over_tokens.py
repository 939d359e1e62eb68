"""Validation metrics of tags as torchmetrics: numbers of entities, added up over batches and ranks, divided once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection

Count = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]
Score = Callable[[Any, Any, Any], dict[str, NDArray[np.float64]]]


class OverTokens(Metric):
    """One of the scores of numbers of entities (5, types) and words (2,)."""

    full_state_update = False
    counts: torch.Tensor
    words: torch.Tensor

    def __init__(self, name: str, types: int, count: Count, score: Score, **options: Any) -> None:
        super().__init__(**options)
        self.name, self.count, self.score = name, count, score
        self.add_state("counts", default=torch.zeros((5, types), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("words", default=torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Counts a batch: logits (rows, length, labels), targets (rows, length)."""
        for found, actual in zip(logits.argmax(dim=2).cpu().numpy(), targets.cpu().numpy(), strict=True):
            counts, words = self.count(actual, found)
            self.counts += torch.from_numpy(counts).to(self.counts.device)
            self.words += torch.from_numpy(words).to(self.words.device)

    def compute(self) -> torch.Tensor:
        """Returns the score of all batches."""
        counts, words = self.counts.cpu().numpy()[None], self.words.cpu().numpy()[None]
        found = self.score(counts, words, np.ones((1, 1)))[self.name]
        return torch.tensor(float(found[0]), dtype=torch.float32, device=self.counts.device)


def over_tokens(names: Iterable[str], types: int, count: Count, score: Score) -> MetricCollection:
    """Returns some of the scores of a function as metrics; `count` is given targets and found labels, (length,) each."""
    return MetricCollection({name: OverTokens(name, types, count, score) for name in names})
