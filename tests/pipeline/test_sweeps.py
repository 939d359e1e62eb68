"""Sweeps with real processes: what is searched, killed, gone on with, recorded and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest

from helpers import QUIET, Project

WORD = "s3cret-word"
HEAD = ("strategy=head", "trainer.max_epochs=2", "trainer.batch_size=64")
SEARCH = (
    "hydra/sweeper=optuna",
    "hydra/sweeper/pruner=none",
    "optimizer.lr=tag(log, interval(1e-4, 1e-2))",
    "optimizer.weight_decay=0.0,0.1",
    *HEAD,
)


def sweep(project: Project, *overrides: str, check: bool = True, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    return project.run("finespun", "run", "-m", *overrides, check=check, timeout=timeout)


def begin(project: Project, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a sweep and does not wait for it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **QUIET, "PATH": path, "PYTHONPATH": "src", **environment}
    command = ["finespun", "run", "-m", *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=project.folder, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def trials(project: Project, name: str) -> list[tuple[int, str, dict[str, str], float | None]]:
    """Number, state, values and objective of each trial, as the study has them."""
    database = project.folder / ".finespun" / "sweeps" / name / "study.db"
    connection = sqlite3.connect(database, timeout=60)
    query = """SELECT t.number, t.state, a.value_json, v.value FROM trials t
        LEFT JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'values'
        LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0 ORDER BY t.number"""
    rows = connection.execute(query).fetchall()
    connection.close()
    return [(number, state, json.loads(values or "{}"), value) for number, state, values, value in rows]


def until(process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 120) -> None:
    """Waits for something that happens while a sweep runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def done(project: Project, name: str) -> int:
    try:
        return sum(state == "COMPLETE" for _, state, _, _ in trials(project, name))
    except sqlite3.OperationalError:
        return 0


def runs(project: Project) -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(f"sqlite:///{project.folder}/mlruns/mlflow.db")
    return list(mlflow.search_runs(search_all_experiments=True, output_format="list"))


def test_a_search_that_was_killed_ends_as_one_that_was_not(project: Project) -> None:
    sweep(project, *SEARCH, "sweep.trials=6", "sweep.name=whole")
    whole = trials(project, "whole")
    assert [state for _, state, _, _ in whole] == ["COMPLETE"] * 6
    assert len({tuple(values.items()) for _, _, values, _ in whole}) == 6

    killed = begin(project, *SEARCH, "sweep.trials=6", "sweep.name=killed")
    until(killed, lambda: done(project, "killed") >= 2)
    killed.kill()
    killed.communicate()
    before = trials(project, "killed")
    assert len(before) < 6
    again = sweep(project, *SEARCH, "sweep.trials=6", "sweep.name=killed")
    assert trials(project, "killed") == whole
    assert "6 trials (6 done)" in again.stdout
    assert "trial 0: lr" not in again.stdout, "what was finished stays"
    finished = sweep(project, *SEARCH, "sweep.trials=6", "sweep.name=killed")
    assert "all had ended before: another sweep.name begins anew" in finished.stdout

    in_mlflow(project, "killed")


