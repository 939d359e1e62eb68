"""Whether the processes of a run get on: each says so in a file, and the launcher ends all when one falls silent."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finespun.errors import MachineError

SECONDS = 1.0  # between two beats
_done = 0  # of what this process has done in training, evaluating or predicting
_working = False


def progressed() -> None:
    """Counts a step, or a part of one."""
    global _done, _working  # (a process trains one model at a time)
    _done, _working = _done + 1, True


def at_rest() -> None:
    """What follows takes as long as it takes: nobody waits for this process."""
    global _working  # noqa: PLW0603
    _working = False


class Pulse(threading.Thread):
    """Writes this process's id, a count of beats and what it has done into `FOLDER/rank-N`, every second (0 while it rests)."""

    def __init__(self, folder: Path, rank: int) -> None:
        super().__init__(daemon=True)
        self.path, self.beats, self.ended = folder / f"rank-{rank}", 0, threading.Event()

    def run(self) -> None:
        """Beats until the process ends."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")  # no name that a watch looks for
        while not self.ended.is_set():
            self.beats += 1
            with suppress(OSError):  # a full disk is not this thread's affair
                partial.write_text(f"{os.getpid()} {self.beats} {_done if _working else 0}", encoding="utf-8")
                partial.replace(self.path)
            self.ended.wait(SECONDS)

    def stop(self) -> None:
        """The process ends, as it should."""
        self.ended.set()
        self.join()
        self.path.unlink(missing_ok=True)


@dataclass
class _Heard:
    """What was last heard from a process, and for how long nothing new."""

    process: int
    beats: int
    done: int
    silent: float = 0.0  # seconds without a beat
    idle: float = 0.0  # seconds without progress


class Watch:
    """The launcher's side: hears all processes of a run."""

    def __init__(self, folder: Path, *, stall_minutes: float) -> None:
        self.folder, self.limit, self.minutes = folder, 60 * stall_minutes, stall_minutes
        self.heard: dict[int, _Heard] = {}
        self.at = time.monotonic()

    def require_progress(self) -> None:
        """To be called every second or so; the time in which the launcher itself stood still does not count.

        Raises:
            MachineError: a process is silent for too long; all are ended.
        """
        now = time.monotonic()
        passed, self.at = min(now - self.at, 3 * SECONDS), now
        for number, found in self._read().items():
            before = self.heard.get(number)
            if before and before.process == found.process:
                found.silent = before.silent + passed if found.beats == before.beats else 0.0
                found.idle = before.idle + passed if found.done == before.done else 0.0
            self.heard[number] = found
        silent = self._silent()
        if silent:
            self.send(signal.SIGKILL)
            raise MachineError(
                f"{silent} for {self.minutes:g} minutes (runtime.stall_minutes), so all {len(self.heard)} processes were ended;"
                " start again, and training goes on from its last checkpoint; raise runtime.stall_minutes if a step may take so"
                " long"
            )

    def send(self, number: int) -> bool:
        """Sends a signal to all processes of the run; returns whether there were any."""
        found = self._read()
        for each in found.values():
            with suppress(ProcessLookupError):
                os.kill(each.process, number)
        return bool(found)

    def _read(self) -> dict[int, _Heard]:
        found = {}
        for path in sorted(self.folder.glob("rank-*")):
            with suppress(OSError, ValueError):
                found[int(path.name.removeprefix("rank-"))] = _Heard(*map(int, path.read_text(encoding="utf-8").split()))
        return found

    def _silent(self) -> str | None:
        """Returns who is silent: who beats no more, or, where nobody gets on, whoever has done the least."""
        there = {number: self.heard[number] for number in self._read() if number in self.heard}
        stopped = [number for number, each in there.items() if each.silent >= self.limit]
        if stopped:
            return f"{_named(stopped, there)} is stopped or hangs: nothing was heard"
        at_work = {number: each for number, each in there.items() if each.done}
        if not at_work or any(each.idle < self.limit for each in at_work.values()):
            return None
        least = min(each.done for each in at_work.values())
        behind = [number for number, each in at_work.items() if each.done == least]
        if len(behind) == len(at_work) > 1:
            return f"no process gets on: {_named(behind, there)} wait for each other"
        return f"{_named(behind, there)} hangs: it does not get on, and the others wait for it,"


def _named(numbers: list[int], heard: dict[int, _Heard]) -> str:
    return " and ".join(f"rank {number} (process {heard[number].process})" for number in numbers)
