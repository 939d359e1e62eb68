"""More than one device: always started by torchrun, under `dvc repro`, `finespun run` and `-m` alike."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from finespun.errors import MachineError

EXIT_FILE = "FINESPUN_EXIT_FILE"
PR_SET_PDEATHSIG = 1
REAPERS = {"systemd", "init", "tini", "dumb-init", "docker-init", "catatonit", "containerd-shim"}  # who adopts orphans


def rank() -> int:
    """This process's number among all."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_worker() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun(arguments: list[str], processes: int) -> int:
    """Runs `python -m ARGUMENTS` in several processes and returns the exit code of rank zero."""
    with tempfile.TemporaryDirectory() as folder:
        exit_file = Path(folder) / "exit_code"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            *arguments,
        ]
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        code = run_and_wait(command, environment={"OMP_NUM_THREADS": threads, **os.environ, EXIT_FILE: str(exit_file)})
        said = exit_file.read_text() if exit_file.exists() else ""
        if said.isdigit():
            return int(said)
        return MachineError.exit_code if code == 1 else code  # rank zero was ended before it could say anything


def run_and_wait(command: list[str], *, folder: Path | None = None, environment: dict[str, str] | None = None) -> int:
    """Runs a command to its end and returns its exit code.

    Ctrl-C reaches it too: it is given the time to save a checkpoint (`subprocess.run` would kill it after a quarter second).
    """
    with subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=die_with_parent) as process:  # noqa: PLW1509
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def die_with_parent() -> None:
    """On Linux, a process whose parent was killed is told to save a checkpoint and end, instead of training on unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def dvc_has_ended() -> bool:
    """Whether DVC started this process and was killed before the process could ask to be told (`die_with_parent`)."""
    if sys.platform != "linux" or is_worker() or "DVC_STAGE" not in os.environ:
        return False
    parent = Path(f"/proc/{os.getppid()}")
    try:
        command, name = (parent / "cmdline").read_text(errors="replace"), (parent / "comm").read_text().strip()
    except OSError:
        return True  # it ended just now
    return "dvc" not in command and (parent.name == "1" or name in REAPERS)


def report_exit(code: int) -> None:
    """Tells the launcher how this process ends: torchrun itself only knows success and failure."""
    if rank() == 0 and EXIT_FILE in os.environ:
        Path(os.environ[EXIT_FILE]).write_text(str(code))
