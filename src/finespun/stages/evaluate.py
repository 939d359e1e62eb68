"""evaluate: the fine-tuned model on the validation split: metrics, predictions, plots, baselines."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.errors import ModelError
from finespun.evaluation import label_errors
from finespun.evaluation.predictor import RESTORE
from finespun.failures import while_writing
from finespun.files import read_table
from finespun.report import plots
from finespun.stages.measuring import log_report, on_devices_exactly, predict_and_measure, write_report
from finespun.tracking.model_run import open_run_of_model
from finespun.training.history import COLUMNS


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
    with while_writing(folder):
        suspects = label_errors.write(measured.judgement, folder / "label_errors.csv")
        plots.evaluation(
            judged=measured.judgement, history=history, monitor=targets.build("task", config.task).monitor, folder=folder,
            config=config.report,
        )  # fmt: skip
    if suspects:
        print(f"evaluation: the labels of {suspects:,} rows are suspected to be wrong: {folder / 'label_errors.csv'}")  # noqa: T201
    with open_run_of_model(config, artifacts) as tracked:
        log_report(tracked, measured, folder, prefix="evaluation")
