"""Sweeps of a project, found again: what `finespun sweeps` lists and `finespun promote` takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from finespun.artifacts import Artifacts
from finespun.errors import ConfigError, MachineError, did_you_mean, listed
from finespun.files import read_json
from finespun.sweeps.finalists import winner
from finespun.sweeps.space import Space
from finespun.sweeps.study import Goal, Study
from finespun.tracking.trials.studies import address_in, open_storage
from finespun.tracking.trials.trial import STORAGE

REMEDY = "run the sweep again: it writes the file anew"
NOTE = "sweep.json"
COUNTED = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed", TrialState.RUNNING: "begun"}


@dataclass(frozen=True)
class Known:
    """A sweep that was begun in this project."""

    name: str
    folder: Path
    goals: list[Goal]
    study: Study

    @property
    def trials(self) -> list[FrozenTrial]:
        """All its trials."""
        return self.study.trials

    @property
    def best(self) -> FrozenTrial | None:
        """The trial that would be promoted."""
        return winner(self.study)

    def counted(self) -> str:
        """Returns how many trials have which state, in words."""
        names = {
            TrialState.COMPLETE: "done",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
            TrialState.RUNNING: "begun",
        }
        counts = {name: sum(trial.state == state for trial in self.trials) for state, name in names.items()}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def names(artifacts: Artifacts) -> list[str]:
    """Returns the names of all sweeps, the newest last."""
    notes = sorted(artifacts.sweeps.glob(f"*/{NOTE}"), key=lambda path: path.stat().st_mtime)
    return [path.parent.name for path in notes]


def find(artifacts: Artifacts, name: str) -> Known:
    """Opens a sweep by its name.

    Raises:
        ConfigError: there is none of this name.
        MachineError: its storage does not answer.
    """
    kept = artifacts.sweeps / name
    if not (kept / NOTE).is_file():
        there = names(artifacts)
        raise ConfigError([f"{name}: no sweep of this name{did_you_mean(name, there)}; there are: {listed(there)}"])
    note = read_json(kept / NOTE, error=MachineError, remedy=REMEDY, keys=("name", "folder", "storage", "elsewhere", "goals"))
    goals = [Goal(**each) for each in note["goals"]]
    return Known(name, artifacts.project / note["folder"], goals, _study(note, kept))


def _study(note: dict[str, Any], kept: Path) -> Study:
    address = note["storage"] or (os.environ.get(STORAGE) if note["elsewhere"] else address_in(kept))
    if not address:
        raise MachineError(
            f"sweep {note['name']}: its storage has a password, which no file keeps; set {STORAGE} to its address"
        )
    storage = open_storage(address)
    try:
        study = optuna.load_study(study_name=note["name"], storage=storage)
    except KeyError as error:
        raise MachineError(f"sweep {note['name']}: its storage does not know it any more; begin it again") from error
    return Study(study, storage, Space((), {}), None, 0)


def every(artifacts: Artifacts) -> Iterator[Known | tuple[str, str]]:
    """Yields all sweeps; of one that cannot be opened its name and the reason."""
    for name in names(artifacts):
        try:
            yield find(artifacts, name)
        except MachineError as error:
            yield name, str(error)
