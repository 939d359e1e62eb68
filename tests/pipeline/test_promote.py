"""`finespun promote`: what a trial found, `dvc repro` finds too, to the last digit."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from helpers import ROOT, Project

PARAMS = """# The dials.
data: movie_reviews # the data
task: text_classification
model: tiny
strategy: full # what trains
optimizer: adamw
scheduler: linear
trainer: default
evaluation: default
report: default
runtime: default
experiment: none # of mine
seed: 42
"""


def promote(project: Project, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return project.run("finespun", "promote", *arguments, check=check)


@pytest.mark.slow
def test_dvc_reaches_the_metric_of_the_promoted_trial(project: Project) -> None:
    (project.folder / "params.yaml").write_text(PARAMS)
    project.commit("dials with comments")
    project.run("finespun", "run", "-m", "strategy=head,llrd", "optimizer.lr=2e-3,5e-3", "seed=3", "trainer.batch_size=8",
                "sweep.name=rates")  # fmt: skip
    said = promote(project, "rates").stdout
    assert "`dvc repro` will run: configure, prepare, finetune, evaluate, test, report" in said

    listed = project.run("finespun", "sweeps").stdout
    assert "rates  4 done  val/f1_macro" in listed
    [best] = [line for line in project.run("finespun", "sweeps", "rates").stdout.splitlines() if "done (best)" in line]
    trial = project.folder / "multirun" / "rates" / best.split()[0]
    found = json.loads((trial / "outcome.json").read_text())["values"]["val/f1_macro"]

    params = (project.folder / "params.yaml").read_text()
    settings = yaml.safe_load((trial / "build" / "config.yaml").read_text())
    strategy = settings["strategy"]["_target_"].split(".")[2]
    expected = PARAMS.replace("strategy: full", f"strategy: {strategy}").replace("experiment: none", "experiment: rates")
    assert params == expected.replace("seed: 42", "seed: 3")
    written = (project.folder / "conf" / "experiment" / "rates.yaml").read_text()
    changed = {"trainer": {"batch_size": 8}, "optimizer": {"lr": settings["optimizer"]["lr"]}}
    assert yaml.safe_load(written) == changed, "only what differs from the defaults"
    assert f"val/f1_macro {found!r}; seed 3; run " in written

    project.run("dvc", "repro", "finetune")
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())
    assert run["best_score"] == found, "to the last digit"

    refusals(project)


def refusals(project: Project) -> None:
    """What cannot be promoted is refused and changes nothing; the same again reruns nothing."""
    params = (project.folder / "params.yaml").read_text()
    again = promote(project, "rates").stdout
    assert "`dvc repro` will run configure alone" in again
    for wrong, message in (("rate", "did you mean 'rates'"), ("0" * 32, "neither a sweep nor a run of MLflow's")):
        refused = promote(project, wrong, check=False)
        assert refused.returncode == 2
        assert message in refused.stderr
    (project.folder / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\ntrainer: {max_epochs: 9}\n")
    taken = promote(project, "rates", "--name", "mine", check=False)
    assert "conf/experiment/mine.yaml: is another experiment; choose another --name" in taken.stderr
    assert (project.folder / "params.yaml").read_text() == params, "what was refused changed nothing"


@pytest.mark.slow
def test_a_run_of_its_own_is_promoted_by_its_id(project: Project) -> None:
    project.run("finespun", "run", "strategy=head", "optimizer.lr=0.004", "hydra.run.dir=outputs/one")
    record = json.loads((project.folder / "outputs" / "one" / "models" / "finetuned" / "run.json").read_text())
    promote(project, record["run_id"], "--name", "one")
    project.run("dvc", "repro", "finetune")
    made = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())
    assert made["best_score"] == record["best_score"]


@pytest.mark.slow
def test_the_commands_of_the_page_on_sweeps_run_as_they_stand(project: Project) -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    commands = [
        line for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]
    assert len(commands) >= 6
    for command in commands:
        said = project.run("bash", "-c", command, timeout=900)
        assert said.stdout
    assert "experiment: rates" in (project.folder / "params.yaml").read_text()
    named = set(re.findall(r"^`?(\w+)`? \| ", page, re.MULTILINE)) | set(re.findall(r"`(\w+)`", page))
    for folder in ("sweep", "hydra/sweeper/sampler", "hydra/sweeper/pruner"):
        stems = {path.stem for path in (ROOT / "conf" / folder).glob("*.yaml")} - {"default"}
        assert stems <= named, "every shipped choice is on the page"
