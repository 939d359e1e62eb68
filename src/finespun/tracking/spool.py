"""Metrics on their way to MLflow: written to disk first, sent by a thread, kept when the server does not answer."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import IO

Point = tuple[str, float, int, int]  # name, value, step, milliseconds since 1970
Send = Callable[[str, list[Point]], None]  # run id, points; raises errors of `retry_on` when it cannot
BATCH = 1000  # MLflow's limit for one request
PAUSE_SECONDS = 1.0
_numbers = count()


class Spool:
    """One process's metrics of one run, in a file that it alone holds. `log` never waits for a server, nor fails with it."""

    def __init__(self, folder: Path, run_id: str, send: Send, retry_on: tuple[type[Exception], ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{run_id}.{os.getpid()}-{next(_numbers)}.jsonl"
        self.run_id, self.send, self.retry_on = run_id, send, retry_on
        self.unsent: list[Point] = []
        self.arrivals: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self.closing = threading.Event()
        self.file = self.path.open("a")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.thread = threading.Thread(target=self._work, name="metrics", daemon=True)
        self.thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keeps the metrics of one step."""
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            point = (name, float(value), step, now)
            self.file.write(json.dumps(point) + "\n")
            self.arrivals.put(point)
        self.file.flush()

    def close(self, timeout_seconds: float, status: str) -> int:
        """Sends what is left, for at most so long; returns how many metrics stay on disk, with the run's last status."""
        self.closing.set()
        self.thread.join(timeout_seconds)
        left = len(self.unsent) + self.arrivals.qsize() + self.thread.is_alive()
        if left:
            self.file.write(json.dumps(status) + "\n")
        else:
            self.path.unlink(missing_ok=True)
        self.file.close()
        return left

    def _work(self) -> None:
        while True:
            last_round = self.closing.wait(PAUSE_SECONDS)
            while not self.arrivals.empty():
                self.unsent.append(self.arrivals.get())
            self._send()
            if last_round:
                return

    def _send(self) -> None:
        while self.unsent:
            try:
                self.send(self.run_id, self.unsent[:BATCH])
            except self.retry_on:
                return  # the next round tries again; the file keeps them
            self.unsent = self.unsent[BATCH:]


def send_leftovers(folder: Path, send: Send, finish: Callable[[str, str], None], retry_on: tuple[type[Exception], ...]) -> None:
    """Sends what processes that have ended could not, and ends their runs with the status that they had.

    Args:
        folder: where the files wait.
        send: as a Spool's.
        finish: is given run id and status, where the process lived to say one.
        retry_on: with one of these errors a file waits on.
    """
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # a living process writes it
            run_id = path.name.partition(".")[0]
            points, status = _read(file)
            try:
                for start in range(0, len(points), BATCH):
                    send(run_id, points[start : start + BATCH])
                if status:
                    finish(run_id, status)
            except retry_on:
                continue
            path.unlink()


def _read(file: IO[str]) -> tuple[list[Point], str | None]:
    points: list[Point] = []
    status = None
    for line in file:
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue  # a kill cut the last line short
        if isinstance(value, str):
            status = value
        else:
            name, number, step, moment = value
            points.append((str(name), float(number), int(step), int(moment)))
    return points, status
