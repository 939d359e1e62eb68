"""DVC is killed after a stage has ended and before `dvc.lock` is written: nothing is trained or counted twice."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from finespun.tracking.addresses import database_uri
from helpers import Project

MODEL = Path("models/finetuned/model.safetensors")

pytestmark = pytest.mark.slow


def runs(project: Project) -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(database_uri(project.folder / "mlruns" / "mlflow.db"))
    return list(mlflow.search_runs(search_all_experiments=True, output_format="list"))


def test_each_stage_is_taken_as_it_was_finished(project: Project) -> None:
    """A stage that is run as DVC runs it, of which DVC then records nothing, is what such a kill leaves."""
    project.edit("conf/trainer/default.yaml", max_epochs=1)
    before: dict[str, bytes] = {}
    files = {
        "prepare": "data/prepared/train.arrow", "finetune": str(MODEL), "evaluate": "reports/evaluation/confusion.png",
        "test": "reports/test/metrics.json",
    }  # fmt: skip
    project.run("dvc", "repro", "configure")
    for stage, made in files.items():
        project.run("python", "-m", "finespun.stages", stage, DVC_STAGE=stage)
        before[stage] = (project.folder / made).read_bytes()
        output = project.run("dvc", "repro", stage).stdout
        assert f"{stage}: had finished" in output
        assert "epoch" not in output
        assert (project.folder / made).read_bytes() == before[stage]
    project.run("dvc", "repro", "report")
    assert project.run("dvc", "status").stdout == "Data and pipelines are up to date.\n"
    [run] = runs(project)
    record = json.loads((project.folder / "models/finetuned/run.json").read_text())
    assert (run.info.run_id, run.info.status, run.data.tags["test_evaluations"]) == (record["run_id"], "FINISHED", "1")
    assert json.loads(before["test"])["test_evaluations"] == 1
    output = project.run("dvc", "repro", "--force", "--single-item", "finetune").stdout
    assert "had finished" not in output, "it is recorded now, so --force trains"
    assert len(runs(project)) == 2
    project.run("dvc", "repro")
    kept = [path.name.partition("-")[0] for path in (project.folder / ".finespun" / "finished").iterdir()]
    assert kept == ["test"], "no more than the last stage's small report is kept"
