"""A trial of a sweep, seen from inside its process: how its run is called, where it reports, when it ends early.

The sweep writes `trial.json` into the trial's folder; the trial writes `outcome.json` there, which the sweep reads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.errors import MachineError, PrunedError
from finespun.files import read_json
from finespun.kept import write_whole

Sink = Callable[[Mapping[str, float], int], None]
PARENT = "FINESPUN_PARENT_RUN"  # set by the sweep that a run belongs to
STORAGE = "FINESPUN_SWEEP_STORAGE"  # the address of a study where it holds a password, which no file may
REMEDY = "start the sweep again: it writes the file anew"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a sweep says to one of its trials."""

    sweep: str
    number: int
    name: str
    parent: str | None  # the sweep's run
    monitor: str
    mode: str
    trial_id: int
    storage: str | None  # None: nothing is reported while it trains
    pruner: Mapping[str, Any] | None
    run_id: str | None  # of the run that the sweep has opened for it; None: it opens one
    overrides: Sequence[str]
    tags: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] | None = None  # the tags of the code that the sweep runs

    @classmethod
    def of(cls, artifacts: Artifacts) -> Trial | None:
        """Returns the trial whose folder this is, or None where it is no sweep's."""
        path = artifacts.trial
        return cls(**read_json(path, error=MachineError, remedy=REMEDY)) if path.is_file() else None

    def write(self, path: Path) -> None:
        """Says it to the trial."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(vars(self), indent=2, ensure_ascii=False) + "\n")


class Watch:
    """What a trial found at each validation: kept in its folder, reported to the study, judged by its pruner."""

    def __init__(self, trial: Trial, artifacts: Artifacts, sink: Sink) -> None:
        self.trial, self.path, self.sink = trial, artifacts.out / "validations.json", sink
        self.best, self.outcome = artifacts.out.parent / "best.json", artifacts.out / "outcome.json"
        self.found: dict[int, dict[str, float]] = {}
        self.spent, self.began = 0.0, time.monotonic()
        self.report: Callable[[float, int], bool] | None = None
        if self.path.is_file():  # of a process that was interrupted
            before = json.loads(self.path.read_text(encoding="utf-8"))
            self.found = {int(step): metrics for step, metrics in before["found"].items()}
            self.spent = before["seconds"]

    @property
    def seconds(self) -> float:
        """How long the trial has taken, by all the processes that worked at it."""
        return self.spent + time.monotonic() - self.began

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes up metrics on their way to MLflow.

        Raises:
            PrunedError: the trial promises less than earlier ones did.
        """
        self.sink(metrics, step)
        if self.trial.monitor not in metrics:
            return
        self.found = {earlier: found for earlier, found in self.found.items() if earlier < step}
        self.found[step] = {name: value for name, value in metrics.items() if name.startswith("val/")}
        write_whole(self.path, json.dumps({"found": self.found, "seconds": self.seconds}))
        if self.trial.storage is not None and self._falls_behind(metrics[self.trial.monitor]):
            said = f"{self.trial.monitor} is {metrics[self.trial.monitor]:.4g}"
            raise PrunedError(f"ended at validation {len(self.found)} by the sweep's pruner: {said}")

    def _falls_behind(self, value: float) -> bool:
        from finespun.tracking.trials.studies import load_trial  # noqa: PLC0415  (few trials report)

        if self.report is None:
            self.report = load_trial(self.trial)
        return self.report(value, len(self.found))

    def close(self, *, best_score: float, trained_parameters: int, run_id: str, steps: int) -> None:
        """Writes all that can be an objective, of the best validation."""
        sign = 1 if self.trial.mode == "max" else -1
        ranked = [(sign * found[self.trial.monitor], -step) for step, found in self.found.items()]
        best = self.found[-max(ranked)[1]] if ranked else {}
        values = {
            **best,
            self.trial.monitor: best_score,
            "steps": float(steps),
            "trained_parameters": float(trained_parameters),
        }
        values |= {"seconds": self.seconds, "cpu_seconds": time.process_time()}
        write_whole(self.outcome, json.dumps({"values": values, "run_id": run_id}, indent=2) + "\n")

    def is_among_the_best(self, value: float) -> bool:
        """Whether the model is worth keeping; what the sweep has found so far stands beside the trials' folders."""
        try:
            said = json.loads(self.best.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        sign = 1 if said["mode"] == "max" else -1
        kept = sorted((sign * each for each in said["values"]), reverse=True)[: said["keep"]]
        return bool(said["keep"]) and (len(kept) < said["keep"] or sign * value > kept[-1])


def storage_of(trial: Trial) -> str:
    """Returns the address of the trial's study."""
    return os.environ.get(STORAGE) or trial.storage or ""
