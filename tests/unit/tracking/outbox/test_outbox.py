"""Everything for MLflow arrives exactly once and in order, whatever the store and the process do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from finespun.artifacts import Artifacts
from finespun.tracking import client as client_module
from finespun.tracking.client import Run, Tracker, new_key
from finespun.tracking.outbox import leftovers
from finespun.tracking.outbox import outbox as outbox_module
from finespun.tracking.outbox.delivery import Delivery
from helpers import ROOT
from small_run import small_config

RUNTIME = small_config().runtime
EXAMPLES: list[dict[str, Any]] = [{"text": "a"}]


@pytest.fixture
def tracker(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.setattr(outbox_module, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(outbox_module, "PATIENCE_SECONDS", 0.5)
    return Tracker(RUNTIME, artifacts)


class Away:
    """A store that does not answer, for as long as it is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = True
        for name in ("log_batch", "log_artifacts", "log_inputs", "set_terminated", "update_run", "search_logged_models"):
            theirs = getattr(mlflow.MlflowClient, name)

            def refused(*arguments: Any, theirs: Any = theirs, **options: Any) -> Any:
                if self.away:
                    raise ConnectionError("no route to host")
                return theirs(*arguments, **options)

            monkeypatch.setattr(mlflow.MlflowClient, name, refused)


def history(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in tracker.client.get_metric_history(run_id, name)]


def test_what_a_store_that_is_away_is_owed_is_delivered_by_the_next_command(
    tracker: Tracker, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "metrics.json").write_text("mine")
    run = tracker.start("one", tags={}, params={})
    store = Away(monkeypatch)
    with run:
        run.log_params({"late": 1})
        run.set_tags({"late": "yes"})
        for step in range(50):
            run.log({"train/loss": float(step)}, step)
        run.log_folder(report, "report")
    assert "the rest waits: the next command sends it, or `finespun sync`" in capsys.readouterr().out
    (report / "metrics.json").write_text("of another run")
    assert tracker.deliver_leftovers() == {run.id: "no route to host"}
    store.away = False
    assert Tracker(RUNTIME, artifacts).deliver_leftovers() == {}
    found = tracker.client.get_run(run.id)
    assert (found.info.status, found.data.params["late"], found.data.tags["late"]) == ("FINISHED", "1", "yes")
    assert history(tracker, run.id, "train/loss") == [(step, float(step)) for step in range(50)]
    assert Path(tracker.client.download_artifacts(run.id, "report/metrics.json", str(tmp_path))).read_text() == "mine"
    assert not [path for path in tracker.outbox.iterdir() if path.is_dir()]


def test_a_name_or_value_that_mlflow_refuses_costs_nothing_else(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client_module, "legal", lambda name: name)  # names are legal before: what else may be refused
    with tracker.start("one", tags={"good": "1", "b//d": "2"}, params={"also good": 3, "../x": 4}) as run:
        for step in range(30):
            run.log({"train/loss": 1.0, "f1/.": 0.5, "x" * 300: 1.0}, step)
    found = tracker.client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert (found.data.tags["good"], found.data.params) == ("1", {"also good": "3"})
    assert len(history(tracker, run.id, "train/loss")) == 30
    refused = [json.loads(line) for line in (tracker.outbox / "refused.jsonl").read_text().splitlines()]
    assert len(refused) == 62
    assert "warning: MLflow refuses" in capsys.readouterr().out


def test_numbers_that_are_none_are_taken(tracker: Tracker) -> None:
    with tracker.start("one", tags={}, params={}) as run:
        run.log({"a": float("nan"), "b": float("inf"), "c": 1.0}, 1)
    assert history(tracker, run.id, "c") == [(1, 1.0)]
    assert len(history(tracker, run.id, "a")) == len(history(tracker, run.id, "b")) == 1


def test_a_run_that_is_resumed_records_each_step_once(tracker: Tracker) -> None:
    run = tracker.start("one", tags={}, params={})
    for step in range(1, 8):
        run.log({"train/loss": step / 10}, step)
    run.__exit__(ValueError, ValueError("disk"), None)
    assert tracker.client.get_run(run.id).info.status == "FAILED"
    again = tracker.resume(run.id)
    assert again is not None
    with again:
        for step in range(5, 12):  # from the checkpoint on
            again.log({"train/loss": step / 10}, step)
    assert history(tracker, run.id, "train/loss") == [(step, step / 10) for step in range(1, 12)]


