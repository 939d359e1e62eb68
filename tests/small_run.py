"""A small configuration and comparing what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finespun.config.check import Origin, validate
from finespun.config.sections import RunConfig
from finespun.training.fit import Fitted

Train = Callable[..., Fitted]
LABELS = ["negative", "positive"]
# Adam that does not turn the last bit of a gradient of nearly nothing into a step of the rate's size.
STEADY = {"optimizer__eps": 1e-4, "optimizer__lr": 2e-4}


def small_config(**changes: Any) -> RunConfig:
    """A whole configuration; `section__key=value` changes it."""
    plain: dict[str, Any] = {
        "seed": 3,
        "data": {"path": "reviews.csv", "columns": {"text": "text", "label": "sentiment"}, "labels": LABELS},
        "task": {
            "_target_": "finespun.tasks.text_classification.TextClassification",
            "max_length": 32, "label_smoothing": 0.0, "monitor": "val/loss", "monitor_mode": "min",
        },
        "model": {"checkpoint": "tiny"},
        "strategy": {"_target_": "finespun.strategies.full.Full", "regression_head_lr_scale": 1.0},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.01, "fused": True},
        "scheduler": {"_target_": "transformers.get_linear_schedule_with_warmup", "warmup_ratio": 0.1},
        "trainer": {
            "max_epochs": 3, "imbalance": "ignore", "batch_size": 16, "gradient_clip_norm": 1.0,
            "ema_decay": None, "r_drop": None,
            "early_stopping_patience": None, "precision": "32-true", "compile": False,
            "lightning": {}, "callbacks": [],
        },
        "evaluation": {"bootstrap_resamples": 100, "confidence": 0.95, "baselines": False, "zero_shot": False,
                       "explain": 0, "precision_goal": None, "gate": {"model": None, "score": None, "margin": 0.0}},
        "report": {"confusion_title": "c", "training_title": "t"},
        "runtime": {
            "accelerator": "cpu", "devices": 1, "nodes": 1, "rendezvous": None, "slurm": None,
            "strategy": "ddp", "device_batch_size": None,
            "gradient_checkpointing": False, "cpu_kernels": True,
            "feature_cache_gb": 1.0, "image_cache_gb": 1.0, "num_workers": 0, "progress_bar": False,
            "checkpoint_seconds": 0.0, "stall_minutes": 1.0,
            "tracking": True, "tracking_uri": None, "system_metrics": False, "prepare_with": "local", "mlflow_experiment": "x",
            "lightning": {}, "allow_targets": [],
        },
    }  # fmt: skip
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            plain[section][key] = value
        else:
            plain[section] = value
    return validate(plain, Origin(conf=Path("conf"), choices={}))


def same_bits(one: Fitted, other: Fitted) -> bool:
    """Whether two models have the same weights, bit for bit."""
    ours, theirs = one.tuning.model.state_dict(), other.tuning.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
