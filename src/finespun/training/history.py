"""`history.csv`: what was recorded of a run, step by step."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path

COLUMNS = ("step", "epoch", "name", "value", "time")


class History:
    """`history.csv`: every metric of every step in long form; cut back to the checkpoint when a run is taken up again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Forgets what came after `step`: it will be trained again."""
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)

    def rows(self) -> list[dict[str, str]]:
        """Returns what was recorded."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if row["time"]]

    def add(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Appends values of one step."""
        with self.path.open("a", newline="") as file:
            now = f"{time.time():.3f}"
            csv.writer(file).writerows([step, epoch, name, repr(value), now] for name, value in metrics.items())
