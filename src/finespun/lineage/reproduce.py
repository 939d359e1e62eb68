"""`finespun reproduce`: a run's commit, checked out elsewhere and run again; are the bits the same?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.errors import MachineError
from finespun.evaluation.record import read_record
from finespun.files import read_json
from finespun.tracking.trace import lineage_of, weights_of

Compared = tuple[str, bool, str]  # stage, whether it made the same, what was compared


def reproduce(run_id: str, artifacts: Artifacts, *, keep: bool = False) -> list[Compared]:
    """Returns what each stage made beside what the run recorded, up to the first that differs.

    Raises:
        MachineError: the run is unknown, was made of changes that no commit has, or cannot be run again.
    """
    config, _ = compose(artifacts)
    lineage, weights = lineage_of(run_id, artifacts, config.runtime), weights_of(run_id, artifacts, config.runtime)
    if not lineage["commit"] or lineage["dirty_diff"]:
        what = "changes that are in no commit" if lineage["commit"] else "files outside Git"
        raise MachineError(
            f"run {run_id}: was made of {what}, which are not kept; commit before `dvc repro` to reproduce a run"
        )
    folder = Path(tempfile.mkdtemp(prefix="finespun-reproduce-"))
    try:
        again = _run_again(lineage["commit"], artifacts, folder / "project")
        return _compared(lineage, weights, again)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _run_again(commit: str, artifacts: Artifacts, folder: Path) -> Artifacts:
    """Checks a commit and its data out into a folder, and runs the stages up to `finetune` there."""
    _do("git", "clone", "--quiet", "--shared", "--no-checkout", str(artifacts.project), str(folder), where=artifacts.project)
    _do("git", "checkout", "--quiet", "--detach", commit, where=folder)
    _do("dvc", "config", "--local", "cache.dir", str((artifacts.dvc / "cache").resolve()), where=folder)
    kept = [str(path.relative_to(folder)) for path in folder.rglob("?*.dvc") if path.is_file()]  # data that DVC keeps
    if kept:
        _do("dvc", "checkout", "--quiet", *kept, where=folder)
    for name in ("configure", "prepare", "finetune"):  # not by `dvc repro`, which would take results from its cache
        _do(sys.executable, "-m", "finespun.stages", name, where=folder)
    return Artifacts(project=folder, out=folder)


def _do(*command: str, where: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command, cwd=where, env={**os.environ, "PATH": path, "PYTHONPATH": "src"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise MachineError(f"`{' '.join(command[:4])} ...` ended with {done.returncode}: {said[-1] if said else 'no message'}")


def _compared(lineage: dict[str, Any], weights: dict[str, str], again: Artifacts) -> list[Compared]:
    record = read_record(again.finetuned)
    schema = read_json(again.prepared / "schema.json", error=MachineError, remedy="run it again", keys=("digests",))
    before = {split: lineage["inputs"].get(f"data/prepared/{split}.arrow") for split in ("train", "val")}
    found = [
        ("configure", record["lineage"]["config"] == lineage["config"], f"settings {lineage['config'][:12]}..."),
        ("prepare", all(schema["digests"][split] == digest for split, digest in before.items()), "train.arrow, val.arrow"),
        ("finetune", record["weights_files"] == weights, ", ".join(sorted(weights))),
    ]
    first = next((place for place, (_, same, _) in enumerate(found) if not same), len(found))
    return found[: first + 1]
