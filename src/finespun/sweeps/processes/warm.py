"""What trials need, imported once for all of them, in the process that they are forked from, which computes nothing."""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looking for a GPU must not open it: a fork could not use it

import gc
import importlib
import threading
from contextlib import suppress

from tqdm import tqdm

MODEL = "FINESPUN_WARM_MODEL"  # the model_type of transformers that trials will load
MODULES = (
    "finespun.stages.prepare",
    "finespun.stages.finetune",
    "finespun.training.lightning.trainer",
    "finespun.tracking.trials.studies",
    "finespun.sweeps.processes.worker",
    "mlflow.store.tracking.sqlalchemy_store",
    "peft",
    "transformers.optimization",
)


def import_all() -> None:
    """Imports what trials will; a model that transformers does not have is the trial's affair."""
    for module in MODULES:
        importlib.import_module(module)
    kind = os.environ.get(MODEL, "").replace("-", "_")
    with suppress(ImportError, AttributeError):
        importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    with suppress(ImportError, AttributeError):
        mapping = importlib.import_module("transformers.conversion_mapping")
        mapping.get_checkpoint_conversion_mapping(kind)  # compiles hundreds of patterns


import_all()
tqdm.set_lock(threading.RLock())  # its own is a semaphore that a fork would leave behind
gc.collect()
gc.freeze()  # what is imported stays: collections of a trial need not go through it
