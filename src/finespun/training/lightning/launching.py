"""More than one device: always started by torchrun, under `dvc repro`, `finespun run` and `-m` alike."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from finespun.errors import FinespunError, MachineError
from finespun.training.lightning.heartbeat import SECONDS, Pulse, Watch

LAUNCH_FOLDER = "FINESPUN_LAUNCH_FOLDER"  # in which processes say how they are
EXIT_FILE = "exit_code"
SPEAKS_FIRST_SECONDS = 10.0
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


def launch(arguments: list[str], processes: int, *, stall_minutes: float) -> None:
    """Runs `python -m ARGUMENTS` in several processes.

    Raises:
        FinespunError: they failed; it has their exit code, and they have said why.
        MachineError: one of them was silent for `stall_minutes`; all are ended.
    """
    code = torchrun(arguments, processes, stall_minutes=stall_minutes)
    if code:
        failed = FinespunError(f"{processes} processes ended with exit code {code}; the reason stands above")
        failed.exit_code = code
        raise failed


def torchrun(arguments: list[str], processes: int, *, stall_minutes: float) -> int:
    """Runs `python -m ARGUMENTS` in several processes and returns the exit code of rank zero.

    Raises:
        MachineError: one of them was silent for `stall_minutes`; all are ended.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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
        environment = {"OMP_NUM_THREADS": threads, **os.environ, LAUNCH_FOLDER: name}
        watch = Watch(folder, stall_minutes=stall_minutes)
        heard, code = _run_and_watch(command, environment, watch)
        exit_file = folder / EXIT_FILE
        said = exit_file.read_text() if exit_file.exists() else ""
        if said.isdigit():
            return int(said)
        return 128 + heard if heard else MachineError.exit_code if code == 1 else code  # rank zero could not say anything


def _run_and_watch(command: list[str], environment: dict[str, str], watch: Watch) -> tuple[int, int]:
    """Returns the signal that was received meanwhile, and the exit code.

    The processes are a session of their own: what reaches this group reaches them once, through `passed_on`.
    """
    with _started(command, env=environment) as process, passed_on(process, send=watch.send) as heard:
        while process.poll() is None:
            watch.require_progress()
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
        return (heard[0] if heard else 0), process.returncode


def _started(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent, **options)  # noqa: PLW1509


def run_and_wait(command: list[str], *, folder: Path | None = None) -> int:
    """Runs a command to its end and returns its exit code.

    Ctrl-C and SIGTERM reach it too: it is given the time to save a checkpoint.
    """
    with _started(command, cwd=folder) as process, passed_on(process):
        return process.wait()


@contextmanager
def passed_on(process: subprocess.Popen[bytes], send: Callable[[int], bool] | None = None) -> Iterator[list[int]]:
    """While it lasts, Ctrl-C and SIGTERM are for a process, and its own; yields the list of those that came.

    The first one goes through `send`, if that reaches anybody; further ones to the process itself, which ends its own at once.
    """
    heard: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1 or send is None or not send(number):
            process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield heard  # Python hears signals in its main thread alone; the process dies with this one
        return
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


@contextmanager
def reporting() -> Iterator[Callable[[int], None]]:
    """Lets the launcher, if there is one, hear from this process; yields what tells it the exit code.

    torchrun itself only knows success and failure.
    """
    folder = os.environ.get(LAUNCH_FOLDER)
    if not is_worker() or folder is None:
        yield lambda _code: None
        return
    pulse = Pulse(Path(folder), rank())
    pulse.start()

    def report(code: int) -> None:
        said = Path(folder) / EXIT_FILE
        if rank() and code:  # torchrun ends the others as soon as one has failed: rank zero, which may fail alike, speaks first
            until = time.monotonic() + SPEAKS_FIRST_SECONDS
            while not said.exists() and time.monotonic() < until:
                time.sleep(0.05)
        if rank() == 0 or (code and not said.exists()):
            said.write_text(str(code))

    try:
        yield report
    finally:
        pulse.stop()
