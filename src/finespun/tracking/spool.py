"""Metrics on their way to MLflow: written to disk first, sent by a thread, kept when the server does not answer."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Point = tuple[str, float, int, int]  # name, value, step, milliseconds since 1970
Send = Callable[[str, list[Point]], None]  # run id, points; raises OSError-like errors of `retry_on`
BATCH = 1000  # MLflow's limit for one request
PAUSE_SECONDS = 1.0


class Spool:
    """One run's metrics. `log` never waits for a server and never fails because of one."""

    def __init__(self, folder: Path, run_id: str, send: Send, retry_on: tuple[type[Exception], ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.run_id, self.send, self.retry_on = folder / f"{run_id}.jsonl", run_id, send, retry_on
        self.unsent: list[Point] = _read(self.path)
        self.arrivals: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self.closing = threading.Event()
        self.file = self.path.open("a")
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

    def close(self, timeout_seconds: float) -> int:
        """Sends what is left, for at most so long; returns how many metrics stay on disk."""
        self.closing.set()
        self.thread.join(timeout_seconds)
        self.file.close()
        left = len(self.unsent) + self.arrivals.qsize()
        if not left and not self.thread.is_alive():
            self.path.unlink(missing_ok=True)
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


def _read(path: Path) -> list[Point]:
    if not path.exists():
        return []
    points = []
    for line in path.read_text().splitlines():
        if line.endswith("]"):  # a kill may have cut the last line short
            name, value, step, moment = json.loads(line)
            points.append((str(name), float(value), int(step), int(moment)))
    return points


def leftovers(folder: Path) -> list[str]:
    """Returns the ids of runs whose metrics wait on disk."""
    return [path.stem for path in folder.glob("*.jsonl")]
