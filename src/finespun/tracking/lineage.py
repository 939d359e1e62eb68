"""What made a result: digests of the bytes that a stage reads, the code's state, the packages."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config.compose import declared_dependencies, declared_sections, to_plain
from finespun.config.sections import RunConfig
from finespun.errors import DataError, MachineError
from finespun.files import read_yaml
from finespun.kept import file_digest, folder_digest

BUT_RESULTS = ("--", ":/", ":(exclude)dvc.lock", ":(exclude,glob)**/.gitignore", ":(exclude)reports", ":(exclude)build")
LOGIN = re.compile(r"^(https?://)[^@/]+@")  # user and password in the address of a repository
SHORT = 12  # hexadecimal digits of a digest that a tag shows
PACKAGES = (
    "finespun", "torch", "pytorch-lightning", "transformers", "tokenizers", "torchmetrics", "numpy", "pyarrow", "pillow",
)  # fmt: skip


def input_digests(artifacts: Artifacts, stage: str) -> dict[str, str]:
    """Returns the sha256 of each file or folder that `dvc.yaml` declares as read by a stage.

    Raises:
        DataError: one of them is not there.
    """
    return {name: path_digest(artifacts.local(name)) for name in declared_dependencies(artifacts.pipeline, stage)}


def path_digest(path: Path) -> str:
    """Returns the sha256 of a file, or of a folder's file names and digests."""
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        raise DataError(f"{path}: is not there; `dvc repro` makes it, or restores it with `dvc checkout`")
    return folder_digest(path)


def require_unchanged(artifacts: Artifacts, stage: str, before: Mapping[str, str]) -> None:
    """Makes sure that what was recorded is what was read.

    Raises:
        DataError: a file was changed while the stage ran.
    """
    after = input_digests(artifacts, stage)
    changed = [name for name, digest in after.items() if before[name] != digest]
    if changed:
        raise DataError(
            f"{', '.join(changed)}: changed while {stage} was running, so the record would not be true; undo the change and run"
            " it again (training goes on from its last checkpoint), or leave it and train anew"
        )


def stage_digest(artifacts: Artifacts, stage: str, config: RunConfig, inputs: Mapping[str, str], **more: str) -> str:
    """Returns what names a stage's inputs as a whole: its sections, the files it reads, and whatever else is given."""
    sections = to_plain(config, declared_sections(artifacts.pipeline, stage))
    text = json.dumps([stage, sections, dict(inputs), packages(), more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def packages() -> dict[str, str]:
    """Returns the versions of the packages that can change a result."""
    return {name: version(name) for name in PACKAGES}


def code_of(project: Path) -> dict[str, str]:
    """Returns which code is run: all empty outside a Git checkout, `dirty_diff` where nothing was changed since."""
    diff = _dirty(project)
    return {
        "commit": _said(project, "rev-parse", "HEAD"),
        "branch": _said(project, "rev-parse", "--abbrev-ref", "HEAD"),
        "repository": LOGIN.sub(r"\1", _said(project, "config", "--get", "remote.origin.url")),
        "dirty_diff": hashlib.sha256(diff).hexdigest() if diff else "",
    }


def lineage(
    artifacts: Artifacts, inputs: Mapping[str, str], settings: Mapping[str, Any], *, code: Mapping[str, str] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Returns everything that made a result: `lineage.json` of a run, and part of `run.json`.

    `code` is what `code_of` has found, where that is known already.
    """
    return {
        **(code_of(artifacts.project) if code is None else code),
        "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "packages": ", ".join(f"{name} {number}" for name, number in packages().items()),
        "inputs": dict(inputs),
        "dvc": _locked(artifacts.dvc_lock),
    }


def tags(known: Mapping[str, Any], schema: Mapping[str, Any], *, command: str) -> dict[str, str]:
    """Returns the tags of a run: those that MLflow's pages show in columns of their own, and a few to search by."""
    found = {
        "data": f"{schema['name']} {schema['source']['sha256'][:SHORT]}",
        "weights": known["inputs"].get("weights", "")[:SHORT],
        "config": known["config"][:SHORT],
        "changed since commit": known["dirty_diff"][:SHORT] or ("no" if known["commit"] else ""),
    }
    return source_tags(known, command) | {name: value for name, value in found.items() if value}


def source_tags(code: Mapping[str, Any], command: str) -> dict[str, str]:
    """Returns what MLflow's pages show as source, version and user of a run; `code` is what `code_of` has found."""
    found = {
        "mlflow.user": _user(),
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": code["commit"],
        "mlflow.source.git.branch": code["branch"],
        "mlflow.source.git.repoURL": code["repository"],
    }
    return {name: value for name, value in found.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return ""


def _said(folder: Path, *arguments: str) -> str:
    return git(folder, *arguments).decode(errors="replace").strip()


def _locked(path: Path) -> dict[str, str]:
    """md5 of everything that `prepare` read and made, as `dvc.lock` names it."""
    if not path.exists():
        return {}
    remedy = "restore it with `git checkout dvc.lock`, or delete it: `dvc repro` writes it anew"
    stages = read_yaml(path, error=MachineError, remedy=remedy).get("stages")
    try:
        prepare = (stages or {}).get("prepare", {})
        entries = [*prepare.get("deps", []), *prepare.get("outs", [])]
        return {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}
    except (AttributeError, TypeError, KeyError) as error:
        raise MachineError(f"{path}: is not what DVC wrote; {remedy}") from error


def _dirty(folder: Path) -> bytes:
    """What differs from the last commit: the changes of tracked files, and the digests of files that Git does not know yet.

    What DVC itself writes while it runs the stages does not count.
    """
    unknown = (
        git(folder, "ls-files", "--others", "--exclude-standard", "-z", *BUT_RESULTS)
        .decode(errors="surrogateescape")
        .split("\0")
    )
    digests = [f"{name}:{file_digest(folder / name)}\n" for name in unknown if name and (folder / name).is_file()]
    return git(folder, "diff", "--binary", "HEAD", *BUT_RESULTS) + "".join(digests).encode(errors="surrogateescape")


def git(folder: Path, *arguments: str) -> bytes:
    """Returns what Git says; nothing outside a Git checkout, or where it says no."""
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""  # not a Git checkout: the tag is left out
