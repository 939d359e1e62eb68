"""What training begins with: model, processor, task and strategy, loaded and made to fit each other and the rows."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import ITEMS, PreparedData
from finespun.models.compatibility import add_embeddings, fitted_together, require_size
from finespun.models.pretrained import (
    Loaded,
    load,
    load_processor,
    require_same_pixels,
    require_same_tokens,
    with_head_dropout,
)
from finespun.models.quantized import in_four_bits
from finespun.strategies.base import Strategy, Tuning
from finespun.tasks.base import Encoder, Task
from finespun.training import target_units
from finespun.training.lightning.devices import choose_accelerator
from finespun.training.lightning.launching import rank, world_size


class Begun(NamedTuple):
    """What training begins with; `frozen` is the digest of what the seed drew and will never train."""

    task: Task
    tuning: Tuning
    encoder: Encoder
    processor: Any
    loaded: Loaded
    frozen: str


def begin(config: RunConfig, folder: Path, prepared: PreparedData) -> Begun:
    """Loads what the configuration names, makes sure that it fits the rows, and says what trains; for rank zero alone."""
    task: Task = targets.build("task", config.task)
    strategy: Strategy = targets.build("strategy", config.strategy)
    task = task.fitted(prepared.open("train"), prepared.labels)
    encoder = task.encoder(folder)  # it tells a task how long a window of sound is
    options = task.model_options(prepared.labels)
    if strategy.four_bit:
        options = options | in_four_bits(choose_accelerator(config.runtime.accelerator), devices=world_size())
    model, encoder, processor, loaded, drawn = _ready(config, task, encoder, folder, prepared, options)
    if rank() == 0:
        print(f"weights: {loaded}", flush=True)  # noqa: T201
    task = target_units.take_up(task, model, loaded)
    tuning = strategy.tune(model)
    return Begun(task, tuning, encoder, processor, loaded, _digest_of_frozen(drawn, tuning))


def _ready(
    config: RunConfig, task: Task, encoder: Encoder, folder: Path, prepared: PreparedData, options: dict[str, Any]
) -> tuple[Any, Encoder, Any, Loaded, dict[str, torch.Tensor]]:  # fmt: skip
    """Loads model and processor and makes sure that they and the rows fit; also returns the tensors that the seed drew."""
    trust = config.model.trust_remote_code
    processor = load_processor(task.processor, folder, task.processor_options(encoder), trust_remote_code=trust)
    torch.manual_seed(config.seed)  # the new head
    dropout = with_head_dropout(folder, config.model.head_dropout, trust_remote_code=trust)
    model, loaded = load(
        folder, auto_class=task.auto_class, options=options | dropout, new_head=True,
        allow_partial=config.model.allow_partial or config.model.from_scratch, trust_remote_code=trust,
    )  # fmt: skip
    tokens = task.processor == "AutoTokenizer"
    changes, grown = add_embeddings(model, processor, folder) if tokens else ([], [])
    if tokens and task.from_logits:
        require_same_tokens(processor, task, prepared.examples("train", 16), folder)
        rows = pa.concat_tables([prepared.telling("train"), prepared.telling("val")], promote_options="permissive")
        encoder, more = fitted_together(model, processor, task=task, encoder=encoder, rows=rows, folder=folder)
        changes = [*changes, *more]
    elif task.processor == "AutoImageProcessor":
        require_same_pixels(processor, encoder, folder)
        require_size(model, encoder.size, folder)
    task.equip(model, encoder, folder)
    if task.ranks:
        model = task.built(model, encoder, prepared.open(ITEMS))
    loaded = replace(loaded, changes=changes) if tokens else loaded
    drawn = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name in {*loaded.new, *grown}}
    return model, encoder, processor, loaded, drawn


def _digest_of_frozen(drawn: dict[str, torch.Tensor], tuning: Tuning) -> str:
    """Of tensors that no file holds, those that never train: the seed draws them, and activations are a function of them."""
    trained = {id(parameter) for group in tuning.groups for parameter in group.parameters.values()}
    digest = hashlib.sha256()
    for name, tensor in drawn.items():
        if id(tensor) not in trained:
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()[:16]
