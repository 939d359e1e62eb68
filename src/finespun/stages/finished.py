"""What a stage has finished is kept until `dvc.lock` has it: DVC may be killed in between, and would do it all again.

DVC removes a stage's outputs before it runs the stage, so they are kept beside (large files by hard links), in a folder named
by the digest of what the stage reads. Each file's digest is checked before it is taken.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.errors import MachineError
from finespun.files import copy_or_link
from finespun.kept import file_digest, in_one_move

NOTE, FILES = "note.json", "files"


def take(artifacts: Artifacts, stage: str, digest: Callable[[], str]) -> bool:
    """Puts in its place what was finished of the very same inputs and what DVC did not record; False if there is none."""
    _remove_recorded(artifacts)
    if not by_dvc(artifacts) or not any(artifacts.finished.glob(f"{stage}-*")):
        return False
    kept = artifacts.finished / f"{stage}-{digest()}"
    note = _read(kept)
    if note is None or note["lock"] != _lock_digest(artifacts):
        return False
    if _digests(kept / FILES) != note["files"]:
        print(f"warning: {stage}: the result kept in {kept} is damaged; it is computed anew")  # noqa: T201
        shutil.rmtree(kept)
        return False
    result = artifacts.result(stage)
    for name in note["files"]:
        target = result / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        copy_or_link(kept / FILES / name, target)
    _write(kept, note | {"project": _place(artifacts)})
    if note["checkpoints"]:
        shutil.rmtree(artifacts.state / "checkpoints" / note["checkpoints"], ignore_errors=True)
    print(f"{stage}: had finished, and DVC ended before it recorded it: that result is taken; to compute it anew, rm -r {kept}")  # noqa: T201
    return True


def keep(artifacts: Artifacts, stage: str, digest: str, *, checkpoints: str = "") -> None:
    """Keeps what a stage has just finished; a former result of the stage goes.

    `checkpoints` names the folder of those that the result makes superfluous.
    """
    if not by_dvc(artifacts):
        return
    result, kept = artifacts.result(stage), artifacts.finished / f"{stage}-{digest}"
    shutil.rmtree(kept, ignore_errors=True)
    note = {"project": _place(artifacts), "lock": _lock_digest(artifacts), "checkpoints": checkpoints}

    def fill(partial: Path) -> None:
        shutil.copytree(result, partial / FILES, copy_function=copy_or_link)
        _write(partial, note | {"files": _digests(partial / FILES)})

    try:
        in_one_move(kept, fill)
    except (OSError, MachineError) as error:  # the result itself is where it belongs
        print(f"warning: {stage}: its result is not kept until DVC has recorded it: {kept}: {error}")  # noqa: T201


def by_dvc(artifacts: Artifacts) -> bool:
    """Whether DVC started this stage: nobody else removes its outputs or records them."""
    return "DVC_STAGE" in os.environ and artifacts.out == artifacts.project


def _remove_recorded(artifacts: Artifacts) -> None:
    """Removes what DVC has recorded since it was kept, and what was kept for copies that are gone."""
    for kept in artifacts.finished.glob("*-*"):
        note = None if "." in kept.name else _read(kept)  # with a point: another process is filling it
        if note is not None and (_is_recorded(artifacts, note) or not (artifacts.home / note["project"]).is_dir()):
            shutil.rmtree(kept, ignore_errors=True)


def _is_recorded(artifacts: Artifacts, note: dict[str, Any]) -> bool:
    return bool(note["project"] == _place(artifacts) and note["lock"] != _lock_digest(artifacts))


def _place(artifacts: Artifacts) -> str:
    """Returns where the project lies from the one that it is a copy of: a project can be moved."""
    return os.path.relpath(artifacts.project, artifacts.home)


def _lock_digest(artifacts: Artifacts) -> str:
    return file_digest(artifacts.dvc_lock) if artifacts.dvc_lock.is_file() else ""


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _read(kept: Path) -> dict[str, Any] | None:
    """Returns the note of a kept result; None where there is no whole one."""
    try:
        content = json.loads((kept / NOTE).read_text(encoding="utf-8"))
        return dict(content) if {"project", "lock", "checkpoints", "files"} <= set(content) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(folder: Path, note: dict[str, Any]) -> None:
    partial = folder / f"{NOTE}.partial"
    partial.write_text(json.dumps(note), encoding="utf-8")
    partial.replace(folder / NOTE)
