"""What a trial of a sweep costs beside its steps, and the same grid by plain processes.

python benchmarks/sweeps.py [--trials 8] [--plain 2]

CPU seconds, one thread, a tiny BERT of random weights on 200 of the movie reviews: what is left is overhead. Ratios of the
two hold anywhere; the seconds are of the machine that stands in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import QUIET, Project, make_project, make_tiny_bert  # noqa: E402  (it is in the folder that was just added)

SWEEPS = {"full": ("strategy=full",), "head on cached features": ("strategy=head",)}


def rates(count: int) -> str:
    """Returns so many learning rates, as a grid has them."""
    return "optimizer.lr=" + ",".join(f"{1e-3 + 1e-5 * number:g}" for number in range(count))


def sweep(project: Project, name: str, settings: tuple[str, ...], trials: int) -> tuple[float, float]:
    """Runs a sweep; returns the median CPU seconds of a trial but the first two, and the seconds of the whole."""
    began = time.perf_counter()
    project.run("finespun", "run", "-m", rates(trials), *settings, "trainer.max_epochs=1", f"sweep.name={name}",
                "sweep.keep_models=0", OMP_NUM_THREADS="1", timeout=3600)  # fmt: skip
    wall = time.perf_counter() - began
    outcomes = sorted((project.folder / "multirun" / name).glob("*/outcome.json"), key=lambda path: int(path.parent.name))
    spent = [json.loads(path.read_text())["values"]["cpu_seconds"] for path in outcomes]
    return statistics.median(spent[2:] or spent), wall


def plain(project: Project, settings: tuple[str, ...], trials: int) -> float:
    """Runs the same settings as processes of their own; returns the median CPU seconds of one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **QUIET, "PATH": path, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    spent = []
    for number in range(trials):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = ["finespun", "run", f"optimizer.lr={2e-3 + 1e-5 * number:g}", *settings, "trainer.max_epochs=1"]
        subprocess.run(command, cwd=project.folder, env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


def main() -> None:
    """Prints a line a strategy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--plain", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = make_project(Path(name) / "project", make_tiny_bert(Path(name) / "tiny-bert"))
        for number, (label, settings) in enumerate(SWEEPS.items()):
            inside, wall = sweep(project, f"s{number}", settings, given.trials)
            beside = plain(project, settings, given.plain)
            whole = f"{given.trials} trials in {wall:.0f} s"
            print(f"{label}: {inside:.2f} CPU s a trial ({whole}); a process of its own {beside:.1f}")


if __name__ == "__main__":
    main()