def in_mlflow(project: Project, name: str) -> None:
    """A sweep is one run with a child a trial, that of the best linked, and Optuna's plots."""
    found = trials(project, name)
    [parent] = [run for run in runs(project) if run.info.run_name == name]
    children = [run for run in runs(project) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(found), "a trial that was interrupted goes on with its run"
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    best = max(value or 0 for _, _, _, value in found)
    assert parent.data.metrics["best/val/f1_macro"] == best
    linked = next(run for run in children if run.info.run_id == parent.data.tags["sweep.best_run"])
    assert linked.data.metrics["best_score"] == best
    assert linked.info.run_name.startswith("lr=")
    assert {"val/f1_macro", "train/loss"} <= set(linked.data.metrics)
    assert linked.data.params["strategy._target_"] == "finespun.strategies.head.Head"
    plots = {path.path for path in mlflow.MlflowClient().list_artifacts(parent.info.run_id, "plots")}
    assert {"plots/optimization_history.png", "plots/slice.png"} <= plots


def test_a_wrong_value_of_the_last_trial_stops_all_before_the_first(project: Project) -> None:
    wrong = sweep(project, "optimizer.lr=1e-5,abc", check=False)
    assert wrong.returncode == 2
    assert "optimizer.lr: Input should be a valid number (it is 'abc') (trial lr=abc)" in wrong.stderr
    assert not (project.folder / "multirun").exists()
    assert not (project.folder / "mlruns").exists()


@pytest.mark.slow
def test_trials_fail_alone_and_the_first_five_alike_stop_the_sweep(project: Project) -> None:
    mixed = sweep(project, "optimizer.lr=1e-3,1e35,2e-3", *HEAD, "sweep.name=mixed")
    assert [state for _, state, _, _ in trials(project, "mixed")] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "trial 1: lr=1e+35: failed: step" in mixed.stdout
    assert "train/loss is nan" in mixed.stdout
    kept = sorted(
        folder.name for folder in (project.folder / "multirun" / "mixed").iterdir() if list(folder.rglob("model.safetensors"))
    )
    [best] = kept
    assert max(trials(project, "mixed"), key=lambda each: each[3] or 0)[0] == int(best)
    measured = project.folder / "multirun" / "mixed" / best / "reports" / "evaluation" / "metrics.json"
    assert json.loads(measured.read_text())["rows"], "the best is measured in full"
    by_name = {run.info.run_name: run for run in runs(project)}
    assert by_name["lr=1e+35"].info.status == "FAILED"
    experiments = [each.experiment_id for each in mlflow.search_experiments()]
    logged = mlflow.search_logged_models(experiments, output_format="list")
    assert [model.source_run_id for model in logged] == [by_name["mixed"].data.tags["sweep.best_run"]]

    alike = sweep(project, "optimizer.lr=1e35,2e35,3e35,4e35,5e35,6e35,7e35", *HEAD, "sweep.name=alike", check=False)
    assert alike.returncode == 6
    assert "the first 5 trials failed alike, so it stops: " in alike.stderr
    assert len(trials(project, "alike")) == 5


@pytest.mark.slow
def test_a_trial_that_is_killed_goes_on_from_its_checkpoint(project: Project) -> None:
    slow = ("strategy=full", "trainer.max_epochs=40", "runtime.checkpoint_seconds=0", "optimizer.lr=1e-3,2e-3", "sweep.name=k")
    running = begin(project, *slow)
    log = project.folder / "multirun" / "k" / "0" / "validations.json"
    until(running, log.is_file)
    pid = next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/fd")
        if any(_leads(link, project.folder / "multirun" / "k" / "0" / "lock") for link in _links(path))
    )
    os.kill(pid, signal.SIGKILL)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert "killed by signal 9 (SIGKILL)" in said
    assert "it goes on from its last checkpoint" in said
    assert "taking up state-" in (project.folder / "multirun" / "k" / "0" / "trial.log").read_text()
    assert [state for _, state, _, _ in trials(project, "k")] == ["COMPLETE"] * 2


