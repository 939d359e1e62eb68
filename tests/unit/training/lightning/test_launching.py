"""Starting processes: they are given the time to end well, and told when nobody waits for them any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finespun.errors import MachineError
from finespun.training.lightning import launching
from finespun.training.lightning.launching import LAUNCH_FOLDER, LOST, UNMET, is_worker, rank, reporting, torchrun, world_size
from finespun.training.lightning.nodes import RESTARTS, Nodes

CHILD = """
import signal, sys, time
from pathlib import Path
def end(number, frame):
    time.sleep(0.8)  # saving a checkpoint takes longer than the patience of subprocess.run
    Path(sys.argv[1]).write_text(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from finespun.training.lightning.launching import run_and_wait
sys.exit(run_and_wait([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(tmp_path / "heard")],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_ctrl_c_waits_for_the_checkpoint_and_hands_on_the_exit_code(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert (tmp_path / "heard").read_text() == "2"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_process_whose_parent_is_killed_is_told(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "heard").exists() or not (tmp_path / "heard").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "heard").read_text() == "15"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a program in two processes of torchrun's; returns the exit code and what it said on standard error."""

    def go(text: str, **options: Any) -> tuple[int, str]:
        (tmp_path / "ends.py").write_text(PROGRAM.format(work=text))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        return torchrun(["ends"], 2, stall_minutes=1, **options), capfd.readouterr().err

    return go


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from finespun.artifacts import Artifacts
from finespun.errors import DataError, DivergedError
from finespun.stages.__main__ import _said
from finespun.training.lightning.launching import is_worker, rank, reporting, world_size
assert is_worker() and world_size() == 2
here = Artifacts(project=Path(), out=Path())
code = 0
with reporting() as report:
    try:
        {work}
    except Exception as error:
        code = _said(error, "finetune", here)
    report(code)
os._exit(code)
"""
CLOSED = "Connection closed by peer [127.0.0.1]:1"


def test_the_exit_code_is_that_of_rank_zero(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run("raise (DivergedError('the loss is nan') if rank() else DataError('row 7 is bad'))")
    assert code == 3
    assert said == "finespun finetune: row 7 is bad\n", "once, and nothing of torchrun's"


def test_the_first_rank_that_fails_is_heard_and_the_others_only_miss_it(run: Callable[..., tuple[int, str]]) -> None:
    """Rank zero notices in an exchange that rank one is gone, and says so; why it went is what counts."""
    wait = "time.sleep(1), (_ for _ in ()).throw(RuntimeError(CLOSED))"
    code, said = run(f"CLOSED = {CLOSED!r}; {wait} if rank() == 0 else (_ for _ in ()).throw(DataError('row 7 is bad'))")
    assert code == 3
    assert "finespun finetune: row 7 is bad" in said


def test_one_that_is_killed_is_missed(run: Callable[..., tuple[int, str]]) -> None:
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    code, said = run(f"CLOSED = {CLOSED!r}; {kill} if rank() else (time.sleep(60), )")
    assert code == 5
    assert "rank 1 (process " in said
    assert "was ended by SIGKILL, most often because memory ran out" in said


def test_alone_a_process_is_rank_zero_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rank(), world_size(), is_worker()) == (0, 1, False)
    monkeypatch.setenv(LAUNCH_FOLDER, str(tmp_path))
    with reporting() as report:
        report(75)
    assert not list(tmp_path.iterdir()), "nobody waits for it"


class Attempts:
    """In place of torchrun: the exit codes of one attempt after another."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.meetings = list(codes), list[list[str]]()

    def __call__(self, arguments: list[str], processes: int, meeting: list[str], stall_minutes: float) -> int:
        self.meetings.append(meeting)
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]


@pytest.mark.parametrize(
    ("codes", "ends", "attempts"),
    [
        ((0,), 0, 1),
        ((3,), 3, 1),
        ((LOST, 0), 0, 2),
        ((UNMET, UNMET, 0), 0, 3),  # the place where they meet is not there yet, or goes with the stage before
        ((LOST, UNMET, 6), 6, 3),
        ((LOST,), 5, 1 + RESTARTS),
    ],
)
def test_a_lost_node_is_waited_for(monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...], ends: int, attempts: int) -> None:
    found = Attempts(*codes)
    monkeypatch.setattr(launching, "_attempt", found)
    monkeypatch.setattr(launching, "MEET_AGAIN_SECONDS", 0.0)
    assert torchrun(["stage"], 2, stall_minutes=1, nodes=Nodes("2", "n1:29400"), name="finetune") == ends
    assert len(found.meetings) == attempts
    assert {"--nnodes=2", "--rdzv-endpoint=n1:29400", "--rdzv-id=finetune", "--max-restarts=0"} <= set(found.meetings[0])


def test_nodes_that_do_not_meet_are_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_attempt", Attempts(UNMET))
    monkeypatch.setattr(launching, "MEET_AGAIN_SECONDS", 0.01)
    with pytest.raises(MachineError, match="did not meet at n1:29400 .*start the same command on each"):
        torchrun(["stage"], 2, stall_minutes=0.001, nodes=Nodes("2", "n1:29400"), name="finetune")


@pytest.mark.parametrize(("code", "ends"), [(LOST, 5), (UNMET, 5), (6, 6)])
def test_on_one_node_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch, code: int, ends: int) -> None:
    found = Attempts(code)
    monkeypatch.setattr(launching, "_attempt", found)
    assert torchrun(["stage"], 2, stall_minutes=1) == ends
    assert found.meetings == [["--standalone"]]
