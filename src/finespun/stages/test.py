"""test: the one honest look at the test split, which no other stage reads, and how often it has been taken."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config.compose import read_for_stage
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.stages.launching import on_devices
from finespun.stages.measuring import log_report, open_run_of_model, predict_and_measure, write_report
from finespun.training.hardware import choose


def run(artifacts: Artifacts) -> None:
    """Measures on one device or several."""
    config = read_for_stage(artifacts, "test")
    on_devices("test", artifacts, choose(config.runtime, "32-true"), lambda: look(config, artifacts))


def look(config: RunConfig, artifacts: Artifacts) -> None:
    """Does the stage in one of its processes."""
    measured = predict_and_measure(config, artifacts, "test")
    if measured is None:
        return
    schema, folder = PreparedData(artifacts.prepared).schema, artifacts.report("test")
    digest = schema["digests"]["test"]
    with open_run_of_model(config, artifacts) as tracked:
        earlier = int(tracked.tag("test_looks") or 0)
        tracked.set_tags({"test_split": digest, "test_looks": str(earlier + 1)})
        tracked.log_data("test", schema)
        looks = tracked.tracker.count_looks(digest)
        write_report(measured, folder, confidence=config.evaluation.confidence, looks_at_this_split=looks)
        log_report(tracked, measured, folder, prefix="test")
