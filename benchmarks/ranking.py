"""Ranking: 10,000 users against 100,000 items within 1 GB; texts embedded beside sentence-transformers, as a ratio.

    python benchmarks/ranking.py rank
    python benchmarks/ranking.py embed MODEL [TEXTS]

MODEL is a folder that `finetune` wrote with task: text_embedding; it is measured in float32 and in bfloat16. Times are CPU
seconds of this process, the least of several turns; set OMP_NUM_THREADS.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from finespun.evaluation.predictor import Predictor
from finespun.tasks.ranking.search.nearest import nearest

DTYPES, TURNS = ("float32", "bfloat16"), 3
USERS, ITEMS, WIDTH, COUNT = 10_000, 100_000, 64, 100
WORDS = "good film story actor scene music long slow funny end first time never seen plot war love city night king"


def rank() -> None:
    """Prints time and memory of an exact ranking, seen items left out."""
    torch.manual_seed(0)
    users, items = torch.randn(USERS, WIDTH), torch.randn(ITEMS, WIDTH)
    seen = [torch.randint(0, ITEMS, (100,)) for _ in range(USERS)]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    nearest(users, items, COUNT, without=seen)
    took = time.process_time() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (most - before) / 1e6
    print(f"{USERS:,} users x {ITEMS:,} items: {took:.1f} CPU s, peak {most / 1e6:.2f} GB, {grown:.2f} of them the ranking's")


def texts(count: int) -> list[str]:
    """Short texts, of lengths as reviews have them."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(2.5, 0.6, count), 3, 90).astype(int)
    return [" ".join(draw.choice(WORDS.split(), length)) for length in lengths]


def opened(folder: str, dtype: str) -> Predictor:
    """The model that makes vectors, in float32 or bfloat16."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        record = json.loads((Path(copy) / "run.json").read_text())
        record["task"]["vector_dtype"] = dtype
        (Path(copy) / "run.json").write_text(json.dumps(record))
        predictor = Predictor(Path(copy))
    predictor.task = predictor.task.of_items()
    return predictor


def embed(folder: str, count: int) -> None:
    """Prints rows a CPU second of sentence-transformers and of finespun in turn, and how far their vectors are apart."""
    rows = texts(count)
    theirs = SentenceTransformer(folder, device="cpu")
    arms: dict[str, Callable[[list[str]], Any]] = {"sentence-transformers": partial(theirs.encode, show_progress_bar=False)}
    for dtype in DTYPES:
        ours = opened(folder, dtype)
        arms[dtype] = lambda given, ours=ours: [
            row["vector"] for row in ours.predict([{ours.columns["text"]: t} for t in given])
        ]
    took: dict[str, list[float]] = {name: [] for name in arms}
    found = {}
    for turn in range(TURNS + 1):
        for name, encode in arms.items():
            began = time.process_time()
            found[name] = np.array(encode(rows if turn else rows[:64]))
            took[name] += [time.process_time() - began] if turn else []
    expected, slow = found["sentence-transformers"], min(took["sentence-transformers"])
    for name, each in took.items():
        near = float((found[name] * expected).sum(axis=1).min())
        print(f"{name}: {count / min(each):.0f} rows a CPU s, {slow / min(each):.2f}x; cosines to the first from {near:.6f}")


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        rank()
    else:
        embed(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2000)
