"""Checks of DVC's files: its locks, and `dvc.lock`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from finespun.artifacts import Artifacts
from finespun.doctor.finding import Finding, put_aside, well
from finespun.errors import MachineError
from finespun.files import CONFLICT, read_yaml


def check_dvc(artifacts: Artifacts) -> Iterator[Finding]:
    """Yields what is found of DVC's files."""
    if not artifacts.dvc.is_dir():
        remedy = "run `dvc init` in the project (`dvc init --no-scm` where there is no Git)"
        yield Finding(check=".dvc", state="wrong", found="DVC is not initialised here", remedy=remedy)
        return
    settings = artifacts.dvc / "config"
    if in_conflict(settings):
        remedy = "resolve them, or take the committed file: `git checkout HEAD -- .dvc/config`"
        yield Finding(check=".dvc/config", state="wrong", found="Git's conflict marks", remedy=remedy)
    for path in (artifacts.dvc / "tmp" / "rwlock", artifacts.dvc / "tmp" / "exps" / "rwlock"):  # workspace, experiments
        yield from _check_rwlock(path, str(path.relative_to(artifacts.dvc.parent)))
    yield _check_lock_file(artifacts)


def _check_rwlock(path: Path, name: str) -> Iterator[Finding]:
    """DVC notes here who reads and writes what; where it cannot be read, every command of DVC's fails."""
    if not path.is_file():
        return
    entries = _entries(path)
    if entries is None:
        found = "is empty, cut short or not DVC's; every command of DVC's fails"
        yield Finding(check=name, state="wrong", found=found, remedy=f"remove it: `rm {name}`", fix=partial(_remove, path))
        return
    stale = sorted({int(each["pid"]) for each in entries if _has_ended(int(each["pid"]), path)})
    if stale:
        found = f"notes locks of process {', '.join(map(str, stale))}, which has ended"
        remedy = f"remove it, if no DVC is running: `rm {name}`"
        yield Finding(check=name, state="wrong", found=found, remedy=remedy, fix=partial(_release, path, set(stale)))
    else:
        busy = {int(each["pid"]) for each in entries}
        yield well(name, f"process {', '.join(map(str, sorted(busy)))} is at work" if busy else "nobody holds a lock")


def _entries(path: Path) -> list[dict[str, Any]] | None:
    """Returns who holds a lock; None where DVC could not read the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [*content.get("write", {}).values()]
        for readers in content.get("read", {}).values():
            found += readers
        return found if all(isinstance(each["pid"], int) and isinstance(each["cmd"], str) for each in found) else None
    except (ValueError, AttributeError, TypeError, KeyError):
        return None


def _has_ended(pid: int, path: Path) -> bool:
    """Whether the process that wrote an entry is gone; another one may have its number now."""
    try:
        return bool(psutil.Process(pid).create_time() > path.stat().st_mtime + 1)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _remove(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "removed"


def _release(path: Path, pids: set[int]) -> str:
    """Takes out the entries of some processes, as DVC does where it notices them itself."""
    content = json.loads(path.read_text(encoding="utf-8"))
    writing = {place: each for place, each in content.get("write", {}).items() if each["pid"] not in pids}
    reading = {place: [each for each in found if each["pid"] not in pids] for place, found in content.get("read", {}).items()}
    left = {"write": writing, "read": {place: found for place, found in reading.items() if found}}
    partial_file = path.with_name("rwlock.partial")
    partial_file.write_text(json.dumps(left), encoding="utf-8")
    partial_file.replace(path)
    return "their locks are released"


def _check_lock_file(artifacts: Artifacts) -> Finding:
    path = artifacts.dvc_lock
    if not path.exists():
        return well(path.name, "not there yet; `dvc repro` writes it")
    remedy = "take the committed one: `git checkout HEAD -- dvc.lock`, or remove it; then `dvc repro` makes it true"
    try:
        reason = _what_is_wrong(read_yaml(path, error=MachineError, remedy=""))
    except MachineError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip("; ").removesuffix(", or").removesuffix("; resolve them")
    if not reason:
        return well(path.name, "is whole")
    fix = partial(_restore_lock_file, artifacts)
    return Finding(check=path.name, state="wrong", found=reason, remedy=remedy, fix=fix)


def _what_is_wrong(content: dict[str, Any]) -> str:
    """Returns why DVC would refuse the content of a `dvc.lock`; nothing where it would not."""
    stages = content.get("stages", {})
    if content.get("schema") != "2.0" or not isinstance(stages, dict):
        return "is not what DVC wrote: it lacks its schema or its stages"
    for name, stage in stages.items():
        if not isinstance(stage, dict) or "cmd" not in stage:
            return f"is not what DVC wrote: the stage {name!r} lacks its command"
    return ""


def _restore_lock_file(artifacts: Artifacts) -> str:
    """Takes the committed file, where it is whole; a record of digests that does not fit makes DVC run a stage, no more."""
    path = artifacts.dvc_lock
    kept = put_aside(path, artifacts.broken)
    shown = subprocess.run(["git", "-C", str(artifacts.project), "show", "HEAD:./dvc.lock"], capture_output=True, check=False)
    if shown.returncode or not _is_lock_file(shown.stdout.decode(errors="replace")):
        return f"removed (kept as {kept}); `dvc repro` writes it anew"
    path.write_bytes(shown.stdout)
    return f"the committed one is taken (the other kept as {kept}); `dvc repro` makes it true"


def _is_lock_file(text: str) -> bool:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return isinstance(content, dict) and not _what_is_wrong(content)


def in_conflict(path: Path) -> bool:
    """Whether a file has Git's conflict marks."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return any(line.startswith(CONFLICT) for line in text.splitlines())
