"""The run behind a fine-tuned model: begun by training, found again by later stages, or made anew with what is known."""

from __future__ import annotations

import csv
import json
import os
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import yaml

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.evaluation.record import read_record
from finespun.kept import file_digest
from finespun.masking import masked
from finespun.tracking.client import Run, Tracker, new_key
from finespun.tracking.lineage import tags
from finespun.tracking.names import command, run_title
from finespun.tracking.outbox import leftovers
from finespun.tracking.trials.trial import Trial
from finespun.tracking.untracked import Untracked

TRIAL_QUIET_SECONDS = 20.0  # a shorter trial's record is sent by its sweep, which has the store open


class Notes(Protocol):
    """What outlives a killed process (`training.checkpoints.Store`)."""

    def note(self, name: str, value: Any = None) -> Any:
        """Keeps a value under a name, or without one returns what is kept."""


def open_run_of_training(
    config: RunConfig, artifacts: Artifacts, prepared: PreparedData, notes: Notes, known: dict[str, Any],
    settings: dict[str, Any], hardware: str, trial: Trial | None,
) -> Run:  # fmt: skip
    """Opens the run of what is trained: the one that `notes` name, where it was cut short, its sweep's for it, or a new one.

    Args:
        config: says where MLflow is; without `runtime.tracking`, the run keeps nothing.
        artifacts: the project's paths.
        prepared: its data sets are named.
        notes: of the checkpoints' folder.
        known: the lineage.
        settings: become parameters.
        hardware: for people.
        trial: of a sweep, whose run is there already.
    """
    if not config.runtime.tracking:
        return Untracked()
    tracker = Tracker(config.runtime, artifacts)
    key, run_id = notes.note("run"), notes.note("run_id")
    describe = partial(_describe, artifacts, prepared, known, settings, hardware)
    if trial and trial.run_id:
        again = Run(tracker, trial.run_id, quiet_seconds=TRIAL_QUIET_SECONDS)
        if run_id != trial.run_id:
            describe(again)
    else:
        found = tracker.resume(run_id) if run_id else tracker.find(key) if key else None
        again = found or _start_run(config, artifacts, prepared, tracker, notes)
        if found is None:
            describe(again)
    notes.note("run_id", again.id)
    return again


def _start_run(config: RunConfig, artifacts: Artifacts, prepared: PreparedData, tracker: Tracker, notes: Notes) -> Run:
    key = new_key()
    notes.note("run", key)
    return tracker.start(run_title(config, artifacts, prepared.schema["name"]), tags={}, params={}, key=key)


def _describe(
    artifacts: Artifacts, prepared: PreparedData, known: dict[str, Any], settings: dict[str, Any],
    hardware: str, run: Run,
) -> None:  # fmt: skip
    run.set_tags(tags(known, prepared.schema, command=command(artifacts)) | {"hardware": hardware})
    run.set_tags({"folder": os.path.relpath(artifacts.out, artifacts.project)})
    run.log_params(settings)
    run.log_texts({"lineage.json": json.dumps(known, indent=2), "config.yaml": yaml.safe_dump(settings, sort_keys=False)})
    for split in ("train", "val"):
        run.log_data(split, prepared.schema)


def open_run_of_model(config: RunConfig, artifacts: Artifacts) -> Run:
    """Opens the run that made the model; where the store does not know it, another with all that is known of it.

    Without `runtime.tracking`, a run that keeps nothing.

    Raises:
        MachineError: a new run is needed, and the server does not answer.
    """
    if not config.runtime.tracking:
        return Untracked()
    tracker = Tracker(config.runtime, artifacts)
    record = read_record(artifacts.finetuned)
    notes = tracker.outbox / "moved.json"
    moved: dict[str, str] = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
    run_id = str(record["run_id"]) or f"none-{file_digest(artifacts.finetuned / 'run.json')[:24]}"
    known = moved.get(run_id, str(record["run_id"]))
    run = tracker.resume(known) if known else None
    if run is not None:
        return run
    said = f"MLflow at {masked(tracker.uri)} does not know the run {run_id} of this model"
    if not record["run_id"]:
        said = "this model was made with runtime.tracking: false"
    print(f"warning: {said}; a new run takes what is known")  # noqa: T201
    run = tracker.start(f"again-{run_id[:8]}", tags={"model_of_run": run_id}, params={})
    if not leftovers.adopt(tracker.outbox, run_id, run.outbox.folder):
        _tell_what_is_known(run, record, config, artifacts)
    notes.write_text(json.dumps({**moved, run_id: run.id}), encoding="utf-8")
    return run


def _tell_what_is_known(run: Run, record: dict[str, object], config: RunConfig, artifacts: Artifacts) -> None:
    run.set_tags({name: str(record[name]) for name in ("loaded", "trained") if name in record})
    history = artifacts.finetuned / "history.csv"
    if history.is_file():
        with history.open(newline="", encoding="utf-8") as file:
            for step, rows in groupby(csv.DictReader(file), key=lambda row: int(row["step"])):
                run.log({row["name"]: float(row["value"]) for row in rows}, step)
    prepared = PreparedData(artifacts.prepared)
    log_fine_tuned(run, artifacts.finetuned, config, prepared)


def log_fine_tuned(run: Run, folder: Path, config: RunConfig, prepared: PreparedData) -> None:
    """Logs the model with three training rows as its example, and what it predicts of them."""
    if not config.runtime.tracking:
        return
    from finespun.evaluation.predictor import Predictor  # noqa: PLC0415  (imports torch, which a report needs not)

    task, columns = targets.build("task", config.task), prepared.schema["columns"]
    given = [task.given(row) for row in prepared.examples("train", 3).to_pylist()]
    examples = [{columns[role]: value for role, value in row.items()} for row in given]
    predictor = Predictor(folder, trust_remote_code=config.model.trust_remote_code)
    run.log_model(folder, examples, predictor.predict(examples))
