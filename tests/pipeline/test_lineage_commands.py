"""`finespun trace`, `plan`, `reproduce` and `compare` on a project that has run: what made the model, what would change it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from helpers import Project


@pytest.fixture
def again(finished: Project, tmp_path: Path) -> Project:
    return finished.copy(tmp_path / "again")


def run_id(project: Project) -> str:
    return str(json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"])


def test_a_trace_leads_from_data_to_report_from_wherever_it_begins(finished: Project) -> None:
    commit = finished.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    for given in (run_id(finished), "data/raw/movie_reviews.csv"):
        said = finished.run("finespun", "trace", given).stdout
        assert said.startswith(f"run {run_id(finished)}\n")
        links = ("raw data", "prepared", "configuration", "commit", "run", "model", "model in MLflow", "report")
        assert [what for what in links if f"  + {what}" not in said] == []
        assert commit[:12] in said
        assert "changes with digest" not in said


def test_a_trace_names_the_first_broken_link(again: Project) -> None:
    weights = again.folder / "models" / "finetuned" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # DVC may have linked it
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    metrics = again.folder / "reports" / "test" / "metrics.json"
    changed = json.loads(metrics.read_text()) | {"accuracy": 0.99}
    metrics.write_text(json.dumps(changed))
    done = again.run("finespun", "trace", run_id(again), check=False)
    assert done.returncode == 1
    assert "broken: model: models/finetuned/model.safetensors" in done.stderr
    assert "  ! report" in done.stdout
    (again.folder / "data" / "raw" / "movie_reviews.csv").unlink()
    assert "  - raw data" in again.run("finespun", "trace", run_id(again), check=False).stdout


def test_what_belongs_to_no_run_is_said(finished: Project) -> None:
    for given, said in (
        ("conf", "no run was made of the data conf"),
        ("?", "is no run id"),
    ):
        done = finished.run("finespun", "trace", given, check=False)
        assert (done.returncode, said in done.stderr) == (5, True), done.stderr


def test_a_plan_names_stages_and_keys_and_changes_nothing(again: Project) -> None:
    assert again.run("finespun", "plan").stdout.endswith("dvc repro would run nothing\n")
    again.edit("conf/optimizer/adamw.yaml", lr=0.002)
    before = {path: path.stat().st_mtime_ns for path in again.folder.rglob("*") if ".dvc" not in path.parts}
    said = again.run("finespun", "plan").stdout
    assert {path: path.stat().st_mtime_ns for path in again.folder.rglob("*") if ".dvc" not in path.parts} == before
    lines = said.splitlines()
    assert lines[0] == "configure  runs"
    assert "prepare    is up to date" in lines
    finetune = lines.index("finetune   runs")
    assert lines[finetune + 1].strip() == "optimizer.lr: 0.001 -> 0.002"
    assert lines[lines.index("evaluate   runs") + 1].strip() == "finetune runs"
    assert re.fullmatch(
        r"dvc repro would run configure, finetune, evaluate, test, report; last time they took \d\.\d minutes"
        r" \(\w+ \d\.\d\) and wrote \d+\.\d MB",
        lines[-1],
    )


def test_a_plan_knows_what_dvc_takes_from_its_cache(again: Project) -> None:
    """As after a change of settings that is taken back: `dvc.lock` is of other settings, the results of these are kept."""
    lock = again.folder / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())
    stages["stages"]["finetune"]["params"]["build/config.yaml"]["optimizer"]["lr"] = 0.5
    lock.write_text(yaml.safe_dump(stages, sort_keys=False))
    lines = again.run("finespun", "plan").stdout.splitlines()
    finetune = lines.index("finetune   is restored from DVC's cache")
    assert lines[finetune + 1].strip() == "optimizer.lr: 0.5 -> 0.001"
    assert "evaluate   is up to date" in lines, "it is the model that it has evaluated"
    assert lines[-1] == "dvc repro would run nothing"
    shutil.rmtree(again.folder / ".dvc" / "cache" / "runs")
    assert "finetune   runs" in again.run("finespun", "plan").stdout


@pytest.mark.slow
def test_what_a_plan_says_of_the_cache_is_what_dvc_does(again: Project) -> None:
    again.edit("conf/evaluation/default.yaml", bootstrap_resamples=101)
    assert again.stages_run(again.run("dvc", "repro").stdout) == ["configure", "evaluate", "test", "report"]
    again.edit("conf/evaluation/default.yaml", bootstrap_resamples=100)
    lines = again.run("finespun", "plan").stdout.splitlines()
    states = dict(line.split(maxsplit=1) for line in lines if line.split()[0] in {"configure", "evaluate", "test", "report"})
    restored = [stage for stage, state in states.items() if state == "is restored from DVC's cache"]
    assert {"evaluate", "test"} <= set(restored), lines
    said = again.run("dvc", "repro").stdout
    assert re.findall(r"Stage '(\w+)' is cached", said) == restored
    assert again.stages_run(said) == [stage for stage, state in states.items() if state == "runs"]


def test_a_plan_names_files_that_were_changed(again: Project) -> None:
    path = again.folder / "data" / "raw" / "movie_reviews.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    lines = again.run("finespun", "plan").stdout.splitlines()
    assert lines[lines.index("prepare    runs") + 1].strip() == "data/raw was modified"
    shutil.rmtree(path.parent)
    lines = again.run("finespun", "plan").stdout.splitlines()
    assert lines[lines.index("prepare    runs") + 1].strip() == "data/raw is not there", "and so nothing is restored"


def test_models_are_compared_row_by_row(again: Project) -> None:
    said = again.run("finespun", "compare", ".", ".", COLUMNS="200").stdout
    assert "+0.0 points (+0.0 to +0.0)" in said
    assert "1.000" in said


def test_a_model_is_registered_and_traced_by_its_alias(again: Project) -> None:
    assert "models:/movie_reviews@champion is version 1: there was none" in again.run("finespun", "register").stdout
    said = again.run("finespun", "trace", "movie_reviews@champion").stdout
    assert "  + registry         models:/movie_reviews/1, @candidate, @champion" in said
    assert said.startswith(f"run {run_id(again)}\n")


@pytest.mark.slow
def test_a_run_is_reproduced_to_the_bit_and_another_is_not(again: Project) -> None:
    done = again.run("finespun", "reproduce", run_id(again), timeout=600)
    assert done.stdout.endswith("the same bits\n"), done.stdout
    assert "+ finetune   model.safetensors" in done.stdout
    again.edit("conf/optimizer/adamw.yaml", lr=0.002)
    again.run("dvc", "repro")
    done = again.run("finespun", "reproduce", run_id(again), check=False)
    assert "was made of changes that are in no commit" in done.stderr
