"""Cross-validation: what the folds of a sweep over `data.fold` say together, mean and deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from optuna.trial import FrozenTrial

FOLD = "data.fold"


@dataclass(frozen=True)
class CrossValidated:
    """The scores of one setting, a value a fold; `settings` is what was searched beside the folds, as written."""

    settings: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def deviation(self) -> float:
        """The standard deviation between folds; 0 of a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    def __str__(self) -> str:
        what = f"{self.settings}: " if self.settings else ""
        return f"{what}{self.mean:.4f} ± {self.deviation:.4f} in {len(self.scores)} folds"


def cross_validated(trials: Iterable[FrozenTrial]) -> list[CrossValidated]:
    """Returns the first objective of each setting over its folds, in the order of trials; none where none was searched."""
    found: dict[str, dict[str, float]] = {}
    for trial in trials:
        values: Mapping[str, Any] = trial.user_attrs.get("values", {})
        if FOLD in values and trial.values:
            others = " ".join(f"{key}={value}" for key, value in values.items() if key != FOLD)
            found.setdefault(others, {})[str(values[FOLD])] = float(trial.values[0])
    return [CrossValidated(settings, tuple(scores.values())) for settings, scores in found.items()]
