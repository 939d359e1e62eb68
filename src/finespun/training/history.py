"""`history.csv`: what was recorded of a run, step by step, and recording it without waiting for the device."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from statistics import fmean

import torch
import torch.distributed as dist

from finespun.errors import DivergedError
from finespun.failures import while_writing
from finespun.kept import write_whole
from finespun.training.lightning.launching import rank, world_size

COLUMNS = ("step", "epoch", "name", "value", "time")
FLUSH_POINTS = 25
Sink = Callable[[Mapping[str, float], int], None]  # metrics, step


class History:
    """`history.csv`: every metric of every step in long form; cut back to the checkpoint when a run is taken up again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Forgets what came after `step`: it will be trained again."""
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        text = StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        write_whole(self.path, text.getvalue())

    def rows(self) -> list[dict[str, str]]:
        """Returns what was recorded; lines that a kill or a power cut has torn are left out."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        except FileNotFoundError:
            return []
        except OSError as error:
            text = f"{error}\n"
        found = list(csv.DictReader(text.splitlines(), COLUMNS))
        good = [row for row in found if _is_point(row)]
        torn = len(found) - len(good) - (found[:1] == [dict(zip(COLUMNS, COLUMNS, strict=True))])
        if torn or not found:
            print(f"warning: {self.path}: {torn} lines are damaged; the record of steps has gaps", flush=True)  # noqa: T201
        return good

    def add(self, points: Iterable[tuple[int, Mapping[str, float]]], *, epoch: int) -> None:
        """Appends the metrics of some steps."""
        now = f"{time.time():.3f}"
        with while_writing(self.path), self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                [step, epoch, name, repr(value), now] for step, metrics in points for name, value in metrics.items()
            )


def _is_point(row: Mapping[str | None, str]) -> bool:
    try:
        float(row["value"])
        return int(row["step"]) >= 0 and int(row["epoch"]) >= 0 and bool(row["name"]) and float(row["time"]) > 0
    except (ValueError, TypeError):
        return False


class Recorder:
    """Keeps each step's loss and gradient norm on the device and hands them on together, to the history and to a sink.

    Rank zero records. With `every` above 1 a point is the mean of so many steps: where a step takes a fraction of a
    millisecond, writing three numbers of each would cost more than the step.
    """

    def __init__(self, history: History, sink: Sink, *, every: int = 1) -> None:
        self.history, self.sink, self.every = history, sink, every
        self.pending: list[tuple[int, float, torch.Tensor, torch.Tensor]] = []
        self.steps, self.last = 0, (0, 0.0)  # since the last point; the last one's number and rate
        self.losses = self.norms = torch.tensor(0.0)
        self.recent_loss: float | None = None
        self.rows = self.epoch = 0
        self.since = time.perf_counter()

    def restart_clock(self) -> None:
        """What follows counts for the rate of rows."""
        self.since = time.perf_counter()

    def step(self, step: int, *, epoch: int, rate: float, rows: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Takes up one optimizer step; `loss` and `norm` are scalars."""
        self.epoch, self.last = epoch, (step, rate)
        self.rows += rows
        self.losses, self.norms = (self.losses + loss, self.norms + norm) if self.steps else (loss, norm)
        self.steps += 1
        if self.steps == self.every:
            self._add_point()
            if len(self.pending) >= FLUSH_POINTS:
                self.flush()

    def _add_point(self) -> None:
        means = (self.losses, self.norms) if self.steps == 1 else (self.losses / self.steps, self.norms / self.steps)
        self.pending.append((*self.last, *means))
        self.steps = 0

    def flush(self) -> None:
        """Hands on what is pending: the only place that waits for the device.

        Raises:
            DivergedError: a loss is not a number.
        """
        if self.steps:
            self._add_point()
        if not self.pending:
            return
        stacked = torch.stack([value for _, _, *each in self.pending for value in each])
        if world_size() > 1:  # each rank's loss is an estimate; their mean is that of the step's rows
            dist.all_reduce(stacked)
            stacked /= world_size()
        values = stacked.tolist()
        losses, norms = values[::2], values[1::2]
        points = [
            (step, {"train/loss": loss, "train/learning_rate": rate, "train/gradient_norm": norm})
            for (step, rate, _, _), loss, norm in zip(self.pending, losses, norms, strict=True)
        ]
        points[-1][1]["train/samples_per_second"] = self.rows / (time.perf_counter() - self.since)
        good = next((number for number, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
        self.record(points[: good + 1])
        if good < len(losses):
            raise DivergedError(
                f"step {points[good][0]}: train/loss is {losses[good]} (gradient norm {norms[good]}); lower optimizer.lr,"
                " lengthen the warm-up or set trainer.gradient_clip_norm"
            )
        self.recent_loss = fmean(losses)
        self.pending, self.rows = [], 0
        self.restart_clock()

    def record(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Writes the metrics of some steps."""
        if rank():
            return
        self.history.add(points, epoch=self.epoch)
        for step, metrics in points:
            self.sink(metrics, step)

    def validated(self, metrics: Mapping[str, float], step: int, *, epoch: int, padding_share: float) -> None:
        """Writes what a validation found."""
        self.epoch = epoch
        self.record([(step, {**metrics, "epoch": float(epoch), "train/padding_share": padding_share})])
        self.restart_clock()
