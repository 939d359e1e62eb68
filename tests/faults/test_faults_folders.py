"""Folders of any name, runs that start in the same second, a DVC that was killed before its stage had begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finespun.explore import new_folder
from finespun.tracking.addresses import database_path, database_uri
from finespun.training.lightning import launching
from helpers import ROOT
from small_run import small_config

FOLDERS = [
    "100%20 done",
    "odd é #1?x=1",
    "plain",
    "a b",
    "semi;colon&amp",
    "100%",
    "ünï/コード",
    "+plus=",
    "[brackets]",
    "quote'd",
]
TRACKED = """
import json, sys
from pathlib import Path
from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.tracking.client import Tracker
folder = Path(sys.argv[1])
(folder / "report").mkdir(exist_ok=True)
(folder / "report" / "a.txt").write_text("x")
tracker = Tracker(RuntimeConfig.model_validate_json(sys.argv[2]), Artifacts(project=folder, out=folder))
with tracker.start("one", tags={}, params={}) as run:
    run.log({"a": 1.0}, 1)
    run.log_folder(folder / "report", "report")
print(json.dumps([file.path for file in tracker.client.list_artifacts(run.id, "report")]))
"""


@pytest.mark.parametrize("name", FOLDERS)
def test_addresses_of_files_and_back(name: str) -> None:
    path = Path("/home") / name / "mlflow.db"
    assert database_path(database_uri(path)) == path


@pytest.mark.parametrize("name", [*FOLDERS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in FOLDERS[2:])])
def test_a_project_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    command = [sys.executable, "-W", "ignore", "-c", TRACKED, str(folder), small_config().runtime.model_dump_json()]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '["report/a.txt"]'
    assert (folder / "mlruns" / "mlflow.db").is_file()
    assert [path.name for path in (folder / "mlruns" / "artifacts").rglob("a.txt")] == ["a.txt"]
    beside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert beside == {Path(name).parts[0]}, "nothing is written beside the project"


def test_runs_that_start_in_the_same_second_have_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_folder(str(tmp_path / "outputs")), range(24)))
    assert len(set(made)) == 24
    assert all(Path(folder).is_dir() for folder in made)


class Process:
    """What /proc says of a parent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, pid: int, command: bytes, name: str) -> None:
        (folder / str(pid)).mkdir(parents=True)
        (folder / str(pid) / "cmdline").write_bytes(command)
        (folder / str(pid) / "comm").write_text(f"{name}\n")
        monkeypatch.setattr(os, "getppid", lambda: pid)
        monkeypatch.setattr(launching, "Path", lambda text: folder / Path(text).name)


@pytest.mark.parametrize(
    ("pid", "command", "name", "lost"),
    [
        (1, b"/sbin/init\0", "init", True), (77, b"/lib/systemd/systemd\0--user\0", "systemd", True), (1, b"python\0/bin/dvc\0repro\0", "dvc", False),
        (80, b"python\0/venv/bin/dvc\0repro\0", "dvc", False), (81, b"sh\0-c\0", "sh", False), (82, b"python\0train.py\0", "python", False),
    ],
)  # fmt: skip
def test_a_stage_knows_that_dvc_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pid: int, command: bytes, name: str, lost: bool
) -> None:
    Process(monkeypatch, tmp_path, pid=pid, command=command, name=name)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert not launching.dvc_has_ended()
    monkeypatch.setenv("DVC_STAGE", "finetune")
    assert launching.dvc_has_ended() is lost


def test_an_orphan_of_dvc_does_nothing() -> None:
    code = "import sys; from finespun.stages import __main__ as m; m.dvc_has_ended = lambda: True; sys.argv = ['x', 'configure']; m.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "finespun configure: dvc has ended; nothing is done" in done.stderr


def test_the_number_of_threads_names_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from finespun.training.lightning.devices import choose

    one = choose(small_config().runtime, "32-true").arithmetic
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    other = choose(small_config().runtime, "32-true").arithmetic
    assert one != other
    assert other["threads"] == "77"
