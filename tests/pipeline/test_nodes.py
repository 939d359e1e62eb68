"""Two nodes: two of torchrun's agents with one process each on this machine, which share a folder or not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import yaml
from safetensors.numpy import load_file

from helpers import QUIET, Project

pytestmark = pytest.mark.slow
TRAIN = ("python", "-m", "finespun.stages", "finetune", "evaluate")


class Node:
    """The project, or a copy of it, in which the same command is started as on the others."""

    def __init__(self, project: Project, folder: Path, *, shared: bool) -> None:
        self.project = project if shared else project.copy(folder)
        self.output = folder.with_suffix(".txt")

    def start(self, *command: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, **QUIET, "PATH": path, "PYTHONPATH": "src"}
        with self.output.open("a") as output:
            self.process = subprocess.Popen(command, cwd=self.project.folder, env=env, stdout=output, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def lose(self) -> None:
        """All of its processes at once, as when the power fails."""
        whole = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for each in whole:
            each.send_signal(signal.SIGSTOP)
        for each in whole:
            each.kill()
        self.process.wait()

    def ended(self) -> int:
        return self.process.wait(timeout=240)


@contextmanager
def two_nodes(project: Project, tmp_path: Path, nodes: int | str, *, shared: bool = False) -> Iterator[tuple[Node, Node]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    project.edit("build/config.yaml", runtime__nodes=nodes, runtime__rendezvous=place, runtime__devices=1)
    one, other = (Node(project, tmp_path / name, shared=shared) for name in ("one", "other"))
    try:
        yield one, other
    finally:
        for each in (one, other):
            if each.process.poll() is None:
                each.lose()


@pytest.fixture
def whole(project: Project) -> dict[str, np.ndarray]:
    """Trains with two processes on one node, and leaves the project prepared for two."""
    project.edit("conf/runtime/default.yaml", checkpoint_seconds=0)
    project.edit("conf/trainer/default.yaml", max_epochs=3, precision="32-true")
    path = project.folder / "data" / "tiny-bert" / "config.json"
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # drawn by rank
    path.write_text(json.dumps({**json.loads(path.read_text()), **no_dropout}))
    project.run("python", "-m", "finespun.stages", "configure", "prepare")
    project.edit("build/config.yaml", runtime__devices=2)
    project.run(*TRAIN, OMP_NUM_THREADS="1")
    found = load_file(project.folder / "models" / "finetuned" / "model.safetensors")
    project.run("rm", "-r", "models", "mlruns", "reports/evaluation", ".finespun")
    return dict(found)


def same(node: Node, whole: dict[str, np.ndarray], atol: float = 0.0) -> bool:
    found = load_file(node.project.folder / "models" / "finetuned" / "model.safetensors")
    return all(np.allclose(found[name], whole[name], atol=atol, rtol=0) for name in whole)


def has(node: Node, made: str) -> bool:
    return (node.project.folder / made).exists()


def until(found: Callable[[], bool], *nodes: Node) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert time.monotonic() < deadline, [node.said for node in nodes]
        time.sleep(0.05)


def checkpoints(project: Project) -> list[Path]:
    return list((project.folder / ".finespun").glob("checkpoints/*/state-*.ckpt"))


def runs(node: Node) -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(f"sqlite:///{node.project.folder}/mlruns/mlflow.db")
    return list(mlflow.search_runs(search_all_experiments=True, output_format="list"))


def test_two_nodes_end_like_one_and_rank_zero_alone_writes(
    project: Project, tmp_path: Path, whole: dict[str, np.ndarray]
) -> None:
    with two_nodes(project, tmp_path, 2) as nodes:
        for node in nodes:
            node.start(*TRAIN[:-1])
        assert [node.ended() for node in nodes] == [0, 0], [node.said for node in nodes]
        first, other = nodes if has(nodes[0], "models/finetuned") else reversed(nodes)
        assert same(first, whole)
        assert "DDP, 2 processes on 2 nodes" in first.said
        for made in ("models/finetuned", "mlruns"):
            assert has(first, made)
            assert not has(other, made), "rank zero alone writes"
        [run] = runs(first)
        assert run.info.status == "FINISHED"


@pytest.mark.parametrize("which", ["first", "other"])
def test_a_node_that_is_lost_is_waited_for_and_training_goes_on(
    project: Project, tmp_path: Path, whole: dict[str, np.ndarray], which: str
) -> None:
    with two_nodes(project, tmp_path, 2, shared=True) as nodes:
        for node in nodes:
            node.start(*TRAIN)
        until(lambda: len(checkpoints(project)) == 2, *nodes)
        left, lost = sorted(nodes, key=lambda node: ("weights: " in node.said) == (which == "first"))
        lost.lose()
        until(lambda: "a node is lost" in left.said, left)
        lost.start(*TRAIN)
        assert [node.ended() for node in nodes] == [0, 0], [node.said for node in nodes]
        assert "taking up state-" in left.said + lost.said
        assert same(left, whole)
        [run] = runs(left)
        assert run.info.status == "FINISHED"


def test_with_fewer_nodes_allowed_the_others_go_on_alone(
    project: Project, tmp_path: Path, whole: dict[str, np.ndarray]
) -> None:
    with two_nodes(project, tmp_path, "1:2", shared=True) as nodes:
        for node in nodes:
            node.start(*TRAIN)
        until(lambda: len(checkpoints(project)) == 2, *nodes)
        left, lost = nodes
        lost.lose()
        assert left.ended() == 0, left.said
        assert "taking up state-" in left.said
        assert same(left, whole, atol=1e-4)


def test_nodes_that_read_something_else_are_told(project: Project, tmp_path: Path) -> None:
    project.run("python", "-m", "finespun.stages", "configure", "prepare")
    with two_nodes(project, tmp_path, 2) as (one, other):
        other.project.edit("conf/trainer/default.yaml", batch_size=8)
        path = other.project.folder / "src" / "finespun" / "tasks" / "base.py"
        path.write_text(path.read_text() + "# another version\n")
        for node in (one, other):
            node.start(*TRAIN)
        assert [node.ended() for node in (one, other)] == [5, 5]
        assert "reads another src/finespun/tasks" in one.said + other.said
        assert "same commit and the same data" in one.said + other.said


def test_a_node_that_nobody_joins_says_so(project: Project, tmp_path: Path) -> None:
    project.run("python", "-m", "finespun.stages", "configure", "prepare")
    project.edit("build/config.yaml", runtime__stall_minutes=0.2)
    with two_nodes(project, tmp_path, 2) as (one, other):
        other.process = one.process = subprocess.Popen(["true"])
        one.start(*TRAIN)
        assert one.ended() == 5
        assert "2 nodes (runtime.nodes) did not meet at 127.0.0.1:" in one.said


def test_stages_are_jobs_of_submitit_or_steps_of_srun(project: Project, tmp_path: Path) -> None:
    project.edit("params.yaml", runtime="slurm")
    asked = yaml.safe_load((project.folder / "conf" / "runtime" / "slurm.yaml").read_text())["slurm"]
    asked |= {"executor": "local", "gpus_per_node": None}
    project.edit("conf/runtime/slurm.yaml", slurm=asked, num_workers=0)
    out = project.run("python", "-m", "finespun.stages", "configure", "prepare", "finetune", "--out", str(tmp_path / "job"))
    assert "finetune: job " in out.stdout
    assert "one process, precision" in out.stdout, "what the job says is shown"
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    start = "while sys.argv[1].startswith('--'): del sys.argv[1]\nos.execv(sys.argv[1], sys.argv[1:])"
    srun.write_text(f"#!{sys.executable}\nimport os, sys\nprint('srun', flush=True)\n{start}\n")
    srun.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    step = ("python", "-m", "finespun.stages", "configure", "prepare", "finetune", "evaluate", "--out", str(tmp_path / "step"))
    out = project.run(*step, PATH=path, SLURM_JOB_ID="77", SLURM_NNODES="1", SLURM_NTASKS="1", SLURM_JOB_NODELIST="here")
    assert out.stdout.count("srun\n") == 2
    one, two = (load_file(tmp_path / name / "models" / "finetuned" / "model.safetensors") for name in ("job", "step"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
