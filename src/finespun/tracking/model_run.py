"""The run behind a fine-tuned model: found again by later stages, or begun anew with what is known where MLflow has lost it."""

from __future__ import annotations

import csv
import json
from itertools import groupby
from pathlib import Path

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.evaluation.record import read_record
from finespun.kept import file_digest
from finespun.masking import masked
from finespun.tracking.client import Run, Tracker
from finespun.tracking.outbox import leftovers
from finespun.tracking.untracked import Untracked


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
