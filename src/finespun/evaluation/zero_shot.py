"""What the pretrained model writes without any fine-tuning: it tells whether fine-tuning helped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from finespun.config import targets
from finespun.config.sections import ModelConfig, RuntimeConfig, Target
from finespun.data.prepared import PreparedData
from finespun.evaluation.predict import predict_split, with_items
from finespun.models.compatibility import add_embeddings
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load_model, load_processor
from finespun.tasks.base import Encoder, Outputs, Task
from finespun.training.lightning.devices import choose
from finespun.training.lightning.sharding import from_rank_zero

NAME = "zero_shot"


def zero_shot(
    *, task: Target, model: ModelConfig, project: Path, prepared: PreparedData, split: str, runtime: RuntimeConfig
) -> tuple[Task, Outputs] | None:
    """Returns the pretrained model's outputs for a split, made just as the fine-tuned one's are, and the task that reads them.

    None on other ranks than zero.

    Raises:
        ModelError: the pretrained model is not there, or lacks weights that it must have to write.
    """
    read = partial(_pretrained, task, model, project, prepared.labels)
    pretrained, built, encoder = from_rank_zero(read, choose(runtime, "32-true"))
    common: dict[str, Any] = {"model": pretrained, "encoder": encoder, "prepared": prepared, "runtime": runtime}
    if built.ranks:
        built = with_items(built, **common)
    outputs = predict_split(task=built, split=split, **common)
    return None if outputs is None else (built, outputs)


def _pretrained(task: Target, model: ModelConfig, project: Path, labels: Sequence[str]) -> tuple[Any, Task, Encoder]:
    built = targets.build("task", task)
    folder = ready(model, project, auto_class=built.auto_class)
    encoder, trust = built.encoder(folder), model.trust_remote_code
    options = built.model_options(labels)
    found = load_model(folder, auto_class=built.auto_class, options=options, trust_remote_code=trust)
    if built.processor == "AutoTokenizer":
        processor = load_processor(built.processor, folder, built.processor_options(encoder), trust_remote_code=trust)
        add_embeddings(found, processor, folder)
    built.equip(found, encoder, folder)
    return found, built, encoder
