"""What a trial of a sweep costs beside its steps, and the same grid by plain processes; what pruners save.

python benchmarks/sweeps.py [--trials 8] [--plain 2]
python benchmarks/sweeps.py --trials 16 --pruners none median hyperband   # 16 random settings, of 20 epochs unless pruned

CPU seconds, one thread, a tiny BERT of random weights on 200 of the movie reviews: what is left is overhead. Ratios of the
two hold anywhere; the seconds are of the machine that stands in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import QUIET, Project, make_project, make_tiny_bert  # noqa: E402  (it is in the folder that was just added)

EPOCHS = 20
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


def pruned(project: Project, pruner: str, trials: int) -> str:
    """Searches with a pruner; returns seconds, epochs, how many trials came to their end, and the best loss."""
    began = time.perf_counter()
    search = [
        "hydra/sweeper=optuna",
        "hydra/sweeper/sampler=random",
        f"hydra/sweeper/pruner={pruner}",
        f"sweep.trials={trials}",
    ]
    values = ["optimizer.lr=tag(log, interval(1e-5, 3e-2))", "strategy=full", f"trainer.max_epochs={EPOCHS}"]
    watched = ["task.monitor=val/loss", "task.monitor_mode=min", f"sweep.name={pruner}", "sweep.keep_models=0"]
    project.run("finespun", "run", "-m", *search, *values, *watched, OMP_NUM_THREADS="1", timeout=3600)
    wall = time.perf_counter() - began
    with closing(sqlite3.connect(project.folder / ".finespun" / "sweeps" / pruner / "study.db")) as study:
        [ended] = study.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
        [best] = study.execute("SELECT min(value) FROM trial_values").fetchone()
    kept = (project.folder / "multirun" / pruner).glob("*/validations.json")
    epochs = sum(len(json.loads(path.read_text())["found"]) for path in kept)
    return f"{pruner}: {wall:.0f} s, {epochs} epochs, {ended} of {trials} trials to their end, best val/loss {best:.4f}"


def main() -> None:
    """Prints a line a strategy, or a pruner."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pruners", nargs="*", help="compare these, such as none median hyperband")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--plain", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = make_project(Path(name) / "project", make_tiny_bert(Path(name) / "tiny-bert"))
        if given.pruners:
            print("\n".join(pruned(project, each, given.trials) for each in given.pruners))
            return
        for number, (label, settings) in enumerate(SWEEPS.items()):
            inside, wall = sweep(project, f"s{number}", settings, given.trials)
            beside = plain(project, settings, given.plain)
            whole = f"{given.trials} trials in {wall:.0f} s"
            print(f"{label}: {inside:.2f} CPU s a trial ({whole}); a process of its own {beside:.1f}")


if __name__ == "__main__":
    main()
