"""What each strategy reaches on the movie reviews, and what it costs, beside `transformers.Trainer` at equal epochs.

    python benchmarks/accuracy.py run --seeds 5            # hours on two cores; can be cut short and taken up
    python benchmarks/accuracy.py run --limit 200 --epochs 10 --seeds 3 --arms full,head,features
    python benchmarks/accuracy.py table

Trainer has its own defaults but for the batch of 32; its data, split and tokens are those of `data/prepared/`. Costs are CPU
seconds of whole processes, imports and evaluation included: wall time says little on a machine that does other things too.
All splits are looked at: this compares methods, it chooses no model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "multirun" / "accuracy"
RESULTS = ROOT / "benchmarks" / "accuracy.jsonl"
STRATEGIES = ("full", "llrd", "reinit_top", "lp_ft", "gradual", "last_n", "lora", "head", "features")
TRAINER = "Trainer"


def timed(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns its wall seconds and the CPU seconds of it and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "src"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - started, cpu


def finespun(arm: str, seed: int, epochs: int, limit: int | None) -> dict[str, float]:
    """Runs one trial through the command line, and a look at the test split; an arm is a strategy and any overrides."""
    strategy, *overrides = arm.split()
    name = re.sub(r"[^\w.]+", "-", arm)  # an equals sign would end a path of Hydra's
    out = FOLDER / f"{name}-{seed}-{epochs}-{limit}"
    shutil.rmtree(out, ignore_errors=True)
    rows = [f"+data.limit.rows={limit}"] if limit else []
    command = [
        "finespun",
        "run",
        f"strategy={strategy}",
        *overrides,
        f"seed={seed}",
        f"trainer.max_epochs={epochs}",
        f"hydra.run.dir={out}",
    ]
    wall, cpu = timed([*command, "runtime.progress_bar=false", *rows])
    timed([sys.executable, "-m", "finespun.stages", "test", "--out", str(out)])
    found = {"wall": wall, "cpu": cpu}
    for stage, split in (("evaluation", "val"), ("test", "test")):
        scores = json.loads((out / "reports" / stage / "details.json").read_text())["scores"]
        found |= {f"{split}/{name}": scores[name]["value"] for name in ("accuracy", "log_loss")}
    return found


def trainer(seed: int, epochs: int) -> dict[str, float]:
    """Runs Trainer in a process of its own, on all rows."""
    out = FOLDER / f"{TRAINER}-{seed}-{epochs}"
    wall, cpu = timed([sys.executable, "benchmarks/trainer_alone.py", str(seed), str(epochs), str(out)])
    return {"wall": wall, "cpu": cpu, **json.loads((out / "scores.json").read_text())}


def results() -> list[dict[str, Any]]:
    """Everything that was found so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run(arms: list[str], seeds: int, epochs: int, limit: int | None) -> None:
    """Runs whatever is not yet among the results, seed by seed."""
    done = {(each["arm"], each["seed"], each["epochs"], each["limit"]) for each in results()}
    for seed in range(seeds):
        for arm in arms:
            if (arm, seed, epochs, limit) in done:
                continue
            found = trainer(seed, epochs) if arm == TRAINER else finespun(arm, seed, epochs, limit)
            line = {"arm": arm, "seed": seed, "epochs": epochs, "limit": limit, **found}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def table() -> None:
    """Prints a table for each number of rows and epochs, the most accurate first."""
    settings: dict[tuple[int | None, int], dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for each in results():
        settings[each["limit"], each["epochs"]][each["arm"]].append(each)
    for (limit, epochs), arms in settings.items():
        theirs = arms.get(TRAINER)
        print(f"\n{limit or 'all'} training rows, {epochs} epochs\n")
        print("| strategy | runs | test accuracy (sd) | val accuracy | val log loss (sd) | CPU minutes | of Trainer's |")
        print("|---|---|---|---|---|---|---|")
        for arm, runs in sorted(arms.items(), key=lambda pair: -fmean(each["test/accuracy"] for each in pair[1])):
            minutes = median(each["cpu"] for each in runs) / 60
            share = f"{minutes * 60 / median(each['cpu'] for each in theirs):.0%}" if theirs else ""
            cells = [spread(runs, "test/accuracy"), f"{fmean(each['val/accuracy'] for each in runs):.3f}"]
            cells += [spread(runs, "val/log_loss"), f"{minutes:.1f}", share]
            print(f"| {arm if arm == TRAINER else f'`{arm}`'} | {len(runs)} | {' | '.join(cells)} |")


def spread(runs: list[dict[str, float]], name: str) -> str:
    """Mean and standard deviation over seeds."""
    values = [each[name] for each in runs]
    return f"{fmean(values):.3f}" + (f" ({stdev(values):.3f})" if len(values) > 1 else "")


def main() -> None:
    """Runs, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--arms", default=",".join((TRAINER, *STRATEGIES)))
    running.add_argument("--seeds", type=int, default=5)
    running.add_argument("--epochs", type=int, default=2)
    running.add_argument("--limit", type=int, help="training rows")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        run(options.arms.split(","), options.seeds, options.epochs, options.limit)
    else:
        table()


if __name__ == "__main__":
    main()
