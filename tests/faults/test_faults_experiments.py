"""DVC's experiments in copies of the project, which DVC deletes: their runs, checkpoints and what they owe outlive them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import mlflow
import pytest

from finespun.tracking.addresses import database_uri
from helpers import Project, states, training

pytestmark = pytest.mark.slow


@pytest.fixture
def again(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project that a test may change, which saves after each step."""
    project = finished.copy(tmp_path / "again")
    project.edit("conf/runtime/default.yaml", checkpoint_seconds=0)
    project.commit("save often")
    return project


def runs(project: Project) -> dict[str, mlflow.entities.Run]:
    mlflow.set_tracking_uri(database_uri(project.folder / "mlruns" / "mlflow.db"))
    return {run.info.run_id: run for run in mlflow.search_runs(search_all_experiments=True, output_format="list")}


def test_a_temporary_copy_resumes_and_its_run_is_the_projects(again: Project) -> None:
    before, model = set(runs(again)), (again.folder / "models/finetuned/model.safetensors").read_bytes()
    experiment = ("dvc", "exp", "run", "--temp", "-S", "seed=6", "-n", "six")
    with training(again, command=experiment) as process:
        os.killpg(process.pid, signal.SIGKILL)
    output = again.run(*experiment).stdout
    assert "taking up state-" in output, "the checkpoints are the project's"
    assert not states(again)
    assert (again.folder / "models/finetuned/model.safetensors").read_bytes() == model, "the workspace is untouched"
    again.run("dvc", "exp", "apply", "six")
    record = json.loads((again.folder / "models/finetuned/run.json").read_text())
    [run] = [run for name, run in runs(again).items() if name not in before]
    assert (run.info.run_id, run.info.status) == (record["run_id"], "FINISHED")
    assert {"val/log_loss", "test/accuracy", "train/loss"} <= set(run.data.metrics)
    assert ".dvc/tmp/exps" not in run.info.artifact_uri
    assert mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert again.stages_run(again.run("dvc", "repro").stdout) == []


def test_queued_experiments_run_side_by_side_in_one_store(again: Project) -> None:
    before = set(runs(again))
    again.edit("conf/trainer/default.yaml", max_epochs=1)
    again.commit("one epoch")
    again.run("dvc", "exp", "run", "--queue", "-S", "seed=8,9")
    again.run("dvc", "exp", "run", "--run-all", "-j", "2")
    made = [run for name, run in runs(again).items() if name not in before]
    assert sorted(run.data.params["seed"] for run in made) == ["8", "9"]
    assert {run.info.status for run in made} == {"FINISHED"}
