"""Several processes: one that is silent, one that is told to end; the same command again ends in the same weights."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import QUIET, Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")
FINETUNE = ("python", "-m", "finespun.stages", "finetune")


@pytest.fixture
def two(project: Project) -> Project:
    project.edit("conf/runtime/default.yaml", devices=2, checkpoint_seconds=0, stall_minutes=0.15)
    project.edit("conf/trainer/default.yaml", max_epochs=4)
    project.run("python", "-m", "finespun.stages", "configure", "prepare")
    return project


def begun(project: Project) -> subprocess.Popen[str]:
    """A run of two processes whose first checkpoint is saved."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **QUIET, "PATH": path, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(FINETUNE, cwd=project.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list((project.folder / ".finespun" / "checkpoints").glob("*/state-*.ckpt")):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    return run


def workers(project: Project) -> Iterator[tuple[int, int]]:
    """Ranks and process ids."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_text(errors="replace").split("\0")
            here = (folder / "cwd").readlink() == project.folder
        except OSError:
            continue
        if here and any(each.startswith("TORCHELASTIC_RUN_ID=") for each in environment):
            yield next(int(each[5:]) for each in environment if each.startswith("RANK=")), int(folder.name)


def digest(project: Project) -> str:
    return hashlib.sha256((project.folder / "models" / "finetuned" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_silent_process_ends_all_and_is_named(two: Project, tmp_path: Path, rank: int) -> None:
    whole = two.copy(tmp_path / "whole")
    whole.run(*FINETUNE, OMP_NUM_THREADS="1")
    run = begun(two)
    os.kill(dict(workers(two))[rank], signal.SIGSTOP)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 5
    assert f"rank {rank}" in said
    assert not dict(workers(two)), "nobody is left"
    two.run(*FINETUNE, OMP_NUM_THREADS="1")
    assert digest(two) == digest(whole)


@pytest.mark.slow
def test_being_told_to_end_saves_a_checkpoint_on_several_devices_too(two: Project, tmp_path: Path) -> None:
    whole = two.copy(tmp_path / "whole")
    whole.run(*FINETUNE, OMP_NUM_THREADS="1")
    run = begun(two)
    run.terminate()
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 128 + signal.SIGTERM, said
    assert not dict(workers(two)), "nobody is left"
    assert "taking up state-" in two.run(*FINETUNE, OMP_NUM_THREADS="1").stdout
    assert digest(two) == digest(whole)
