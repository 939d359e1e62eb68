"""What one run sends to MLflow, in order: on disk before it is sent, until it is delivered.

`.finespun/outbox/RUN/` has a journal (`*.jsonl`, an entry a line) for each process that added to the run, and beside it how
much of it is delivered. A living process holds its journal's lock. Sending an entry twice changes nothing, so a kill at any
moment costs at most a repetition.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any, NamedTuple

from finespun.files import copy_or_link

Point = tuple[str, float, int, int]  # name, value, step, milliseconds since 1970
_numbers = count()


class Entry(NamedTuple):
    """One thing to be delivered: what kind it is, its content, and where it ends in its journal."""

    kind: str
    content: Any
    end: int


class Journal:
    """One process's entries of one run, in the order in which they are to be delivered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark = path.with_suffix(".sent")
        self.file: IO[bytes] | None = None

    @classmethod
    def begin(cls, folder: Path) -> Journal:
        """Begins one, and holds its lock for as long as this process lives."""
        folder.mkdir(parents=True, exist_ok=True)
        journal = cls(folder / f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}.jsonl")
        journal.file = journal.path.open("ab")
        fcntl.flock(journal.file, fcntl.LOCK_EX)
        return journal

    def add(self, kind: str, content: Any) -> None:
        """Adds an entry; a kill after this costs nothing."""
        assert self.file is not None, "only the process that began a journal adds to it"
        self.file.write(json.dumps([kind, content]).encode() + b"\n")
        self.file.flush()

    def undelivered(self) -> Iterator[Entry]:
        """Yields what is not delivered yet."""
        return self.entries(self.delivered)

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Yields all entries from a place on; a last line that a kill cut short is none."""
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                try:
                    kind, content = json.loads(line)
                except ValueError:
                    continue
                yield Entry(kind, content, start)

    @property
    def delivered(self) -> int:
        """How many bytes are delivered."""
        try:
            return int(self.mark.read_text(encoding="utf-8") or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def deliver_to(self, end: int) -> None:
        """Everything before `end` is delivered."""
        self.mark.write_text(str(end), encoding="utf-8")

    def is_alive(self) -> bool:
        """Whether another process may still add to it."""
        with self.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Lets go of the lock."""
        if self.file is not None:
            self.file.close()


def last_status(found: list[Journal]) -> str | None:
    """Returns what journals said last of the run's status."""
    said = [entry.content for journal in found for entry in journal.entries() if entry.kind == "status"]
    return said[-1] if said else None


def recorded_points(found: list[Journal]) -> dict[str, set[int]]:
    """Returns the steps of each metric that unfinished work has recorded: a run that is resumed trains some of them again."""
    steps: dict[str, set[int]] = {}
    for journal in (each for each in found if last_status([each]) != "FINISHED"):
        for entry in journal.entries():
            for name, _, step, _ in entry.content if entry.kind == "metrics" else ():
                steps.setdefault(name, set()).add(step)
    return steps


def journals(folder: Path) -> list[Journal]:
    """Returns a run's journals, the oldest first."""
    return [Journal(path) for path in sorted(folder.glob("*.jsonl"))]


def keep_copy(source: Path, folder: Path) -> Path:
    """Keeps a folder as it is now, large files by hard links where that can be, for an entry that waits."""
    target = folder / "files" / f"{time.time_ns():020d}" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, copy_function=copy_or_link)
    return target


def fingerprint(folder: Path) -> str:
    """Returns what tells a folder's files from others that were written in their place; copies have the same."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()[:32]
