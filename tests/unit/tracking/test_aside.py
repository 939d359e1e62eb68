"""MLflow in a process of its own: what is asked of it is done and answered, and no failure passes for success."""

from __future__ import annotations

from pathlib import Path

import pytest

from finespun.artifacts import Artifacts
from finespun.errors import FinespunError, MachineError
from finespun.tracking.aside import Aside
from finespun.tracking.client import Tracker
from small_run import small_config

SCHEMA = {
    "name": "reviews", "columns": {"text": "text"}, "digests": {"test": "a" * 64}, "rows": {"test": 9},
    "source": {"path": "reviews.csv", "sha256": "b" * 64},
}  # fmt: skip


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(small_config().runtime, Artifacts(project=tmp_path, out=tmp_path))


def trained(tracker: Tracker) -> str:
    """A run as `finetune` leaves it."""
    with tracker.start("reviews", tags={}, params={}) as run:
        return run.id


def test_looks_are_counted_and_a_report_arrives(tracker: Tracker, tmp_path: Path) -> None:
    run_id, report = trained(tracker), tmp_path / "reports" / "test"
    report.mkdir(parents=True)
    (report / "metrics.json").write_text("{}")
    for looks in (1, 2):
        with Aside(small_config().runtime, tracker.artifacts, run_id) as run:
            assert run.look("a" * 64, SCHEMA) == looks
            run.report({"test/accuracy": 0.75}, report)
    found = tracker.client.get_run(run_id)
    assert found.data.metrics == {"test/accuracy": 0.75}
    assert found.info.status == "FINISHED"
    assert [each.path for each in tracker.client.list_artifacts(run_id, "test")] == ["test/metrics.json"]


def test_a_stage_that_fails_before_it_asks_leaves_the_run_alone(tracker: Tracker) -> None:
    run_id = trained(tracker)
    with pytest.raises(ZeroDivisionError), Aside(small_config().runtime, tracker.artifacts, run_id):
        raise ZeroDivisionError
    assert tracker.client.get_run(run_id).info.status == "FINISHED"


def test_a_stage_that_fails_between_look_and_report_makes_the_run_failed(tracker: Tracker) -> None:
    run_id = trained(tracker)
    run = Aside(small_config().runtime, tracker.artifacts, run_id)
    run.look("a" * 64, SCHEMA)
    run.__exit__(ZeroDivisionError)
    assert tracker.client.get_run(run_id).info.status == "FAILED"


def test_a_server_that_does_not_answer_is_said_with_its_exit_code(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runtime = small_config(runtime__tracking_uri="http://127.0.0.1:9").runtime
    run = Aside(runtime, tracker.artifacts, "0" * 32)
    with pytest.raises(FinespunError, match="http://127.0.0.1:9 does not answer") as caught:
        run.report({}, tracker.artifacts.project)
    assert caught.value.exit_code == 5
    with pytest.raises(MachineError, match="ended with 5"):
        run.__exit__(None)


def test_a_model_of_another_server_gets_a_run_of_its_own(tracker: Tracker, tmp_path: Path) -> None:
    with Aside(small_config().runtime, tracker.artifacts, "0" * 32) as run:
        run.report({"val/accuracy": 0.5}, tmp_path)
    (found,) = tracker.client.search_runs([tracker.experiment_id])
    assert found.data.tags["model_of_run"] == "0" * 32
