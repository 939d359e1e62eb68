"""`sweep=auto` on 500 movie reviews beside the defaults and a random grid over `transformers.Trainer` at equal minutes.

    python benchmarks/auto.py defaults --seed 0            # first: it prepares the rows that the grid reads
    python benchmarks/auto.py auto --seed 0 --minutes 20   # the search, its winner on the test split
    python benchmarks/auto.py grid --seed 0                # Trainer: random settings for as many seconds as auto took
    python benchmarks/auto.py table                        # means and standard errors over the seeds

Each seed splits the reviews anew: 500 rows train, about 420 validate, about 1,060 test; all sides see the same rows. The grid
is what people try: rates from 1e-5 to 1e-4, batches of 8 to 32, 2 to 10 epochs; it looks at the test split once, at the end.
Costs are seconds of whole processes: run one arm at a time on an idle machine. `.jsonl` keeps what was found.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import transformers
from accuracy import ROOT, timed
from against_trainer import fresh_model, weights
from trainer_alone import rows_of

FOLDER, RESULTS = ROOT / "multirun" / "auto", ROOT / "benchmarks" / "auto.jsonl"
ROWS = ["data.split.train=0.86", "data.split.val=0.04", "+data.limit.rows=500"]
GRID = {
    "learning_rate": (1e-5, 2e-5, 3e-5, 5e-5, 1e-4),
    "per_device_train_batch_size": (8, 16, 32),
    "num_train_epochs": (2, 3, 4, 6, 10),
}


def of(seed: int) -> list[str]:
    """Returns the overrides of a seed."""
    return [*ROWS, f"data.split.seed={seed}", f"seed={seed}", "runtime.progress_bar=false"]


def tested(out: Path) -> dict[str, float]:
    """Tests what `finespun run` left in a folder; returns scores of both splits."""
    timed([sys.executable, "-m", "finespun.stages", "test", "--out", str(out)])
    read = {part: json.loads((out / "reports" / part / "metrics.json").read_text()) for part in ("evaluation", "test")}
    return {"val": read["evaluation"]["accuracy"], "test": read["test"]["accuracy"]}


def auto(seed: int, minutes: float, more: list[str]) -> dict[str, Any]:
    """Searches, and tests the winner."""
    name = f"auto-{seed}"
    shutil.rmtree(ROOT / "multirun" / name, ignore_errors=True)
    shutil.rmtree(ROOT / ".finespun" / "sweeps" / name, ignore_errors=True)
    seconds, _ = timed(
        ["finespun", "run", "-m", "sweep=auto", f"sweep.minutes={minutes}", f"sweep.name={name}", *of(seed), *more]
    )
    [best] = [path.parents[2] for path in (ROOT / "multirun" / name).glob("*/models/finetuned/run.json")]
    trials = len(list((ROOT / "multirun" / name).glob("*/outcome.json")))
    return {"seconds": seconds, "trials": trials, **tested(best)}


def defaults(seed: int) -> dict[str, Any]:
    """One run of what finespun ships."""
    out = FOLDER / f"defaults-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    seconds, _ = timed(["finespun", "run", f"hydra.run.dir={out}", *of(seed)])
    return {"seconds": seconds, "trials": 1, **tested(out)}


def grid(seed: int, seconds: float) -> dict[str, Any]:
    """Draws settings of Trainer until so many seconds are spent, counted from the first; returns the best by validation."""
    prepared = FOLDER / f"defaults-{seed}" / "data" / "prepared"
    splits = {split: rows_of(prepared, split) for split in ("train", "val", "test")}
    tokenizer, random, found = transformers.AutoTokenizer.from_pretrained(weights()), np.random.default_rng(seed), []

    def accuracy(trainer: transformers.Trainer, split: str) -> float:
        targets = np.array([row["labels"] for row in splits[split]])
        return float((trainer.predict(splits[split]).predictions.argmax(axis=1) == targets).mean())

    best: tuple[float, Any] = (-1.0, None)
    started = time.perf_counter()
    while not found or time.perf_counter() - started < seconds:
        drawn = {name: random.choice(values).item() for name, values in GRID.items()}
        transformers.set_seed(seed)
        settings = transformers.TrainingArguments(
            output_dir=str(FOLDER / "trainer"), seed=seed, save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=True, **drawn,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=fresh_model(seed), args=settings, train_dataset=splits["train"], processing_class=tokenizer
        )
        trainer.train()
        found.append(accuracy(trainer, "val"))
        print(drawn, found[-1], flush=True)
        if found[-1] > best[0]:
            best = found[-1], trainer
    return {"seconds": time.perf_counter() - started, "trials": len(found), "val": best[0], "test": accuracy(best[1], "test")}


def results() -> list[dict[str, Any]]:
    """Returns what was found so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table() -> None:
    """Prints a line an arm, with standard errors over the seeds."""
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in results():
        arms[each["arm"]].append(each)
    print("| arm | seeds | test accuracy (se) | val accuracy | trials | minutes |\n|---|---|---|---|---|---|")
    for arm, runs in arms.items():
        scores = [run["test"] for run in runs]
        error = f" ({stdev(scores) / len(scores) ** 0.5:.3f})" if len(scores) > 1 else ""
        rest = f"{fmean(run['trials'] for run in runs):.0f} | {fmean(run['seconds'] for run in runs) / 60:.1f}"
        print(f"| {arm} | {len(runs)} | {fmean(scores):.3f}{error} | {fmean(run['val'] for run in runs):.3f} | {rest} |")


def main() -> None:
    """Runs an arm, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=("auto", "grid", "defaults", "table"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("more", nargs="*", help="further overrides of the sweep")
    given = parser.parse_intermixed_args()
    if given.arm == "table":
        return table()
    if given.arm == "auto":
        found = auto(given.seed, given.minutes, given.more)
    elif given.arm == "defaults":
        found = defaults(given.seed)
    else:
        found = grid(
            given.seed, next(each["seconds"] for each in results() if (each["arm"], each["seed"]) == ("auto", given.seed))
        )
    with RESULTS.open("a") as file:
        file.write(json.dumps({"arm": given.arm, "seed": given.seed, **found}) + "\n")
    return None


if __name__ == "__main__":
    main()
