"""B4-B6: what the harness costs before it computes: start-up, no-op `dvc repro`, a whole pipeline on a tiny job.

Both sides of each ratio run interleaved in one go; minimum and spread are printed. `make bench` runs it.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from helpers import make_project, make_tiny_bert  # noqa: E402

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": "src",
}


def seconds(command: Sequence[str], folder: Path = ROOT) -> tuple[float, float]:
    """Returns wall and CPU seconds of a command that must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def compare(name: str, ours: Sequence[str], theirs: Sequence[str], *, runs: int = 9) -> None:
    """Prints minima, spread, ratio and difference of two commands, run in turn."""
    pairs = [(seconds(ours)[0], seconds(theirs)[0]) for _ in range(runs)]
    mine, other = ([pair[side] for pair in pairs] for side in (0, 1))
    print(
        f"| {name} | {min(mine):.3f} ({statistics.median(mine):.3f}) | {min(other):.3f} ({statistics.median(other):.3f}) |"
        f" {min(mine) / min(other):.2f} | {min(mine) - min(other):+.3f} s |"
    )


def whole_pipeline(runs: int = 3) -> None:
    """Prints what a first `dvc repro` of a tiny job takes, stage by stage, less the time between first and last step."""
    print("\n| tiny job, from nothing | wall s, min (median) | CPU s, min |\n|---|---|---|")
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            project = make_project(Path(folder) / "project", make_tiny_bert(Path(folder) / "tiny-bert")).folder
            for stage in ("configure", "prepare", "finetune", "evaluate", "test"):
                found.setdefault(stage, []).append(seconds(["python", "-m", "finespun.stages", stage], project))
            shutil.rmtree(project / "mlruns")
            shutil.rmtree(project / ".finespun")
            found.setdefault("`dvc repro`", []).append(seconds(["dvc", "repro"], project))
            with (project / "models" / "finetuned" / "history.csv").open(newline="") as file:
                times = [float(row["time"]) for row in csv.DictReader(file)]
            found.setdefault("of which steps", []).append((max(times) - min(times), 0.0))
    for name, pairs in found.items():
        walls, cpus = zip(*pairs, strict=True)
        print(f"| {name} | {min(walls):.1f} ({statistics.median(walls):.1f}) | {min(cpus):.1f} |")


def main() -> None:
    """Runs all comparisons in this checkout, after a `dvc repro` that must have nothing left to do."""
    seconds(["dvc", "repro"])
    print("| ours against theirs | ours, min (median) s | theirs, min (median) s | ratio | difference |\n|---|---|---|---|---|")
    compare("`finespun --help` : `python -c pass`", ["finespun", "--help"], ["python", "-c", "pass"])
    compare("`configure` : `python -c pass`", ["python", "-m", "finespun.stages", "configure"], ["python", "-c", "pass"])
    compare("no-op `dvc repro` : `dvc status`", ["dvc", "repro"], ["dvc", "status"])
    whole_pipeline()


if __name__ == "__main__":
    main()
