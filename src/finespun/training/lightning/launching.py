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
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from finespun.errors import FinespunError, LostPeerError, MachineError
from finespun.training.lightning.heartbeat import SECONDS, Pulse, Watch
from finespun.training.lightning.nodes import RESTARTS, Nodes

LAUNCH_FOLDER = "FINESPUN_LAUNCH_FOLDER"  # in which processes say how they are
EXIT_FILE = "exit_code"
LOST, UNMET = 76, 77  # codes among ourselves: another process of the run is gone; nodes did not meet
MEET_AGAIN_SECONDS = 1.0
ONE_NODE = Nodes()
AGENT = "finespun.training.lightning.agent"
SPEAKS_FIRST_SECONDS, REASON_SECONDS = 10.0, 1.0
PR_SET_PDEATHSIG = 1
REAPERS = {"systemd", "init", "tini", "dumb-init", "docker-init", "catatonit", "containerd-shim"}  # who adopts orphans


def rank() -> int:
    """This process's number among all."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number among those of its node."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def node_count() -> int:
    """On how many nodes they run."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


def is_worker() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(
    arguments: list[str], processes: int, *, stall_minutes: float, nodes: Nodes = ONE_NODE, name: str = "predict"
) -> None:
    """Runs `python -m ARGUMENTS` in several processes of this node.

    Raises:
        FinespunError: they failed; it has their exit code, and they have said why.
        MachineError: one of them was silent for `stall_minutes`, and all are ended; or nodes did not meet for so long.
    """
    code = torchrun(arguments, processes, stall_minutes=stall_minutes, nodes=nodes, name=name)
    if code:
        failed = FinespunError(f"{processes} processes ended with exit code {code}; the reason stands above")
        failed.exit_code = code
        raise failed


def torchrun(
    arguments: list[str], processes: int, *, stall_minutes: float, nodes: Nodes = ONE_NODE, name: str = "predict"
) -> int:
    """Runs `python -m ARGUMENTS` in several processes of this node and returns the exit code of the first that failed.

    Of several nodes, one that is lost is waited for, or done without (`nodes.count`): all processes begin again.

    Raises:
        MachineError: one of them was silent for `stall_minutes`, and all are ended; or nodes did not meet for so long.
    """
    lost, alone_since = 0, time.monotonic()
    while True:
        waited = time.monotonic() - alone_since
        code = _attempt(arguments, processes, nodes.arguments(name, patience=60 * stall_minutes - waited), stall_minutes)
        if nodes.most == 1 or code not in {LOST, UNMET}:
            return MachineError.exit_code if code in {LOST, UNMET} else code
        if code == LOST:
            lost, alone_since = lost + 1, time.monotonic()
            if lost > RESTARTS:
                return MachineError.exit_code
            print(f"{name}: a node is lost; waiting for {nodes.count} at {nodes.rendezvous}", flush=True)  # noqa: T201
        elif time.monotonic() - alone_since > 60 * stall_minutes:
            raise MachineError(
                f"{nodes.count} nodes (runtime.nodes) did not meet at {nodes.rendezvous} (runtime.rendezvous) within"
                f" {stall_minutes:g} minutes (runtime.stall_minutes); start the same command on each of them, and see that"
                " they can reach that place"
            )
        time.sleep(MEET_AGAIN_SECONDS)


def _attempt(arguments: list[str], processes: int, meeting: list[str], stall_minutes: float) -> int:
    """Runs this node's processes once; the code is UNMET if they never began, LOST if they missed those of another node."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        starting = [sys.executable, "-m", AGENT, *meeting, f"--nproc-per-node={processes}", "-m"]
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, LAUNCH_FOLDER: place}
        watch = Watch(folder, stall_minutes=stall_minutes)
        heard, code = _run_and_watch([*starting, *arguments], environment, watch)
        said = _said_in(folder)
        if said is not None and not (heard and said == LOST):
            return said
        if heard:
            return 128 + heard
        if code == 1:
            return MachineError.exit_code if watch.heard else UNMET  # no process could say anything
        return code


def _said_in(folder: Path) -> int | None:
    """Returns the exit code that processes have said: rank zero's or, where it only missed others, the first real one."""
    said = {int(each.suffix[1:]): each for each in folder.glob(f"{EXIT_FILE}.*") if each.suffix[1:].isdigit()}
    in_order = sorted(said, key=lambda number: (number != min(said), said[number].stat().st_mtime))
    codes = [int(said[number].read_text(encoding="utf-8") or 1) for number in in_order]
    real = [code for code in codes if code not in {0, LOST}]
    return next(iter(real or ([LOST] if LOST in codes else codes)), None)


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
    folder = _launch_folder()
    if folder is None:
        yield lambda _code: None
        return
    pulse = Pulse(folder, rank())
    pulse.start()

    try:
        yield partial(_report, folder)
    finally:
        pulse.stop()


def exit_code(known: FinespunError | None) -> int:
    """Returns that of a failure (None: one that nothing explains), or among workers the one that says that it is another's."""
    if known is None:
        return FinespunError.exit_code
    return LOST if isinstance(known, LostPeerError) and is_worker() else known.exit_code


def first_fails_too(code: int) -> bool:
    """Says with which exit code this process fails; returns whether this node's first process fails of itself, too.

    That one says why for all, and is given some seconds to do so: torchrun ends all as soon as one has ended.
    """
    folder = _launch_folder()
    if folder is None:
        return False
    _report(folder, code)
    first = _exit_file(folder, rank() - local_rank())
    until = time.monotonic() + SPEAKS_FIRST_SECONDS
    while not first.exists() and time.monotonic() < until:
        time.sleep(0.05)
    if code == LOST:
        time.sleep(REASON_SECONDS)  # whoever was the reason says it meanwhile
    return local_rank() > 0 and first.exists() and first.read_text(encoding="utf-8") not in {"0", str(LOST)}


def _report(folder: Path, code: int) -> None:
    partial_file = folder / f".exit.{rank()}"
    partial_file.write_text(str(code), encoding="utf-8")
    partial_file.replace(_exit_file(folder, rank()))


def _launch_folder() -> Path | None:
    """Returns where processes that `torchrun` has started say how they are."""
    folder = os.environ.get(LAUNCH_FOLDER)
    return Path(folder) if is_worker() and folder is not None else None


def _exit_file(folder: Path, number: int) -> Path:
    return folder / f"{EXIT_FILE}.{number}"
