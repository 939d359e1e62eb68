"""`finespun ui` opens on the runs' table with the columns that matter; MLflow keeps the choice with the experiment."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from finespun.artifacts import Artifacts
from finespun.errors import MachineError
from finespun.tracking.client import Tracker
from finespun.tracking.ui import VIEW_TAG, columns, opening_page, serve
from helpers import ROOT
from small_run import small_config


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    yield Tracker(small_config().runtime, Artifacts(project=tmp_path, out=tmp_path))
    mlflow.set_tracking_uri(None)


def test_a_port_that_is_taken_is_named_before_mlflow_tries_it(tracker: Tracker) -> None:
    tracker.artifacts.mlruns.mkdir()
    (tracker.artifacts.mlruns / "mlflow.db").touch()
    project = tracker.artifacts.project
    shutil.copytree(ROOT / "conf", project / "conf")
    shutil.copy(ROOT / "params.yaml", project)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port}: Address already in use; give another: finespun ui --port"):
            serve(tracker.artifacts, port)


def test_the_columns_are_the_scores_of_both_splits_and_the_time() -> None:
    found = columns(
        {"train/loss", "val/loss", "val/accuracy", "test/accuracy", "test/recall/spam", "val/rows", "perf/train_minutes"}
    )
    assert [name for name in found if name.startswith("metrics")] == [
        "metrics.`test/accuracy`", "metrics.`val/accuracy`", "metrics.`perf/train_minutes`",
    ]  # fmt: skip
    assert {"attributes.`Dataset`", "attributes.`Models`", "params.`optimizer.lr`"} <= set(found)


def test_the_view_is_kept_with_the_experiment_and_the_address_names_it(tracker: Tracker) -> None:
    with tracker.start("one", tags={}, params={}) as run:
        run.log({"val/accuracy": 0.5}, 1)
    assert opening_page(tracker) == f"#/experiments/{tracker.experiment_id}/runs?viewStateShareKey=finespun"
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert "metrics.`val/accuracy`" in json.loads(tags[VIEW_TAG])["selectedColumns"]
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_damaged_database_still_has_a_front_page(tracker: Tracker) -> None:
    folder = tracker.artifacts.mlruns
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(b"this is no database" * 100)
    assert opening_page(tracker) == ""
