"""One MLflow run a model: started, taken up, counted, and none the worse for a server that dies."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest

from finespun.artifacts import Artifacts
from finespun.errors import InterruptError, MachineError
from finespun.evaluation.measure import Measured
from finespun.stages import test as stage
from finespun.tasks.base import Judgement
from finespun.tracking import earlier, model_run
from finespun.tracking.client import KEY, PARENT, Run, Tracker
from finespun.tracking.outbox.delivery import VALUE_LENGTH
from helpers import ROOT
from small_run import small_config

RUNTIME = small_config().runtime
CLOSED = "http://127.0.0.1:9"


def history(tracker: Tracker, run: Run, name: str) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in tracker.client.get_metric_history(run.id, name))


def status(tracker: Tracker, run: Run) -> str:
    return str(tracker.client.get_run(run.id).info.status)


def test_a_run_is_started_and_taken_up_again(tracker: Tracker) -> None:
    with tracker.start("first", tags={"git.commit": "abc"}, params={"optimizer": {"lr": 0.1}, "seed": 3}) as run:
        run.log({"train/loss": 2.0}, step=1)
        assert status(tracker, run) == "RUNNING"
    assert status(tracker, run) == "FINISHED"
    again = tracker.resume(run.id)
    assert again is not None
    with again:
        assert status(tracker, run) == "RUNNING"
        again.log({"train/loss": 1.0}, step=2)
    found = tracker.client.get_run(run.id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "first")
    assert (found.data.params, found.data.tags["git.commit"]) == ({"optimizer.lr": "0.1", "seed": "3"}, "abc")
    assert history(tracker, run, "train/loss") == [(1, 2.0), (2, 1.0)]


@pytest.mark.parametrize(
    ("error", "end"), [(InterruptError(15, "stopped"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (ValueError(), "FAILED")]
)
def test_a_run_says_how_it_ended(tracker: Tracker, error: BaseException, end: str) -> None:
    run = tracker.start("short", tags={}, params={})
    with pytest.raises(type(error)), run:
        raise error
    assert status(tracker, run) == end


def test_a_run_that_the_server_does_not_know_is_none(tracker: Tracker) -> None:
    assert tracker.resume("0" * 32) is None


def test_a_sweeps_trial_is_the_child_of_its_parent(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracker.start("parent", tags={}, params={}) as parent:
        monkeypatch.setenv(PARENT, parent.id)
        with tracker.start("child", tags={}, params={}) as child:
            assert child.tag("mlflow.parentRunId") == parent.id
            assert child.tag(KEY)


def test_long_settings_are_kept_and_nested_ones_are_dotted(tracker: Tracker) -> None:
    long = [f"label-{number}" for number in range(100)]
    with tracker.start("long", tags={}, params={"data": {"labels": long, "split": {"seed": 4}}, "text": "x" * 9000}) as run:
        pass
    found = tracker.client.get_run(run.id).data.params
    assert found == {"data.labels": str(long), "data.split.seed": "4", "text": "x" * VALUE_LENGTH["params"]}


def test_a_finished_run_leaves_statistics_for_the_database(tracker: Tracker, artifacts: Artifacts) -> None:
    def statistics() -> int:
        connection = sqlite3.connect(artifacts.mlruns / "mlflow.db")
        found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()[0]
        connection.close()
        return int(found)

    assert statistics() == 0
    with tracker.start("one", tags={}, params={"a": 1}):
        pass
    assert statistics() == 1


def test_evaluations_of_a_split_are_added_up_over_all_runs(tracker: Tracker) -> None:
    assert tracker.count_test_evaluations("aaa") == 0
    for digest, times in (("aaa", "2"), ("aaa", "1"), ("bbb", "5")):
        with tracker.start("test", tags={}, params={}) as run:
            run.set_tags({"test_split": digest, "test_evaluations": times})
    assert tracker.count_test_evaluations("aaa") == 3
    assert tracker.count_test_evaluations("bbb", but=run.id) == 0
    assert run.tag("test_evaluations") == "5"
    assert run.tag("nothing") is None


def test_each_evaluation_of_the_test_split_is_counted_whichever_model_and_server(
    tracker: Tracker, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = Judgement(units=2, scores=lambda _: {}, table={}, actual=[], predicted=[])
    measured = Measured(
        scores={"accuracy": 0.5}, intervals={"accuracy": {"low": 0.4, "high": 0.6}}, baselines={},
        predictions=pa.table({"row": [2, 3]}), judgement=judged, shown=("accuracy",),
    )  # fmt: skip
    monkeypatch.setattr(stage, "predict_and_measure", lambda *_: measured)
    monkeypatch.setattr(model_run, "_tell_what_is_known", lambda *_: None)
    schema = {
        "name": "reviews", "columns": {"text": "review"}, "digests": {"test": "d" * 64}, "rows": {"test": 2}, "labels": ["a"],
        "source": {"path": "data/raw/reviews.csv", "sha256": "e" * 64},
    }  # fmt: skip
    for folder, name, content in ((artifacts.prepared, "schema", schema), (artifacts.finetuned, "run", {})):
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps(content))
    with tracker.start("one", tags={}, params={}) as run:
        pass
    for number, run_id in enumerate((run.id, run.id, "0" * 32), 1):
        (artifacts.finetuned / "run.json").write_text(json.dumps({"run_id": run_id, "columns": {}, "task": {}}))
        stage.evaluate(small_config(), artifacts)
        assert json.loads((artifacts.report("test") / "metrics.json").read_text())["test_evaluations"] == number
    assert "does not know the run 00000000" in capsys.readouterr().out
    found = mlflow.search_runs([tracker.experiment_id], output_format="list")
    assert {(each.data.tags["test_evaluations"], each.data.tags.get("model_of_run")) for each in found} == {
        ("2", None),
        ("1", "0" * 32),
    }
    stage.evaluate(small_config(), artifacts)
    assert len(mlflow.search_runs([tracker.experiment_id], output_format="list")) == 2, "the new run is found again"


def test_tables_are_those_of_mlflow(tracker: Tracker) -> None:
    with tracker.start("tables", tags={}, params={}) as run:
        run.log_table({"text": ["a", "b"], "target": ["é", "x"]}, "evaluation")
        run.log_table({"text": ["c"]}, "test")
    assert run.outbox.failure is None
    client = mlflow.MlflowClient(tracker.uri)
    found = client.load_table(tracker.experiment_id, "tables/evaluation.json", run_ids=[run.id])
    assert found.to_dict("list") == {"text": ["a", "b"], "target": ["é", "x"]}
    assert len(json.loads(client.get_run(run.id).data.tags["mlflow.loggedArtifacts"])) == 2


def test_used_data_and_folders_are_recorded(tracker: Tracker, tmp_path: Path) -> None:
    schema = {
        "name": "reviews", "columns": {"text": "review"}, "digests": {"val": "d" * 64}, "rows": {"val": 17},
        "source": {"path": "data/raw/reviews.csv", "sha256": "e" * 64},
    }  # fmt: skip
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text("{}")
    with tracker.start("data", tags={}, params={}) as run:
        run.log_data("val", schema)
        run.log_folder(tmp_path / "report", "evaluation")
    assert run.outbox.failure is None
    [used] = tracker.client.get_run(run.id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.tags[0].value) == ("reviews-val", "d" * 36, "validation")
    assert [artifact.path for artifact in tracker.client.list_artifacts(run.id, "evaluation")] == ["evaluation/metrics.json"]


def test_an_alias_of_a_model_becomes_the_version_that_it_names(tracker: Tracker, tmp_path: Path) -> None:
    """An alias moves, and what was fetched by it would be taken for what it then names."""
    tracker.client.create_registered_model("reviews")
    for _ in range(2):
        version = tracker.client.create_model_version("reviews", source=str(tmp_path))
    tracker.client.set_registered_model_alias("reviews", "champion", version.version)
    assert earlier._without_alias("models:/reviews@champion", tracker.client) == "models:/reviews/2"
    for address in ("models:/reviews/1", "runs:/abc/model"):
        assert earlier._without_alias(address, tracker.client) == address


def test_a_server_that_is_not_there_is_named(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MachineError, match=f"runtime.tracking_uri: {CLOSED} does not answer") as caught:
        Tracker(small_config(runtime__tracking_uri=CLOSED).runtime, artifacts).start("one", tags={}, params={})
    assert "start the server, or set null for the database in mlruns/" in str(caught.value)


@pytest.fixture
def in_a_process(tmp_path: Path) -> Callable[[int], subprocess.Popen[str]]:
    """Starts a process that opens a tracker, and with it a run, as soon as a file appears."""
    code = """
