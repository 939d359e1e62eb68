"""Checks of the machine and of finespun's own files: versions, configuration, folders, disk, checkpoints, MLflow."""

from __future__ import annotations

import fcntl
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.config.sections import RunConfig
from finespun.doctor.finding import Finding, well
from finespun.errors import ConfigError
from finespun.tracking.outbox.journal import journals

OLD_SECONDS = 30 * 24 * 3600
SPARE_BYTES = 100_000_000
COPIES = 8  # of the weights that a run writes: two checkpoints with moments, the best, the model, MLflow's and DVC's
MADE_BY_A_PROCESS = re.compile(r"\.(\d+)$")  # folders that are filled and then moved, with who fills them


def check_versions() -> Iterator[Finding]:
    """Compares what is installed with what finespun asks for."""
    wrong = []
    for text in requires("finespun") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(needed.name)
        except PackageNotFoundError:
            there = "none"
        if there == "none" or not needed.specifier.contains(there, prereleases=True):
            wrong.append(f"{needed.name} {there} (needed: {needed.specifier or 'any'})")
    if wrong:
        remedy = "install them anew: `make setup`, or `pip install --upgrade finespun`"
        yield Finding(check="versions", state="wrong", found=", ".join(wrong), remedy=remedy)
    else:
        yield well("versions", f"finespun {version('finespun')}, Python {sys.version.split()[0]}, packages as needed")


def check_configuration(artifacts: Artifacts) -> tuple[Finding, RunConfig | None]:
    """Composes it, as `configure` does; returns it too, where it has no problems."""
    try:
        config, _ = compose(artifacts)
    except ConfigError as error:
        found, remedy = "\n".join(error.problems), "correct each; `dvc repro configure` checks them again"
        return Finding(check="configuration", state="wrong", found=found, remedy=remedy), None
    return well("configuration", "params.yaml and conf/ fit together"), config


def check_folders(artifacts: Artifacts) -> Iterator[Finding]:
    """Writes a file into each folder that a stage or DVC writes into."""
    failed = 0
    for folder in artifacts.written:
        reason = _why_not_writable(folder)
        if reason:
            failed += 1
            yield Finding(check="folders", state="wrong", found=f"{folder}: {reason}", remedy=_how_writable(folder))
    if not failed:
        yield well("folders", "all that are written to can be")


def _why_not_writable(folder: Path) -> str:
    if folder.is_symlink() and not folder.exists():
        return f"is a link to {folder.readlink()}, which is not there"
    if folder.is_file():
        return "is a file, and a folder is needed"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except (FileNotFoundError, NotADirectoryError):  # not made yet; or below a file, which is named itself
        return ""
    except OSError as error:
        return f"cannot be written to ({error.strerror})"


def _how_writable(folder: Path) -> str:
    if folder.is_symlink() and not folder.exists():
        return f"make it: `mkdir -p {folder.parent / folder.readlink()}`, or remove the link"
    if folder.is_file():
        return f"move the file away: `mv {folder} {folder}.old`"
    return f"`chmod u+rwx {folder}`, or use a disk that is not read-only"


def check_disk(artifacts: Artifacts) -> Iterator[Finding]:
    """Compares what is free with what a training run of the present model writes."""
    weights = sum(path.stat().st_size for path in artifacts.finetuned.glob("*.safetensors"))
    needed = COPIES * weights + SPARE_BYTES
    for name, place in (("disk", artifacts.home), ("disk, temporary files", Path(tempfile.gettempdir()))):
        free, wanted = shutil.disk_usage(place).free, needed if place == artifacts.home else SPARE_BYTES
        if free < wanted:
            found = f"{free / 1e6:,.0f} MB are free in {place}; a run needs about {wanted / 1e6:,.0f} MB"
            remedy = "free space: `dvc gc --workspace` removes results that no stage has any more"
            yield Finding(check=name, state="wrong", found=found, remedy=remedy)
        else:
            yield well(name, f"{free / 1e9:,.1f} GB are free in {place}")


