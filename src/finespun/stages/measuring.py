"""What `evaluate` and `test` have in common: predict a split, measure it, write the report, add it to the model's run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import read_for_stage
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.errors import first_of
from finespun.evaluation import zero_shot
from finespun.evaluation.analysis.worst import explained
from finespun.evaluation.measure import Measured, headline, measure
from finespun.evaluation.pictures import with_pictures
from finespun.evaluation.predict import predict_split
from finespun.evaluation.record import read_record
from finespun.failures import while_writing
from finespun.models.pretrained import load_model
from finespun.stages import finished
from finespun.stages.launching import on_devices
from finespun.stages.slurm import hand_over
from finespun.tasks.base import Encoder, Judgement, Outputs, Task
from finespun.tracking.client import Run
from finespun.tracking.earlier import localised
from finespun.tracking.lineage import input_digests, stage_digest
from finespun.tracking.names import changed
from finespun.training.lightning.devices import choose
from finespun.training.lightning.launching import is_worker
from finespun.training.lightning.sharding import from_rank_zero

TEXTS = ("target", "predicted")  # columns of predictions where a text is written beside another
SHOWN = 50  # of them, in MLflow


def on_devices_exactly(stage: str, artifacts: Artifacts, work: Callable[[RunConfig, Artifacts], None]) -> None:
    """Does a stage's work in full precision, on one device or several, unless it was finished and not recorded."""
    config = read_for_stage(artifacts, stage)
    if hand_over(stage, artifacts, config.runtime):
        return
    recorded = finished.by_dvc(artifacts) and not is_worker()
    digest = _digest(stage, artifacts, config) if recorded else ""
    if recorded and finished.take(artifacts, stage, lambda: digest):
        return
    hardware = choose(config.runtime, "32-true", why="that of plain transformers")
    on_devices(stage, artifacts, hardware, lambda: work(config, artifacts), runtime=config.runtime)
    if recorded and _digest(stage, artifacts, config) == digest:  # nobody has changed what it read
        finished.keep(artifacts, stage, digest)


def _digest(stage: str, artifacts: Artifacts, config: RunConfig) -> str:
    return stage_digest(artifacts, stage, config, input_digests(artifacts, stage))


def predict_and_measure(config: RunConfig, artifacts: Artifacts, split: str) -> Measured | None:
    """Returns what was found on rank zero, None on the others."""
    prepared = PreparedData(artifacts.prepared).verified("train", split)
    model, task, encoder = from_rank_zero(partial(_read, config, artifacts), choose(config.runtime, "32-true"))
    began = time.perf_counter()
    outputs = predict_split(
        model=model, task=task, encoder=encoder, prepared=prepared, split=split, runtime=config.runtime
    )  # fmt: skip
    seconds = time.perf_counter() - began
    untuned = _untuned(config, artifacts, prepared, split)
    if outputs is None:
        return None
    others = {} if untuned is None else {zero_shot.NAME: untuned}
    measured = measure(task=task, prepared=prepared, split=split, outputs=outputs, others=others, config=config.evaluation)
    pictured = with_pictures(
        measured.predictions, prepared.open(split), model=model, task=task, encoder=encoder, labels=prepared.labels
    )  # fmt: skip
    told = explained(measured.worst, folder=artifacts.finetuned, prepared=prepared, split=split, config=config)
    return replace(measured, seconds=seconds, predictions=pictured, worst=told)


def _untuned(config: RunConfig, artifacts: Artifacts, prepared: PreparedData, split: str) -> tuple[Task, Outputs] | None:
    """Returns the outputs of the model that training began with, where they are asked for, and the task that reads them."""
    task = targets.build("task", config.task)
    if not (config.evaluation.zero_shot or (config.evaluation.baselines and task.answers_untrained)):
        return None
    model = localised(config.model, config.runtime, artifacts)
    return zero_shot.zero_shot(
        task=config.task, model=model, project=artifacts.project, prepared=prepared, split=split, runtime=config.runtime
    )  # fmt: skip


def _read(config: RunConfig, artifacts: Artifacts) -> tuple[Any, Task, Encoder]:
    task = targets.build("task", config.task)
    model = load_model(
        artifacts.finetuned, auto_class=task.auto_class, options={}, trust_remote_code=config.model.trust_remote_code
    )  # fmt: skip
    return model, task.settled(model.config.to_dict()), task.encoder(artifacts.finetuned)


def write_report(measured: Measured, folder: Path, *, confidence: float, **more: int) -> None:
    """Writes `metrics.json` (a few numbers, for `dvc metrics`), `details.json` and the predictions, and says the numbers."""
    rows = measured.predictions.num_rows
    details = {
        "confidence": confidence,
        "shown": measured.shown,
        "scores": {name: {"value": value, **measured.intervals[name]} for name, value in measured.scores.items()},
        "baselines": measured.baselines,
        "comparison": measured.comparison,
        "calibration": measured.calibration,
        "slices": measured.slices,
        "worst": measured.worst,
        "thresholds": measured.thresholds,
        "labels": list(measured.judgement.classes),
        "labels_without_rows": list(measured.judgement.without_rows),
        "constant_targets": list(measured.judgement.constant),
        "names_in_mlflow": changed(measured.scores),  # of scores that cannot keep their own
    }
    with while_writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("metrics", {"rows": rows, **headline(measured.scores), **more}), ("details", details)):
            (folder / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        pq.write_table(measured.predictions, folder / "predictions.parquet")
    said = ", ".join(f"{name} {value:.4f}" for name, value in headline(measured.scores).items())
    print(f"{folder.name}: {rows:,} rows, {said}")  # noqa: T201
    for warning in _unknown(measured.judgement):
        print(f"warning: {folder.name}: {warning}; add rows, or raise the split's share in data.split")  # noqa: T201


def _unknown(judgement: Judgement) -> Iterator[str]:
    """Yields what scores of this split cannot say."""
    if judgement.without_rows:
        yield f"no row has the label {first_of(judgement.without_rows)}: its precision and recall are 0 and say nothing"
    if judgement.constant:
        yield f"{first_of(judgement.constant)} is the same number in all rows: correlations and R² are 0 and say nothing"


def log_report(tracked: Run, measured: Measured, artifacts: Artifacts, *, stage: str, split: str) -> None:
    """Adds metrics as `SPLIT/name`, baselines, speed and the report's files (which have the intervals, too) to the run."""
    schema, folder = PreparedData(artifacts.prepared).schema, artifacts.report(stage)
    step = int(read_record(artifacts.finetuned).get("steps", 0))
    tracked.log_results(split, schema, {f"{split}/{name}": value for name, value in measured.scores.items()}, step)
    rows = measured.predictions.num_rows
    others = {
        f"baseline/{split}/{baseline}/{name}": value
        for baseline, scores in measured.baselines.items()
        for name, value in headline(scores).items()
    }
    speed = {f"perf/{split}_rows_per_second": rows / measured.seconds} if measured.seconds else {}
    tracked.log({f"{split}/rows": float(rows), **others, **speed}, step)
    tracked.log_folder(folder, folder.name)
    written = measured.predictions.schema
    if all(name in written.names and pa.types.is_string(written.field(name).type) for name in TEXTS):
        tracked.log_table(measured.predictions.slice(0, SHOWN).to_pydict(), folder.name)
