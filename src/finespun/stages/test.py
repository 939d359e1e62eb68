"""test: the one honest evaluation of the test split, which no other stage reads, and how often it has been done."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.stages.measuring import log_report, on_devices_exactly, predict_and_measure, write_report
from finespun.tracking.model_run import open_run_of_model


def run(artifacts: Artifacts) -> None:
    """Measures on one device or several."""
    on_devices_exactly("test", artifacts, evaluate)


def evaluate(config: RunConfig, artifacts: Artifacts) -> None:
    """Does the stage in one of its processes."""
    measured = predict_and_measure(config, artifacts, "test")
    if measured is None:
        return
    schema, folder = PreparedData(artifacts.prepared).schema, artifacts.report("test")
    digest = schema["digests"]["test"]
    with open_run_of_model(config, artifacts) as tracked:
        earlier = int(tracked.tag("test_evaluations") or 0)
        tracked.set_tags({"test_split": digest, "test_evaluations": str(earlier + 1)})
        tracked.log_data("test", schema)
        others = tracked.test_evaluations(digest)
        counted = {} if others is None else {"test_evaluations": others + earlier + 1}
        write_report(measured, folder, confidence=config.evaluation.confidence, **counted)
        log_report(tracked, measured, artifacts, stage="test", split="test")
