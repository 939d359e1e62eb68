"""What `evaluate` and `test` have in common: predict a split, measure it, write the report, add it to the model's run."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.errors import ModelError
from finespun.evaluation.measure import Measured, headline, measure
from finespun.evaluation.predict import predict_split
from finespun.models.pretrained import load_model
from finespun.tracking.aside import Aside
from finespun.training.launch import rank
from finespun.training.loading import EVALUATION_ROWS, make_loader


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
    model = load_model(
        artifacts.finetuned, auto_class=task.auto_class, options={}, trust_remote_code=config.model.trust_remote_code
    )  # fmt: skip
    task, encoder = task.settled(model.config.to_dict()), task.encoder(artifacts.finetuned)
    loader = make_loader(
        prepared, split, task=task, encoder=encoder, step_rows=EVALUATION_ROWS, runtime=config.runtime
    )  # fmt: skip
    outputs = predict_split(model=model, task=task, loader=loader, runtime=config.runtime)
    if outputs is None:
        return None
    return measure(task=task, prepared=prepared, split=split, outputs=outputs, config=config.evaluation)


def write_report(measured: Measured, folder: Path, *, confidence: float, **more: int) -> None:
    """Writes `metrics.json` (a few numbers, for `dvc metrics`), `details.json` and the predictions, and says the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = measured.predictions.num_rows
    details = {
        "confidence": confidence,
        "shown": measured.shown,
        "scores": {name: {"value": value, **measured.intervals[name]} for name, value in measured.scores.items()},
        "baselines": measured.baselines,
    }
    for name, content in (("metrics", {"rows": rows, **measured.headline, **more}), ("details", details)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(measured.predictions, folder / "predictions.parquet")
    said = ", ".join(f"{name} {value:.4f}" for name, value in measured.headline.items())
    print(f"{folder.name}: {rows:,} rows, {said}")  # noqa: T201


def tracked(config: RunConfig, artifacts: Artifacts) -> AbstractContextManager[Aside]:
    """Returns the door to the model's MLflow run; a process that is not rank zero must not speak to it."""
    if rank():
        return nullcontext(None)  # type: ignore[arg-type]
    return Aside(config.runtime, artifacts, read_record(artifacts.finetuned)["run_id"])


def log_report(run: Aside, measured: Measured, folder: Path, *, prefix: str) -> None:
    """Adds metrics, as `PREFIX/name`, and the report's files (which have the intervals too) to the run."""
    numbers = {"rows": float(measured.predictions.num_rows), **measured.scores}
    for baseline, scores in measured.baselines.items():
        numbers |= {f"{baseline}/{name}": value for name, value in headline(scores).items()}
    run.report({re.sub(r"[^\w\-. :/]", "_", f"{prefix}/{name}"): value for name, value in numbers.items()}, folder)
