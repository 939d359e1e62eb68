"""Ranking: 10,000 users against 100,000 items within 1 GB; texts embedded beside sentence-transformers, as a ratio.

    python benchmarks/ranking.py rank
    python benchmarks/ranking.py embed MODEL [TEXTS]

MODEL is a folder that `finetune` wrote with task: text_embedding. Times are CPU seconds of this process; set OMP_NUM_THREADS.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from finespun.evaluation.predictor import Predictor
from finespun.tasks.ranking.search.nearest import nearest

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


def embed(folder: str, count: int) -> None:
    """Prints rows a CPU second of both, and how far their vectors are apart."""
    rows = texts(count)
    theirs = SentenceTransformer(folder, device="cpu")
    ours = Predictor(Path(folder))
    ours.task = ours.task.of_items()
    theirs.encode(rows[:64]), ours.predict([{"text": text} for text in rows[:64]])
    began = time.process_time()
    expected = theirs.encode(rows, show_progress_bar=False)
    slow = time.process_time() - began
    role = ours.columns["text"]
    began = time.process_time()
    found = [answer["vector"] for answer in ours.predict([{role: text} for text in rows])]
    quick = time.process_time() - began
    far = float(np.abs(np.array(found) - expected).max())
    rates = f"sentence-transformers {count / slow:.0f}, finespun {count / quick:.0f} rows a CPU s"
    print(f"{rates}: {slow / quick:.2f}x; vectors apart by {far:.1e}")


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        rank()
    else:
        embed(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2000)