def check_checkpoints(artifacts: Artifacts) -> Iterator[Finding]:
    """Looks for runs that are under way, stopped, or waiting to be resumed."""
    waiting, old = [], []
    for folder in sorted(path for path in (artifacts.state / "checkpoints").glob("*") if path.is_dir()):
        holder = _holder(folder / "lock")
        if holder is not None:
            yield _at_work(holder)
        elif time.time() - _last_change(folder) > OLD_SECONDS:
            old.append(folder)
        else:
            waiting.append(folder)
    if waiting:
        found = f"{_count(waiting)} ended before the end ({_size(waiting)}); the same command takes it up again"
        yield Finding(check="checkpoints", state="note", found=found)
    if old:
        found = f"{_count(old)} ended before the end more than 30 days ago ({_size(old)})"
        remedy = f"remove what is not wanted any more: `rm -r {artifacts.state / 'checkpoints'}`"
        yield Finding(check="checkpoints", state="note", found=found, remedy=remedy, fix=partial(_remove, old))


def _at_work(pid: str) -> Finding:
    """A process that was stopped (Ctrl-Z) holds its lock, and others are turned away."""
    if pid.isdigit() and psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() == psutil.STATUS_STOPPED:
        found = f"process {pid} holds its lock, but is stopped: the same configuration cannot be trained"
        return Finding(check="checkpoints", state="wrong", found=found, remedy=f"let it go on: `kill -CONT {pid}`, or end it")
    return well("checkpoints", f"process {pid} is training")


def check_leftovers(artifacts: Artifacts) -> Iterator[Finding]:
    """Looks for folders that a process was filling when it was killed."""
    left = [path for path in artifacts.state.glob("*/*") if path.is_dir() and _was_left(path)]
    if left:
        found = f"{len(left)} folders are half filled by processes that have ended ({_size(left)})"
        remedy = f"remove them: `rm -r {' '.join(str(path) for path in left[:3])}{' ...' if left[3:] else ''}`"
        yield Finding(check="leftovers", state="note", found=found, remedy=remedy, fix=partial(_remove, left))


def _was_left(folder: Path) -> bool:
    found = MADE_BY_A_PROCESS.search(folder.name)
    return found is not None and not psutil.pid_exists(int(found[1]))


def check_mlflow(artifacts: Artifacts) -> Iterator[Finding]:
    """Looks into the embedded database, and for what was not delivered to MLflow."""
    waiting = [
        path
        for path in (artifacts.state / "outbox").glob("*")
        if any(True for each in journals(path) for _ in each.undelivered())
    ]
    if waiting:
        found = f"{len(waiting)} run{'s have' if len(waiting) > 1 else ' has'} results that MLflow has not received"
        yield Finding(check="outbox", state="note", found=found, remedy="send it: `finespun sync`")
    database = artifacts.mlruns / "mlflow.db"
    if not database.is_file():
        return
    aside = f"put a copy in its place, or `mv {artifacts.mlruns} {artifacts.mlruns}.old`: a new one takes the runs from then on"
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield Finding(check="mlruns", state="wrong", found=f"{database}: is damaged ({said})", remedy=aside)
        return
    yield well("mlruns", "the database is whole")


def _holder(lock: Path) -> str | None:
    """Returns the number of the process that holds a lock; None where nobody does."""
    if not lock.is_file():
        return None
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip()
    return None


def _last_change(folder: Path) -> float:
    return max((path.stat().st_mtime for path in [folder, *folder.iterdir()]), default=0.0)


def _remove(folders: list[Path]) -> str:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return f"{len(folders)} removed"


def _count(folders: list[Path]) -> str:
    return "1 run" if len(folders) == 1 else f"{len(folders)} runs"


def _size(folders: list[Path]) -> str:
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:,.1f} MB"
