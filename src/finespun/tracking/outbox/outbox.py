"""The outbox: everything for MLflow goes through a journal on disk and a thread, so that no run waits for a server."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finespun.masking import masked
from finespun.tracking.outbox.delivery import FAILURES, Delivery, UnknownRunError
from finespun.tracking.outbox.journal import Journal, fingerprint, journals, keep_copy, last_status, recorded_points

PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 20.0  # after the work: how long a store that does not answer is waited for
QUIET_SECONDS = 3.0  # of waiting, before a word is said of it


def folder_of(outbox: Path, run: str) -> Path:
    """Where the journals of a run lie."""
    return outbox / run


def address_mark(uri: str) -> str:
    """Returns what tells one store from another, without its address, which may hold a password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


class Outbox:
    """One process's outbox for one run. `add` never waits for a store, nor fails with it."""

    def __init__(
        self, outbox: Path, run: str, *, uri: str, connect: Callable[[Path], Delivery], quiet_seconds: float = 0.0
    ) -> None:  # fmt: skip
        """`run` names the journals; `connect` is given the file for what is refused and returns the way to the store's run.

        Work that ends within `quiet_seconds` sends nothing: another process delivers its journal.
        """
        self.quiet_until = time.monotonic() + quiet_seconds
        self.folder = folder_of(outbox, run)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "store").write_text(json.dumps({"store": address_mark(uri), "uri": masked(uri)}), encoding="utf-8")
        self.connect = connect
        self.recorded = recorded_points(journals(self.folder))
        self.journal = Journal.begin(self.folder)
        self.added, self.closing, self.idle = threading.Event(), threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.delivery: Delivery | None = None
        self.thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self.thread.start()

    def add(self, kind: str, content: Any) -> None:
        """Adds what is to be delivered."""
        self.journal.add(kind, content)
        if kind != "metrics":  # those may wait for others
            self.added.set()

    def wait(self) -> Exception | None:
        """Waits until all is delivered, or until the store is found not to answer, and then no longer than patience lasts.

        Returns what the store said last, if something is left.
        """
        self.closing.set()
        self.added.set()
        began = time.monotonic()
        said = False
        while self.thread.is_alive():
            self.thread.join(0.05)
            waited = time.monotonic() - began
            if waited > QUIET_SECONDS and not said:
                print("MLflow: sending what is left ...", flush=True)  # noqa: T201
                said = True
            if self.failure is not None and waited > PATIENCE_SECONDS:
                break
        return self.failure if self._owes() or self.thread.is_alive() else None

    def _owes(self) -> bool:
        return any(True for journal in journals(self.folder) for _ in journal.undelivered())

    def close(self) -> None:
        """Lets go; the journals stay until the run is finished and owes nothing: one that is resumed looks into them."""
        self.journal.close()
        if not self._owes() and last_status(journals(self.folder)) == "FINISHED" and not self.thread.is_alive():
            shutil.rmtree(self.folder, ignore_errors=True)

    def keep_files(self) -> None:
        """Keeps copies of files that still wait to be sent, for the next stage may write others in their place."""
        left = list(self.journal.undelivered())
        if not any(entry.kind in {"folder", "model"} for entry in left):
            return
        kept = Journal.begin(self.folder)
        for kind, content, _ in left:
            if kind in {"folder", "model"} and fingerprint(Path(content["folder"])) == content["fingerprint"]:
                content = {**content, "folder": str(keep_copy(Path(content["folder"]), self.folder))}  # noqa: PLW2901
            kept.add(kind, content)
        self.journal.deliver_to(left[-1].end)
        self.journal.close()
        self.journal = kept

    @property
    def is_quiet(self) -> bool:
        """Whether it is left to another process to send all this."""
        return self.delivery is None and time.monotonic() < self.quiet_until

    def _work(self) -> None:
        if self.is_quiet and self.closing.wait(self.quiet_until - time.monotonic()):
            return
        while True:
            self.added.wait(PAUSE_SECONDS)
            self.added.clear()
            last_round = self.closing.is_set()
            try:
                self._deliver()
                self.failure = None
            except (*FAILURES, UnknownRunError) as error:
                self.failure = error
            if last_round:
                return

    def _deliver(self) -> None:
        if not self._owes():
            return
        self.delivery = self.delivery or self.connect(self.folder.parent / "refused.jsonl")
        for journal in journals(self.folder):
            if journal.path == self.journal.path or not journal.is_alive():
                self.delivery.deliver(journal)
