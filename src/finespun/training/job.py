"""Job: what is trained with what; every way of computing it is given one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finespun.config.sections import RunConfig
from finespun.strategies.base import Tuning
from finespun.tasks.base import Encoder, Task
from finespun.training.checkpoints import Store
from finespun.training.history import Recorder
from finespun.training.lightning.devices import Hardware
from finespun.training.optimization import Plan


@dataclass(frozen=True, kw_only=True)
class Job:
    """A fine-tuning run, put together. `features` is the folder for activations; None where none are kept."""

    config: RunConfig
    tuning: Tuning
    task: Task
    encoder: Encoder
    labels: list[str]
    hardware: Hardware
    store: Store
    recorder: Recorder
    plan: Plan
    passes: int
    features: Path | None
