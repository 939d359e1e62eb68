"""What `evaluate` and `test` have in common: predict a split, measure it, write the report, add it to the model's run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.errors import ModelError
from finespun.evaluation.measure import Measured, measure
from finespun.evaluation.predict import predict_split
from finespun.models.pretrained import load_model, load_tokenizer, pad_token_id
from finespun.tasks.base import Task
from finespun.tracking.client import Run, Tracker, flatten
from finespun.training.fit import EVALUATION_ROWS, make_loader

Draw = Callable[[Measured, PreparedData, Task, Path], None]


def read_record(folder: Path) -> dict[str, Any]:
    """Reads `run.json`, which points from a fine-tuned model to its MLflow run.

    Raises:
        ModelError: the folder is not one that finespun wrote.
    """
    path = folder / "run.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); run `dvc repro finetune`") from error


def predict_and_measure(config: RunConfig, artifacts: Artifacts, split: str) -> Measured | None:
    """Returns what was found on rank zero, None on the others."""
    prepared, task = PreparedData(artifacts.prepared), targets.build("task", config.task)
    model = load_model(artifacts.finetuned, auto_class=task.auto_class, options={})
    pad = pad_token_id(load_tokenizer(artifacts.finetuned))
    loader = make_loader(
        prepared, split, task=task, pad_token_id=pad, step_rows=EVALUATION_ROWS, runtime=config.runtime
    )  # fmt: skip
    outputs = predict_split(
        model=model, task=task, loader=loader, num_labels=len(prepared.labels), runtime=config.runtime
    )  # fmt: skip
    if outputs is None:
        return None
    return measure(task=task, prepared=prepared, split=split, outputs=outputs, config=config.evaluation)


def write_report(measured: Measured, folder: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics and predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(measured.predictions, folder / "predictions.parquet")


def open_run_of_model(config: RunConfig, artifacts: Artifacts) -> Run:
    """Opens the run that made the model; a new one, tagged with its id, where this tracking server does not know it."""
    tracker = Tracker(config.runtime, artifacts)
    run_id = read_record(artifacts.finetuned)["run_id"]
    run = tracker.resume(run_id)
    if run is not None:
        return run
    print(f"warning: MLflow at {tracker.uri} does not know the run {run_id} of this model; a new run takes its results")  # noqa: T201
    return tracker.start(f"evaluation-of-{run_id[:8]}", tags={"model_of_run": run_id}, params={})


def log_report(tracked: Run, measured: Measured, folder: Path, *, prefix: str) -> None:
    """Adds metrics, as `PREFIX/name`, and the report's files to the run."""
    numbers = {name: value for name, value in flatten(measured.metrics) if isinstance(value, int | float)}
    tracked.log({re.sub(r"[^\w\-. :/]", "_", f"{prefix}/{name.replace('.', '/')}"): v for name, v in numbers.items()}, step=0)
    tracked.log_folder(folder, folder.name)
