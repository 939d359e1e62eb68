"""evaluate: the fine-tuned model on the validation split: metrics, predictions, plots, baselines."""

from __future__ import annotations

import json
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.errors import ModelError
from finespun.evaluation.analysis import label_errors
from finespun.evaluation.analysis.latency import latency
from finespun.evaluation.record import RESTORE
from finespun.failures import while_writing
from finespun.files import read_table
from finespun.report import facts, notes, plots
from finespun.stages.measuring import log_report, on_devices_exactly, predict_and_measure, write_report
from finespun.tracking.model_run import log_fine_tuned, open_run_of_model
from finespun.tracking.trials.trial import Trial
from finespun.training.history import COLUMNS
from finespun.training.lightning.devices import choose


def run(artifacts: Artifacts) -> None:
    """Measures on one device or several."""
    on_devices_exactly("evaluate", artifacts, evaluate)


def evaluate(config: RunConfig, artifacts: Artifacts) -> None:
    """Does the stage in one of its processes."""
    measured = predict_and_measure(config, artifacts, "val")
    if measured is None:
        return
    folder = artifacts.report("evaluate")
    write_report(measured, folder, confidence=config.evaluation.confidence)
    history = read_table(artifacts.finetuned / "history.csv", COLUMNS, error=ModelError, remedy=RESTORE)
    prepared = PreparedData(artifacts.prepared)
    hardware = choose(config.runtime, "32-true")
    cost: dict[str, Any] = {"rows_per_second": measured.predictions.num_rows / measured.seconds, "device": str(hardware)}
    if not hardware.sharded:  # else one device may not hold the model
        cost |= latency(artifacts.finetuned, prepared, "val", config)
    with while_writing(folder):
        (folder / "cost.json").write_text(json.dumps(cost, indent=2) + "\n", encoding="utf-8")
        label_errors.write(measured.judgement, folder / "label_errors.csv")
        plots.evaluation(
            judged=measured.judgement, history=history, monitor=targets.build("task", config.task).monitor, folder=folder,
            config=config.report,
        )  # fmt: skip
    with open_run_of_model(config, artifacts) as tracked:
        tracked.log({f"perf/{name}": value for name, value in cost.items() if isinstance(value, float)}, 0)
        log_report(tracked, measured, artifacts, stage="evaluate", split="val")
        tracked.log_images({name: folder / f"{name}.png" for name in ("confusion", "training")})
        tracked.set_tags({"mlflow.note.content": notes.note(facts.read(artifacts, stages=("evaluate",)))})
        if Trial.of(artifacts):  # of a sweep's trials only the best are measured, and have their model logged
            log_fine_tuned(tracked, artifacts.finetuned, config, PreparedData(artifacts.prepared))
