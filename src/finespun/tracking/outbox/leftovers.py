"""What processes that have ended still owe MLflow: delivered by the next command, or by `finespun sync`."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finespun.masking import first_line
from finespun.tracking.outbox.delivery import FAILURES, Delivery, UnknownRunError
from finespun.tracking.outbox.journal import Journal, journals, last_status
from finespun.tracking.outbox.outbox import address_mark

Connect = Callable[[str, Path], Delivery]
LOST = "lost"  # folder for runs that the store no longer knows: the next stage of their model adopts them
STARTING = ".starting"
KEPT_SECONDS = 30 * 24 * 3600  # journals of runs that were killed and never resumed


def deliver(outbox: Path, uri: str, connect: Connect, *, but: str = "") -> dict[str, str]:
    """Delivers what is left of runs of this store whose processes have ended, and ends those that say RUNNING as KILLED.

    Returns what is left, with the reason, by run.

    Args:
        outbox: the folder of all journals.
        uri: of the store; what is for others is left alone.
        connect: is given a run and the file for what is refused.
        but: a run that this process goes on with.
    """
    left: dict[str, str] = {}
    for folder in sorted(path for path in outbox.glob("*") if path.is_dir() and path.name not in {but, LOST}):
        found = journals(folder)
        if any(journal.is_alive() for journal in found) or not _owes(folder, found):
            continue
        if _store_of(folder).get("store") != address_mark(uri):
            left[folder.name] = f"belongs to another store ({_store_of(folder).get('uri', 'unknown')})"
            continue
        try:
            _deliver_run(folder, found, connect)
        except UnknownRunError:
            print(f"warning: MLflow does not know the run {folder.name} any more; the next stage of its model starts another")  # noqa: T201
            shutil.rmtree(outbox / LOST / folder.name, ignore_errors=True)
            (outbox / LOST).mkdir(exist_ok=True)
            folder.rename(outbox / LOST / folder.name)
        except FAILURES as error:
            left[folder.name] = first_line(error)
            break  # the others would wait for the same store
    return left


def _owes(folder: Path, found: list[Journal]) -> bool:
    """Whether a run has something to be delivered, or to be ended; what is long past is removed."""
    if any(True for journal in found for _ in journal.undelivered()) or _is_orphan(folder, found):
        return True
    if last_status(found) in {"FINISHED", None} or time.time() - folder.stat().st_mtime > KEPT_SECONDS:
        shutil.rmtree(folder, ignore_errors=True)
    return False


def _is_orphan(folder: Path, found: list[Journal]) -> bool:
    return last_status(found) == "RUNNING" and not (folder / "ended").exists()


def _deliver_run(folder: Path, found: list[Journal], connect: Connect) -> None:
    delivery = connect(folder.name, folder.parent / "refused.jsonl")
    for journal in found:
        delivery.deliver(journal)
    if _is_orphan(folder, found):  # its process was killed, and nobody has gone on with it yet
        delivery.client.set_terminated(delivery.run_id, "KILLED")
        (folder / "ended").touch()
    elif last_status(found) == "FINISHED":
        shutil.rmtree(folder, ignore_errors=True)


def _store_of(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / "store").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


@contextmanager
def creating(outbox: Path, key: str, uri: str) -> Iterator[None]:
    """Leaves a note while a run is created: a kill in between would leave it RUNNING for ever."""
    outbox.mkdir(parents=True, exist_ok=True)
    note = outbox / f"{key}{STARTING}"
    partial = outbox / f".{key}.{os.getpid()}"  # others read notes at any moment: each is whole, or not there
    partial.write_text(json.dumps({"pid": os.getpid(), "store": address_mark(uri)}), encoding="utf-8")
    partial.replace(note)
    yield
    note.unlink(missing_ok=True)


def end_lost_starts(outbox: Path, uri: str, end: Callable[[str], None]) -> None:
    """Ends runs whose process was killed while it created them, unless it has been started again and goes on with them."""
    for note in sorted(outbox.glob(f"*{STARTING}")):
        said: dict[str, Any] = {}
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            os.kill(said["pid"], 0)
        except (ProcessLookupError, ValueError, KeyError):
            pass
        except OSError:
            continue
        else:
            continue  # alive
        if said.get("store") == address_mark(uri):
            end(note.stem)
        note.unlink(missing_ok=True)


def adopt(outbox: Path, old: str, new: Path) -> bool:
    """Moves the journals of a run that the store no longer knows to another run, to be delivered from their beginning."""
    folder = outbox / LOST / old
    if not folder.is_dir():
        folder = outbox / old
    if not folder.is_dir() or any(journal.is_alive() for journal in journals(folder)):
        return False
    for journal in journals(folder):
        journal.path.replace(new / journal.path.name)
    if (folder / "files").is_dir():
        (folder / "files").replace(new / "files")
    shutil.rmtree(folder, ignore_errors=True)
    return True