import sys, time
from pathlib import Path
from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.tracking.client import Tracker
folder, number, runtime = Path(sys.argv[1]), sys.argv[2], RuntimeConfig.model_validate_json(sys.argv[3])
(folder / f"ready-{number}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
with Tracker(runtime, Artifacts(project=folder, out=folder)).start(number, tags={}, params={"n": number}) as run:
    run.log({"n": float(number)}, step=0)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def start(number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), str(number), RUNTIME.model_dump_json()]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_processes_that_make_one_fresh_database_at_once_all_succeed(
    tmp_path: Path, in_a_process: Callable[[int], subprocess.Popen[str]]
) -> None:
    processes = [in_a_process(number) for number in range(4)]
    while len(list(tmp_path.glob("ready-*"))) < len(processes):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=180)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    tracker = Tracker(RUNTIME, Artifacts(project=tmp_path, out=tmp_path))
    runs = mlflow.search_runs([tracker.experiment_id], output_format="list")
    assert sorted(run.data.params["n"] for run in runs) == ["0", "1", "2", "3"]
    assert sorted(run.data.metrics["n"] for run in runs) == [0.0, 1.0, 2.0, 3.0]
    assert {run.info.status for run in runs} == {"FINISHED"}
    mlflow.set_tracking_uri(None)


def test_searches_by_a_metric_read_an_index_alone(tracker: Tracker, artifacts: Artifacts) -> None:
    for _ in range(2):  # each finished run does it
        tracker.tidy()
    with sqlite3.connect(artifacts.mlruns / "mlflow.db") as connection:
        columns = ", ".join(column[1] for column in connection.execute("PRAGMA table_info(latest_metrics)"))
        query = f"EXPLAIN QUERY PLAN SELECT {columns} FROM latest_metrics WHERE key = 'val/accuracy'"
        [plan] = [row[-1] for row in connection.execute(query)]
        assert "USING COVERING INDEX finespun_by_metric" in plan, "a column that MLflow added must be added to the index"
        assert connection.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0] > 0
    connection.close()
