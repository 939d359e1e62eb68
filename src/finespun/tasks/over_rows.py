"""Validation metrics that need all rows at once: the maths of scores.py as torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection

Score = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], dict[str, NDArray[np.float64]]]


class OverRows(Metric):
    """One of the scores of a function of (targets, outputs, weights): keeps all rows, of all ranks."""

    full_state_update = False
    logits: list[torch.Tensor]
    targets: list[torch.Tensor]

    def __init__(self, name: str, score: Score, outputs: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.name, self.score, self.outputs = name, score, outputs
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Keeps a batch."""
        self.logits.append(logits.float())
        self.targets.append(targets)

    def compute(self) -> torch.Tensor:
        """Returns the score of all rows, each counted once."""
        logits, targets = (torch.cat(x) if isinstance(x, list) else x for x in (self.logits, self.targets))
        outputs = self.outputs(logits.cpu().numpy())
        answers = (targets.cpu().double() if targets.is_floating_point() else targets.cpu()).numpy()
        found = self.score(answers, outputs, np.ones((1, len(outputs))))[self.name]
        return torch.tensor(float(found[0]), dtype=torch.float32, device=logits.device)


def over_rows(names: Iterable[str], score: Score, outputs: Callable[[Any], Any]) -> MetricCollection:
    """Returns some of the scores of a function as metrics; `outputs` turns logits into what the function reads."""
    return MetricCollection({name: OverRows(name, score, outputs) for name in names})
