"""What a trial needs, imported once for all of them: the process that trials are forked from imports this and runs nothing."""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looking for a GPU must not open it: a fork could not use it

import importlib

MODULES = (
    "finespun.stages.prepare",
    "finespun.stages.finetune",
    "finespun.training.lightning_loop",
    "finespun.tracking.studies",
    "finespun.sweeps.worker",
    "mlflow.store.tracking.sqlalchemy_store",
)

for _module in MODULES:
    importlib.import_module(_module)