def _links(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _leads(link: Path, to: Path) -> bool:
    try:
        return link.readlink() == to
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_saves_and_goes_on(project: Project, number: int) -> None:
    slow = ("strategy=full", "trainer.max_epochs=60", "optimizer.lr=1e-3,2e-3", "sweep.name=i", "sweep.parallel=2")
    running = begin(project, *slow)
    logs = [project.folder / "multirun" / "i" / str(n) / "validations.json" for n in range(2)]
    until(running, lambda: all(log.is_file() for log in logs))
    running.send_signal(number)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 128 + number, said
    assert "interrupted; the same command goes on with it" in said
    again = sweep(project, *slow)
    assert "2 trials (2 done)" in again.stdout
    for log in logs:
        assert "taking up state-" in (log.parent / "trial.log").read_text()


@pytest.mark.slow
def test_a_pruned_trial_is_marked_and_its_checkpoints_go(project: Project) -> None:
    pruner = ["hydra/sweeper/pruner=threshold", "hydra.sweeper.pruner.lower=0.99", "+hydra.sweeper.pruner.n_warmup_steps=3"]
    said = sweep(project, "hydra/sweeper=optuna", *pruner, "optimizer.lr=1e-3,2e-3", *HEAD[:1], "trainer.max_epochs=30",
                 "sweep.trials=2", "sweep.name=p", check=False)  # fmt: skip
    assert "ended at validation 3 by the sweep's pruner" in said.stdout + said.stderr or "pruned" in said.stdout
    assert [state for _, state, _, _ in trials(project, "p")] == ["PRUNED"] * 2
    children = [run for run in runs(project) if run.data.tags.get("sweep.name") == "p" and "sweep.trial" in run.data.tags]
    assert all("by the sweep's pruner" in run.data.tags["ended"] for run in children)
    assert {run.info.status for run in children} == {"KILLED"}
    assert not list((project.folder / ".finespun" / "checkpoints").glob("*/*.ckpt"))
    assert said.returncode == 1


@pytest.mark.slow
def test_auto_looks_searches_and_ends_with_the_model_of_the_best_mean(project: Project) -> None:
    budget = ("sweep.minutes=15", "sweep.trials=4", "sweep.finalists=1", "sweep.seeds=2", "sweep.name=a")
    said = sweep(project, "sweep=auto", *budget, timeout=60 * 20).stdout  # a busy machine may use the budget up
    assert re.search(r"sweep=auto: 1\d\d training rows of \d+ tokens, 0.1 M parameters", said)
    assert "searching strategy=choice(llrd), strategy.layer_decay=interval(0.85, 1.0)" in said
    found = trials(project, "a")
    assert len(found) == 5, "four, and the best with another seed"
    assert {state for _, state, _, _ in found} <= {"COMPLETE", "PRUNED"}
    assert found[-1][1] == "COMPLETE", "no pruner ends a finalist's further seed, whose mean would lack it"
    [model] = (project.folder / "multirun" / "a").glob("*/models/finetuned/model.safetensors")
    assert (model.parents[2] / "reports" / "evaluation" / "metrics.json").is_file()
    assert "finespun promote a" in said


@pytest.mark.slow
def test_auto_searches_a_model_from_scratch(project: Project) -> None:
    vocabulary = json.loads((project.folder / "data" / "tiny-bert" / "config.json").read_text())["vocab_size"]
    sizes = "hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64, max_position_embeddings: 64"
    model = f"config: {{model_type: bert, vocab_size: {vocabulary}, {sizes}}}\nweights: random\ntokenizer: data/tiny-bert\n"
    (project.folder / "conf" / "model" / "scratch.yaml").write_text(model)
    project.edit("params.yaml", model="scratch")
    budget = ("sweep.minutes=5", "sweep.trials=2", "sweep.finalists=1", "sweep.seeds=1", "sweep.name=s")
    said = sweep(project, "sweep=auto", *budget, "trainer.max_epochs=1").stdout
    assert "searching strategy=choice(full), optimizer.lr=tag(log, interval(1e-4, 3e-3))" in said
    assert {state for _, state, _, _ in trials(project, "s")} <= {"COMPLETE", "PRUNED"}


LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_published_launchers_run_trials_of_one_sweep(project: Project, launcher: str) -> None:
    pytest.importorskip({"submitit_local": "submitit"}.get(launcher, launcher))
    said = sweep(project, *LAUNCHERS[launcher], "optimizer.lr=1e-3,2e-3,1e35,3e-3", *HEAD, "sweep.parallel=2", "sweep.name=l")
    assert [state for _, state, _, _ in trials(project, "l")] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert "4 trials (3 done, 1 failed)" in said.stdout
    [parent] = [run for run in runs(project) if run.info.run_name == "l"]
    children = [run for run in runs(project) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    again = sweep(project, *LAUNCHERS[launcher], "optimizer.lr=1e-3,2e-3,1e35,3e-3", *HEAD, "sweep.parallel=2", "sweep.name=l")
    assert "all had ended before" in again.stdout


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL server in a temporary folder; yields its address without the password."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path / "pg"
    as_user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    folder.mkdir()
    (tmp_path / "password").write_text(WORD)
    if as_user:
        shutil.chown(folder, "nobody")
        for parent in (tmp_path, *tmp_path.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o755)
    auth = ["--auth=scram-sha-256", f"--pwfile={tmp_path / 'password'}", "--username=finespun"]
    subprocess.run([*as_user, "initdb", "-D", str(folder / "data"), *auth], check=True, capture_output=True, cwd=folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    server = subprocess.Popen(
        [*as_user, "postgres", "-D", str(folder / "data"), *options], cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        time.sleep(1)
        yield f"postgresql+psycopg://finespun:${{oc.env:PG_WORD}}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_sweep_in_postgresql_goes_on_and_its_password_is_in_no_file(project: Project, postgres: str) -> None:
    search = (*SEARCH[:1], "hydra/sweeper/pruner=median", *SEARCH[2:], f"sweep.storage='{postgres}'", "sweep.name=pg")
    first = project.run("finespun", "run", "-m", *search, "sweep.trials=3", PG_WORD=WORD)
    assert "3 trials" in first.stdout
    more = project.run("finespun", "run", "-m", *search, "sweep.trials=5", "sweep.parallel=2", PG_WORD=WORD)
    assert "5 trials" in more.stdout
    for path in project.folder.rglob("*"):
        if path.is_file() and "src" not in path.parts:
            assert WORD.encode() not in path.read_bytes(), path
    wrong = project.run("finespun", "run", "-m", *search, check=False, PG_WORD="other")
    assert wrong.returncode == 5
    assert "sweep.storage: postgresql+psycopg://***@127.0.0.1" in wrong.stderr
