"""SLURM: what srun and sbatch are asked for, and that a stage's words and exit code come back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig, SlurmConfig
from finespun.errors import FinespunError, MachineError
from finespun.stages import slurm
from finespun.training.lightning.nodes import NODES, RENDEZVOUS, Nodes
from small_run import small_config

ALONE = {"SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NODELIST", "SLURM_CPUS_ON_NODE", NODES, RENDEZVOUS}
LOCAL = SlurmConfig(minutes=5, executor="local")


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALONE:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def here(tmp_path: Path) -> Artifacts:
    return Artifacts(project=tmp_path, out=tmp_path / "out")


def runtime(**changes: Any) -> RuntimeConfig:
    return RuntimeConfig.model_validate({**small_config().runtime.model_dump(), "slurm": LOCAL.model_dump(), **changes})


def program(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys\n{text}\n")
    path.chmod(0o755)


SRUN = """
place = {name: os.environ[name] for name in ("FINESPUN_NODES", "FINESPUN_RENDEZVOUS")}
options = [each for each in sys.argv[1:] if each.startswith("--") and "=" in each]
command = sys.argv[1 + len(options):]
print(json.dumps({"options": options, "command": command, "place": place, "folder": os.getcwd()}))
sys.exit(3)
"""


def test_inside_an_allocation_srun_starts_the_same_command_on_each_node(
    here: Artifacts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program(here.project, "srun", SRUN)
    program(here.project, "scontrol", "assert sys.argv[1:] == ['show', 'hostnames', 'n[7-8]']; print('n7'); print('n8')")
    monkeypatch.setenv("PATH", f"{here.project / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"JOB_ID": "12345", "JOB_NUM_NODES": "2", "JOB_NODELIST": "n[7-8]", "CPUS_ON_NODE": "16"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(FinespunError, match="ended with exit code 3 on its nodes") as failed:
        slurm.hand_over("finetune", here, runtime(nodes=2))
    assert failed.value.exit_code == 3, "that of the stage"
    said = json.loads(capfd.readouterr().out)
    assert said["command"] == [sys.executable, "-m", "finespun.stages", "finetune", "--out", str(here.out)]
    wanted = ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--cpus-per-task=16"]
    assert said["options"] == wanted
    assert said["place"] == {NODES: "2", RENDEZVOUS: "n7:22345"}
    assert said["folder"] == str(here.project)
    assert RENDEZVOUS not in os.environ, "the next stage is handed over, too"


def test_on_its_node_a_stage_is_not_handed_over_again(here: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RENDEZVOUS, "n7:22345")
    monkeypatch.setenv(NODES, "2")
    assert not slurm.hand_over("finetune", here, runtime(nodes=2))
    assert Nodes.of(runtime(nodes=2)) == Nodes("2", "n7:22345")


def test_without_slurm_nothing_is_handed_over(here: Artifacts) -> None:
    assert not slurm.hand_over("finetune", here, small_config().runtime)


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(0)", 0), ("sys.exit(6)", 6)])
def test_outside_of_one_a_job_is_submitted_shown_and_its_exit_code_taken(
    here: Artifacts, capfd: pytest.CaptureFixture[str], ending: str, code: int
) -> None:
    script = f"import os, sys; print('on', os.environ['{RENDEZVOUS}'], os.getcwd()); print('bad', file=sys.stderr); {ending}"
    found = slurm._as_job("finetune", [sys.executable, "-c", script], here, runtime(), LOCAL)
    assert found == code
    said = capfd.readouterr()
    assert "on 127.0.0.1:2" in said.out
    assert str(here.project) in said.out
    assert said.err == "bad\n"
    assert list((here.state / "slurm").glob("*_log.out"))


@pytest.mark.slow
def test_a_job_that_is_killed_is_told_with_where_to_look(here: Artifacts) -> None:
    script = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"  # the process of submitit, as SLURM would
    with pytest.raises(MachineError, match="did not come to its end.*_log.err says more; start again"):
        slurm._as_job("finetune", [sys.executable, "-c", script], here, runtime(), LOCAL)


def test_where_there_is_no_slurm_it_is_said(here: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here.project))
    with pytest.raises(MachineError, match="there is no sbatch here; go to a login node, or set runtime: auto"):
        slurm.hand_over("test", here, runtime(slurm={"minutes": 5}))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with pytest.raises(MachineError, match="there is no srun"):
        slurm.hand_over("test", here, runtime(slurm={"minutes": 5}))


def test_what_sbatch_is_asked_for() -> None:
    asked = {"minutes": 90, "partition": "gpu", "gpus_per_node": 8, "memory_gb": 200, "sbatch": {"constraint": "a100"}}
    found = slurm._parameters("finespun-test", runtime(nodes=4), SlurmConfig.model_validate(asked))
    assert found == {
        "name": "finespun-test", "nodes": 4, "tasks_per_node": 1, "timeout_min": 90, "gpus_per_node": 8,
        "slurm_partition": "gpu", "mem_gb": 200, "slurm_additional_parameters": {"constraint": "a100"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nodes": 2, "slurm": None}, "nodes: 2 need rendezvous, HOST:PORT"),
        ({"nodes": "3:2", "rendezvous": "n1:29400", "slurm": None}, "from more to less; say 2:3"),
        ({"nodes": "1:2"}, "SLURM is asked for a number; say 2"),
        ({"rendezvous": "n1"}, "rendezvous"),
        ({"slurm": {"minutes": 0}}, "minutes"),
        ({"slurm": {"minutes": 1, "gpus": 1}}, "gpus"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        runtime(**changes)
