"""Where trials run: in forks of a warm process on this machine, or wherever a published launcher of Hydra's takes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from finespun.cores import cores
from finespun.sweeps.processes import worker
from finespun.sweeps.processes.trials import Ended

WARM = "finespun.sweeps.processes.warm"
MODEL = "FINESPUN_WARM_MODEL"  # the model_type of transformers that it imports too
TRAINING = ("prepare", "finetune")


class Workers(Protocol):
    """Runs trials; their folders say what is to be done and what came of it."""

    parallel: int

    def start(self, number: int, folder: Path, overrides: Sequence[str], stages: tuple[str, ...] = TRAINING) -> None:
        """Begins a trial."""

    def wait(self, seconds: float) -> list[Ended]:
        """Returns the trials that have ended, waiting so long for one."""

    def stop(self, number: int) -> list[Ended]:
        """Sends a signal to all that run and returns them when they have ended."""


class LocalWorkers:
    """Processes of this machine, each with its share of the threads, or with GPUs of its own.

    On Linux they are forked from a process that has imported everything and has run nothing (`finespun.sweeps.processes.warm`).
    """

    def __init__(self, project: Path, *, parallel: int, gpus: Sequence[str], gpus_a_trial: int, environment: Mapping[str, str]):
        self.project, self.parallel, self.environment = project, parallel, environment
        self.free = [list(gpus[n : n + gpus_a_trial]) for n in range(0, len(gpus) - gpus_a_trial + 1, gpus_a_trial)]
        self.held: dict[int, list[str]] = {}
        self.running: dict[int, BaseProcess] = {}
        os.environ[MODEL] = environment.get(MODEL, "")
        self.context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            self.context.set_forkserver_preload([WARM])
        threads = min(cores(), int(os.environ.get("OMP_NUM_THREADS") or cores()))
        self.threads = max(1, threads // parallel) if parallel > 1 else None

    def start(self, number: int, folder: Path, overrides: Sequence[str], stages: tuple[str, ...] = TRAINING) -> None:  # noqa: ARG002
        """Begins a trial."""
        environment = dict(self.environment)
        if self.threads:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(self.threads))
        if self.free:
            self.held[number] = self.free.pop(0)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.held[number])
        process = self.context.Process(
            target=worker.run, args=(stages, self.project, folder, environment, self.threads), name=f"trial-{number}"
        )
        process.start()
        self.running[number] = process

    def wait(self, seconds: float) -> list[Ended]:
        """Returns the trials that have ended, waiting so long for one."""
        wait([process.sentinel for process in self.running.values()], timeout=seconds)
        return [self._end(number) for number, process in list(self.running.items()) if not process.is_alive()]

    def _end(self, number: int) -> Ended:
        process = self.running.pop(number)
        process.join()
        if number in self.held:
            self.free.append(self.held.pop(number))
        assert process.exitcode is not None
        return Ended(number, process.exitcode)

    def stop(self, number: int) -> list[Ended]:
        """Sends a signal to all that run and returns them when they have ended."""
        for process in self.running.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)
        ended = []
        while self.running:
            ended += self.wait(1.0)
        return ended


class PublishedWorkers:
    """A launcher of Hydra's, which is given trials by the batch and returns when all of it has ended."""

    def __init__(self, launcher: Any, *, parallel: int, give: Callable[[int, Path, Sequence[str]], list[str]]) -> None:
        """`give` returns the overrides with which Hydra runs a trial in its folder."""
        self.launcher, self.parallel, self.give = launcher, parallel, give
        self.begun: list[tuple[int, list[str]]] = []

    def start(self, number: int, folder: Path, overrides: Sequence[str], stages: tuple[str, ...] = TRAINING) -> None:
        """Begins a trial; a finalist is measured on this machine."""
        if stages == TRAINING:
            self.begun.append((number, self.give(number, folder, overrides)))
            return
        command = [sys.executable, "-m", "finespun.stages", *stages, "--out", str(folder)]
        subprocess.run(command, check=False, stdout=sys.stderr)

    def wait(self, seconds: float) -> list[Ended]:  # noqa: ARG002  (a launcher takes its time)
        """Runs what was begun and returns it."""
        batch, self.begun = self.begun, []
        if not batch:
            return []
        found = self.launcher.launch([overrides for _, overrides in batch], initial_job_idx=batch[0][0])
        ended = []
        for (number, _), job in zip(batch, found, strict=True):
            returned = job._return_value  # noqa: SLF001  (the public property raises what the job did)
            ended.append(Ended(number, returned if isinstance(returned, int) else 1))
        return ended

    def stop(self, number: int) -> list[Ended]:  # noqa: ARG002  (Hydra's launchers stop theirs)
        """There is nothing that runs between two batches."""
        time.sleep(0)
        return []


def gpus_here(accelerator: str) -> list[str]:
    """Returns the names of GPUs that trials may have; none where they run on the CPU. Opens no GPU."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if accelerator == "cpu" or given == "":
        return []
    if given:
        return given.split(",")
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU")]


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
