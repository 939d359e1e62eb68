"""What each strategy reaches on the movie reviews, and what it costs, beside `transformers.Trainer` at equal epochs.

    python benchmarks/accuracy.py run --seeds 5            # hours on two cores; can be cut short and taken up
    python benchmarks/accuracy.py run --limit 200 --epochs 10 --seeds 3 --arms full,head,features
    python benchmarks/accuracy.py run --resplit            # each seed has other rows to train on, and others to answer
    python benchmarks/accuracy.py table

Trainer has its own defaults but for the batch of 32; its data, split and tokens are those that `prepare` wrote. Costs are CPU
seconds of whole processes, imports and evaluation included: wall time says little on a machine that does other things too.
All splits are looked at: this compares methods, it chooses no model. One test split of a thousand rows cannot tell a point
apart, however many seeds answer it; five splits can, nearly.
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

from finespun.artifacts import Artifacts
from finespun.config.check import Origin, check
from finespun.config.compose import compose, write

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


def finespun(arm: str, seed: int, epochs: int, limit: int | None, split: int | None) -> dict[str, float]:
    """Runs one trial through the command line, and a look at the test split; an arm is a strategy and any overrides."""
    strategy, *overrides = arm.split()
    overrides += [] if split is None else [f"data.split.seed={split}"]
    name = re.sub(r"[^\w.]+", "-", arm)  # an equals sign would end a path of Hydra's
    out = FOLDER / f"{name}-{seed}-{epochs}-{limit}-{split}"
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
    for stage, part in (("evaluation", "val"), ("test", "test")):
        scores = json.loads((out / "reports" / stage / "details.json").read_text())["scores"]
        found |= {f"{part}/{name}": scores[name]["value"] for name in ("accuracy", "log_loss")}
    return found


def trainer(arm: str, seed: int, epochs: int, split: int | None) -> dict[str, float]:
    """Runs Trainer in a process of its own, on all rows; an arm is its name and any of its arguments."""
    out = FOLDER / f"{re.sub(r'[^A-Za-z0-9]+', '-', arm)}-{seed}-{epochs}-{split}"
    prepared = ROOT / "data" / "prepared" if split is None else prepare(split)
    arguments = [str(seed), str(epochs), str(prepared), str(out), *arm.split()[1:]]
    wall, cpu = timed([sys.executable, "benchmarks/trainer_alone.py", *arguments])
    return {"wall": wall, "cpu": cpu, **json.loads((out / "scores.json").read_text())}


def prepare(split: int) -> Path:
    """Prepares the reviews, split otherwise; returns the folder."""
    out = FOLDER / f"split-{split}"
    artifacts = Artifacts(project=ROOT, out=out)
    _, composed = compose(artifacts)
    composed.data.split.seed = split
    write(check(composed.copy(), Origin(conf=artifacts.conf, choices={})), composed, artifacts.config)
    timed([sys.executable, "-m", "finespun.stages", "prepare", "--out", str(out)])
    return artifacts.prepared


def results() -> list[dict[str, Any]]:
    """Everything that was found so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run(arms: list[str], seeds: int, epochs: int, limit: int | None, *, resplit: bool) -> None:
    """Runs whatever is not yet among the results, seed by seed."""
    done = {(each["arm"], each["seed"], each["epochs"], each["limit"], each.get("split")) for each in results()}
    for seed in range(seeds):
        split = seed if resplit else None
        for arm in arms:
            if (arm, seed, epochs, limit, split) in done:
                continue
            found = trainer(arm, seed, epochs, split) if arm.startswith(TRAINER) else finespun(arm, seed, epochs, limit, split)
            line = {"arm": arm, "seed": seed, "epochs": epochs, "limit": limit, "split": split, **found}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def table() -> None:
    """Prints a table for each number of rows and epochs, the most accurate first."""
    settings: dict[tuple[int | None, int, bool], dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for each in results():
        settings[each["limit"], each["epochs"], each.get("split") is not None][each["arm"]].append(each)
    for (limit, epochs, resplit), arms in settings.items():
        theirs = arms.get(TRAINER, [])
        print(f"\n{limit or 'all'} training rows, {epochs} epochs{', split anew for each seed' if resplit else ''}\n")
        print(
            "| strategy | runs | test accuracy (sd) | points over Trainer (se) | val accuracy | val log loss (sd) | CPU min |"
        )
        print("|---|---|---|---|---|---|---|")
        for arm, runs in sorted(arms.items(), key=lambda pair: -fmean(each["test/accuracy"] for each in pair[1])):
            minutes = median(each["cpu"] for each in runs) / 60
            share = f" ({minutes * 60 / median(each['cpu'] for each in theirs):.0%} of Trainer's)" if theirs else ""
            cells = [spread(runs, "test/accuracy"), over(runs, theirs), f"{fmean(each['val/accuracy'] for each in runs):.3f}"]
            cells += [spread(runs, "val/log_loss"), f"{minutes:.1f}{share}"]
            print(f"| {arm if arm.startswith(TRAINER) else f'`{arm}`'} | {len(runs)} | {' | '.join(cells)} |")


def over(runs: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    """Points of test accuracy that runs are above those of Trainer with the same seed and split, and the standard error."""
    other = {each["seed"]: each["test/accuracy"] for each in theirs}
    points = [100 * (each["test/accuracy"] - other[each["seed"]]) for each in runs if each["seed"] in other]
    return f"{fmean(points):+.1f} ({stdev(points) / len(points) ** 0.5:.1f})" if len(points) > 1 and runs is not theirs else ""


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
    running.add_argument("--resplit", action="store_true", help="each seed splits the reviews anew")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        run(options.arms.split(","), options.seeds, options.epochs, options.limit, resplit=options.resplit)
    else:
        table()


if __name__ == "__main__":
    main()
