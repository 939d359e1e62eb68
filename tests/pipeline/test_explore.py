"""`finespun run`: exploring beside `dvc repro`, one run a trial, prepared data shared."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
import yaml
from safetensors.torch import load_file, save_file

from helpers import Project


@pytest.fixture
def again(finished: Project, tmp_path: Path) -> Project:
    return finished.copy(tmp_path / "again")


def runs(project: Project) -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(f"sqlite:///{project.folder}/mlruns/mlflow.db")
    return list(mlflow.search_runs(search_all_experiments=True, output_format="list"))


def test_a_run_writes_beside_what_dvc_made(again: Project) -> None:
    for _ in range(2):  # the second time into the folder of the first
        again.run("finespun", "run", "strategy=full", "optimizer.lr=0.002", "trainer.max_epochs=1", "hydra.run.dir=outputs/one")
    assert again.run("git", "status", "--short").stdout == ""
    assert again.run("dvc", "status").stdout == "Data and pipelines are up to date.\n"
    folder = again.folder / "outputs" / "one"
    assert yaml.safe_load((folder / "build" / "config.yaml").read_text())["optimizer"]["lr"] == 0.002
    assert (folder / "models" / "finetuned" / "model.safetensors").is_file()
    assert json.loads((folder / "reports" / "evaluation" / "metrics.json").read_text())["rows"]
    assert not (folder / "reports" / "test").exists(), "an evaluation of the test split is for the chosen model"
    assert {run.data.params.get("optimizer.lr") for run in runs(again)} == {"0.001", "0.002"}


def test_hydra_answers_and_mistakes_have_their_exit_code(finished: Project) -> None:
    composed = finished.run("finespun", "run", "--cfg", "job", "optimizer.lr=0.5").stdout
    assert yaml.safe_load(composed)["optimizer"]["lr"] == 0.5
    assert yaml.safe_load(composed)["model"]["checkpoint"] == "data/tiny-bert", "the dials of params.yaml lie beneath"
    assert "strategy: dora, features, full, " in finished.run("finespun", "run", "--help").stdout
    wrong = finished.run("finespun", "run", "optimizer.lrr=1", "seed=-1", check=False)
    assert wrong.returncode == 2
    assert "command line: optimizer.lrr: torch.optim.AdamW has no such option (did you mean 'lr'?)" in wrong.stderr
    assert "command line: seed: Input should be greater than or equal to 0 (it is -1)" in wrong.stderr
    unknown = finished.run("finespun", "run", "model=tinny", check=False)
    assert unknown.returncode == 2
    assert "did you mean 'tiny'?" in unknown.stderr
    unread = finished.run("finespun", "run", "seed=[1", check=False)
    assert unread.returncode == 2
    assert "command line or conf/: no viable alternative at input '[1'" in unread.stderr
    elsewhere = finished.run("finespun", "run", "optimzer.lr=1", check=False)
    assert "command line: optimzer: unknown key (did you mean 'optimizer'?)" in elsewhere.stderr
    assert "Traceback" not in wrong.stderr + unknown.stderr + unread.stderr + elsewhere.stderr


def test_kept_features_are_those_of_the_very_model(again: Project) -> None:
    weights = again.folder / "data" / "tiny-bert" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensors[name] for name in tensors if "pooler" not in name}, weights, {"format": "pt"})
    sweep = [
        "strategy=features",
        "task.monitor=val/loss",
        "task.monitor_mode=min",
        "trainer.precision=32-true",
        "sweep.name=seeds",
        "sweep.keep_models=2",
    ]
    again.run("finespun", "run", "-m", "seed=1,2", *sweep)
    for trial in (again.folder / "multirun" / "seeds" / n for n in "01"):
        found = json.loads((trial / "reports" / "evaluation" / "details.json").read_text())["scores"]["log_loss"]["value"]
        chosen = json.loads((trial / "models" / "finetuned" / "run.json").read_text())["best_score"]
        assert found == pytest.approx(chosen, rel=1e-4), "a frozen pooler that the seed draws is another one in each trial"


def test_debugging_leaves_no_run_and_a_later_stage_may_begin_one(project: Project) -> None:
    project.run("finespun", "run", "runtime=debug", "hydra.run.dir=outputs/debug")
    folder = project.folder / "outputs" / "debug"
    assert json.loads((folder / "models" / "finetuned" / "run.json").read_text())["steps"] == 2
    assert json.loads((folder / "models" / "finetuned" / "run.json").read_text())["run_id"] == ""
    assert (folder / "reports" / "evaluation" / "metrics.json").is_file()
    assert not (project.folder / "mlruns").exists()

    project.edit("outputs/debug/build/config.yaml", runtime__tracking=True)
    for stage in ("evaluate", "test"):
        done = project.run("python", "-m", "finespun.stages", stage, "--out", str(folder))
        assert ("made with runtime.tracking: false" in done.stdout) == (stage == "evaluate"), "the second knows the run"
    [run] = runs(project)
    assert {"val/log_loss", "test/accuracy", "train/loss"} <= set(run.data.metrics)
