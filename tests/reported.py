"""Facts of a made-up model, as the report's templates are given them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finespun.evaluation.analysis.calibration import calibration
from finespun.report.facts import Facts, SplitFacts

LABELS = ["negative", "positive"]
HOSTILE = "<script>document.title = 'taken'</script> & <img src=x onerror=\"document.title='taken'\">"


def split_facts(
    split: str = "test", *, rows: int = 200, accuracy: float = 0.8, baseline: float = 0.7, **more: Any
) -> SplitFacts:
    """Facts of a split on which a classifier of two labels is right in a share of rows."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, rows)
    right = random.random(rows) < accuracy
    predicted = np.where(right, targets, 1 - targets)
    chances = np.full((rows, 2), 0.2)
    chances[np.arange(rows), predicted] = 0.8
    texts = [f"row {number} of many" for number in range(rows)]
    wrong = int(np.flatnonzero(~right)[0])
    texts[wrong] = HOSTILE
    gap = accuracy - baseline
    shown = {"accuracy": accuracy, "log_loss": 0.5}
    details = {
        "confidence": 0.95,
        "shown": list(shown),
        "scores": {name: {"value": value, "low": value - 0.05, "high": value + 0.05} for name, value in shown.items()}
        | {"precision/positive": {"value": 0.8, "low": 0.7, "high": 0.9}},
        "baselines": {"tfidf_logistic": {"accuracy": baseline, "log_loss": 0.6}},
        "comparison": {"tfidf_logistic": {"differences": {
            "accuracy": {"value": gap, "low": gap - 0.03, "high": gap + 0.03},
            "log_loss": {"value": -0.1, "low": -0.2, "high": -0.05},
        }}},
        "labels": LABELS,
        "calibration": calibration(targets, chances),
        "slices": [
            {
                "by": "class", "slice": name, "units": 100, "score": "accuracy",
                "value": value, "low": value - 0.1, "high": value + 0.1,
            }
            for name, value in (("positive", 0.9), ("negative", 0.7))
        ],
        "thresholds": [
            {"label": "negative", "threshold": 0.7, "precision": 0.96, "recall": 0.4, "rows": 40},
            {"label": "positive", "threshold": None, "precision": None, "recall": None, "rows": None},
        ],
        "worst": [explained_mistake(row + 2, holds=holds) for row, holds in zip(np.flatnonzero(~right).tolist()[:2],
                                                                               (True, False), strict=True)],
        **more,
    }  # fmt: skip
    table = {"row": np.arange(rows) + 2, "text": texts, "label": [LABELS[each] for each in targets]}
    table |= {"predicted": [LABELS[each] for each in predicted]}
    table |= {f"probability/{label}": chances[:, place] for place, label in enumerate(LABELS)}
    metrics = {"rows": rows, **shown} | ({"test_evaluations": 1} if split == "test" else {})
    return SplitFacts(
        split=split, metrics=metrics, details=details, predictions=pa.table(table), folder=Path("reports") / split
    )


def explained_mistake(row: int, *, holds: bool) -> dict[str, Any]:
    """One of the worst mistakes, with a picture, a training row like it and an explanation."""
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    return {
        "row": row, "place": row - 2, "picture": dot,
        "neighbours": [{"row": 7, "said": HOSTILE, "answer": "negative", "similarity": 0.8}],
        "explanation": {
            "label": "positive", "probability": 0.9, "tokens": ["gri", "##pping", "<b>", "dull"],
            "scores": [1.0, 0.5, 0.0, -0.5], "deletion": 0.3, "random": 0.6, "spread": 0.1, "grid": None, "holds": holds,
        },
    }  # fmt: skip


def facts(*splits: SplitFacts, **more: Any) -> Facts:
    """Facts of a model with some splits."""
    counts = {"negative": 400, "positive": 600}
    history = [
        {"step": str(step), "epoch": "0", "name": name, "value": str(1 / (step + 1)), "time": str(1000.0 + step)}
        for step in range(50)
        for name in ("train/loss", *(("val/loss", "val/accuracy") if step % 25 == 24 else ()))
    ]
    given: dict[str, Any] = {
        "record": {
            "run_id": "a" * 32, "name": "reviews · tiny-bert · full", "task": {"monitor": "val/accuracy"}, "steps": 50,
            "auto_class": "AutoModelForSequenceClassification", "loaded": "39 tensors matched", "trained": ["epoch 0: all"],
            "cost": {"parameters": 52386, "train_rows_per_second": 900.0}, "inputs": {"weights": "b" * 64},
            "lineage": {"commit": "c" * 40, "packages": "torch 2.13.0", "inputs": {"weights": "b" * 64}},
            "settings": {"seed": 42, "optimizer": {"lr": 1e-3}, "model": {"checkpoint": "bert-base-uncased", "revision": None}},
            "best_score": 0.8, "best_epoch": 0,
        },
        "schema": {
            "name": "reviews", "source": {"path": "data/raw/reviews.csv", "sha256": "d" * 64}, "labels": LABELS,
            "rows": {"train": 1000, "val": 200, "test": 200}, "columns": {"text": "text", "label": "sentiment"},
        },
        "profile": {
            "rows": {"train": 1000, "val": 200, "test": 200}, "labels": {"train": counts, "val": counts, "test": counts},
            "remarks": {"train": ["a <b>remark</b>"]}, "warnings": {"duplicate": 3}, "rows_left_out_by_filter": {},
            "rows_left_out_by_check": {"empty_text": 2},
            "tokens": {"mean": 20.0, "p5": 3.0, "p50": 18.0, "p95": 40.0, "max": 48.0, "rows_truncated": 7},
        },
        "history": history,
        "splits": splits or (split_facts(), split_facts("validation")),
        "label_errors": [{
            "row": "17", "label": "positive", "predicted": "negative", "probability_of_label": "0.02",
            "probability_of_predicted": "0.98", "text": HOSTILE,
        }],
        "cost": {"latency_ms_p50": 2.5, "latency_ms_p99": 9.0, "rows_per_second": 1200.0, "device": "1 x cpu"},
        "bytes_on_disk": 250_000,
    }  # fmt: skip
    return Facts(**(given | more))
