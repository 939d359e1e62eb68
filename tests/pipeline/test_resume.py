"""A run that was killed ends in the same bits, in the same MLflow run; a second process is turned away."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import mlflow
import pytest

from helpers import Project, states, training

MODEL = Path("models/finetuned/model.safetensors")


@pytest.fixture
def slow(finished: Project, tmp_path: Path) -> Project:
    """A copy that trains anew and saves after each step: the same result-changing settings as `finished`."""
    project = finished.copy(tmp_path / "slow")
    project.edit("conf/runtime/default.yaml", checkpoint_seconds=0)
    (project.folder / "models" / "finetuned" / "model.safetensors").unlink()
    project.run("rm", "-rf", "mlruns", ".dvc/cache")
    return project


def runs(project: Project) -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(f"sqlite:///{project.folder}/mlruns/mlflow.db")
    return list(mlflow.search_runs(search_all_experiments=True, output_format="list"))


def test_kill_9_and_dvc_repro_again_gives_the_same_bits_and_one_run(finished: Project, slow: Project) -> None:
    with training(slow) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert states(slow), "killed in mid-training: a checkpoint must be left"
    assert not (slow.folder / MODEL).exists()
    output = slow.run("dvc", "repro").stdout
    assert "taking up state-" in output
    assert (slow.folder / MODEL).read_bytes() == (finished.folder / MODEL).read_bytes()
    [run] = runs(slow)
    assert run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert {metric.step for metric in history} == set(
        range(1, json.loads((slow.folder / "models/finetuned/run.json").read_text())["steps"] + 1)
    )
    assert not states(slow), "the stage has succeeded: its checkpoints are gone"


def test_a_stage_whose_dvc_is_killed_ends_and_a_second_is_turned_away(slow: Project) -> None:
    with training(slow) as process:
        os.killpg(process.pid, signal.SIGSTOP)  # else a few steps may end before the second has begun
        second = slow.run("python", "-m", "finespun.stages", "finetune", check=False)
        os.killpg(process.pid, signal.SIGCONT)
        assert second.returncode == 75
        assert "is already training this very configuration" in second.stderr
        assert "Traceback" not in second.stderr
        os.kill(process.pid, signal.SIGKILL)
    slow.run("python", "-m", "finespun.stages", "finetune")
    assert (slow.folder / MODEL).exists()