def test_sending_a_journal_twice_changes_nothing(tracker: Tracker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kill between sending and marking."""
    monkeypatch.setattr("finespun.tracking.outbox.journal.Journal.deliver_to", lambda _self, _end: None)
    (tmp_path / "report").mkdir()
    run = tracker.start("one", tags={"a": "1"}, params={"b": 2})
    run.log({"train/loss": 1.0}, 1)
    run.log_folder(tmp_path / "report", "report")
    time.sleep(0.5)
    run.outbox.wait()
    run.outbox.close()
    assert history(tracker, run.id, "train/loss") == [(1, 1.0)]
    assert tracker.client.get_run(run.id).data.params == {"b": "2"}


def test_a_model_is_logged_once(tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Path] = []

    def log(folder: Path, examples: Any, predictions: Any) -> None:
        logged.append(folder)
        active = mlflow.active_run()
        assert active is not None
        model = tracker.client.create_logged_model(tracker.experiment_id, name="model", source_run_id=active.info.run_id)
        if len(logged) == 1:
            raise ConnectionError("cut")
        tracker.client.finalize_logged_model(model.model_id, "READY")

    monkeypatch.setattr("finespun.tracking.served.log_model.log_served_model", log)
    (tmp_path / "model").mkdir()
    with tracker.start("one", tags={}, params={}) as run:
        run.log_model(tmp_path / "model", EXAMPLES, EXAMPLES)
    content: dict[str, Any] = {"folder": str(tmp_path / "model"), "examples": [], "predictions": []}
    content["fingerprint"] = client_module.fingerprint(tmp_path / "model")
    for _ in range(2):
        Delivery(tracker.client, run.id, tmp_path / "refused")._send_model([content])
    assert len(logged) == 2, "the first was cut, the second is whole"
    assert len(tracker.client.search_logged_models([tracker.experiment_id])) == 1


def in_a_process(code: str, artifacts: Artifacts, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-W", "ignore", "-c", code, str(artifacts.project), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


KILLED = """
import os, signal, sys
from pathlib import Path
from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.tracking import client
from finespun.tracking.client import Tracker
folder, moment, runtime, key = Path(sys.argv[1]), sys.argv[2], RuntimeConfig.model_validate_json(sys.argv[3]), sys.argv[4]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
if moment == "created":
    client.Run.__init__ = die
run = Tracker(runtime, Artifacts(project=folder, out=folder)).start("one", tags={"a": "b"}, params={}, key=key)
for step in range(1, 6):
    run.log({"train/loss": step / 10}, step)
if moment == "sent":
    run.outbox.wait()
die()
"""


@pytest.mark.parametrize("moment", ["created", "logged", "sent"])
@pytest.mark.parametrize("resumed", [True, False])
def test_a_run_whose_process_was_killed_is_found_or_ended(
    tracker: Tracker, artifacts: Artifacts, moment: str, resumed: bool
) -> None:
    key = new_key()
    done = in_a_process(KILLED, artifacts, moment, RUNTIME.model_dump_json(), key)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if resumed:
        run = tracker.find(key)
        assert run is not None
        with run:
            for step in range(1, 9):
                run.log({"train/loss": step / 10}, step)
    else:
        assert tracker.deliver_leftovers() == {}
    [found] = mlflow.search_runs([tracker.experiment_id], output_format="list")
    assert found.info.status == ("FINISHED" if resumed else "KILLED")
    steps = 8 if resumed else 0 if moment == "created" else 5
    assert history(tracker, found.info.run_id, "train/loss") == [(step, step / 10) for step in range(1, steps + 1)]
    assert not list(tracker.outbox.glob("*.starting"))


AGAIN = """
import json, sys
from pathlib import Path
from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.tracking.outbox import leftovers
from finespun.tracking.client import Tracker
folder, runtime, old = Path(sys.argv[1]), RuntimeConfig.model_validate_json(sys.argv[2]), sys.argv[3]
tracker = Tracker(runtime, Artifacts(project=folder, out=folder))
assert tracker.deliver_leftovers() == {}
assert tracker.resume(old) is None
new = tracker.start("again", tags={}, params={})
assert leftovers.adopt(tracker.outbox, old, new.outbox.folder)
with new:
    pass
found = tracker.client.get_run(new.id)
points = [[metric.step, metric.value] for metric in tracker.client.get_metric_history(new.id, "train/loss")]
print(json.dumps([found.data.params, found.data.tags["a"], points]))
"""


def test_a_deleted_store_is_said_once_and_a_new_run_takes_what_is_known(
    tracker: Tracker, artifacts: Artifacts, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tracker.start("one", tags={"a": "b"}, params={"c": 1})
    with run:
        run.log({"train/loss": 1.0}, 1)
        time.sleep(0.3)
        (artifacts.mlruns / "mlflow.db").unlink()
        run.log({"train/loss": 2.0}, 2)
    assert "does not take everything (its database was deleted)" in capsys.readouterr().out
    shutil.copyfile(database, artifacts.mlruns / "mlflow.db")
    done = in_a_process(AGAIN, artifacts, RUNTIME.model_dump_json(), run.id)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [{"c": "1"}, "b", [[1, 1.0], [2, 2.0]]]


def test_what_another_store_is_owed_is_left_alone(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    Away(monkeypatch)
    run = tracker.start("one", tags={}, params={})
    with run:
        run.log({"a": 1.0}, 1)
    (tracker.outbox / run.id / "store").write_text('{"store": "x", "uri": "http://user:***@elsewhere"}')
    assert tracker.deliver_leftovers() == {run.id: "belongs to another store (http://user:***@elsewhere)"}


def test_logging_never_waits(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Run = tracker.start("one", tags={}, params={})
    held = threading.Event()
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *_, **__: held.wait(30))
    for step in range(1000):
        run.log({"train/loss": 1.0}, step)
    assert not held.is_set(), "all are on disk while the store holds the first"
    assert sum(len(entry.content) for entry in run.outbox.journal.undelivered() if entry.kind == "metrics") == 1000
    held.set()
    run.outbox.wait()
    run.outbox.close()


def test_a_torn_note_of_a_start_ends_nothing(tmp_path: Path) -> None:
    note = tmp_path / f"key{leftovers.STARTING}"
    note.write_text("")
    leftovers.end_lost_starts(tmp_path, "sqlite:///x.db", pytest.fail)
    assert not note.exists()
