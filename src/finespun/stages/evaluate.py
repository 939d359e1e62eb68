"""evaluate: the fine-tuned model on the validation split: metrics, predictions, plots, baselines."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import read_for_stage
from finespun.config.sections import RunConfig
from finespun.report import plots
from finespun.stages.launching import on_devices
from finespun.stages.measuring import log_report, open_run_of_model, predict_and_measure, write_report
from finespun.training.hardware import choose
from finespun.training.history import History


def run(artifacts: Artifacts) -> None:
    """Measures on one device or several."""
    config = read_for_stage(artifacts, "evaluate")
    on_devices("evaluate", artifacts, choose(config.runtime, "32-true"), lambda: evaluate(config, artifacts))


def evaluate(config: RunConfig, artifacts: Artifacts) -> None:
    """Does the stage in one of its processes."""
    measured = predict_and_measure(config, artifacts, "val")
    if measured is None:
        return
    folder = artifacts.report("evaluate")
    write_report(measured, folder, confidence=config.evaluation.confidence)
    plots.evaluation(
        judged=measured.judgement,
        history=History(artifacts.finetuned / "history.csv").rows(),
        monitor=targets.build("task", config.task).monitor,
        folder=folder,
        config=config.report,
    )
    with open_run_of_model(config, artifacts) as tracked:
        log_report(tracked, measured, folder, prefix="evaluation")
