"""Starting processes: they are given the time to end well, and told when nobody waits for them any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finespun.training.lightning.launching import LAUNCH_FOLDER, is_worker, rank, reporting, torchrun, world_size

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


def test_the_exit_code_is_that_of_rank_zero(tmp_path: Path) -> None:
    module = tmp_path / "ends.py"
    module.write_text(
        "import os, sys\n"
        "from finespun.training.lightning.launching import rank, reporting, world_size, is_worker\n"
        "assert is_worker() and world_size() == 2\n"
        "with reporting() as report: report(6 + rank())\n"
        "sys.exit(6 + rank())\n"
    )
    here = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{here}"
    try:
        assert torchrun(["ends"], 2, stall_minutes=1) == 6
    finally:
        os.environ["PYTHONPATH"] = here


def test_alone_a_process_is_rank_zero_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rank(), world_size(), is_worker()) == (0, 1, False)
    monkeypatch.setenv(LAUNCH_FOLDER, str(tmp_path))
    with reporting() as report:
        report(75)
    assert not list(tmp_path.iterdir()), "nobody waits for it"
