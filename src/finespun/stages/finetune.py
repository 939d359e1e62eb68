"""finetune: a pretrained model and prepared data become models/finetuned/, a transformers folder, and an MLflow run."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import declared_sections, read_for_stage, to_plain
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.models.addresses import resolve, weights_digest
from finespun.models.pretrained import load_model, load_tokenizer, pad_token_id, require_same_tokens, with_head_dropout
from finespun.stages.launching import on_devices
from finespun.tracking.client import Run, Tracker, run_name
from finespun.tracking.lineage import input_digests, require_unchanged, stage_digest, tags
from finespun.training.callbacks import Sink
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted, fit
from finespun.training.hardware import Hardware, choose
from finespun.training.launch import rank

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(artifacts: Artifacts) -> None:
    """Trains from the pretrained weights, or from the newest checkpoint of the very same inputs."""
    config = read_for_stage(artifacts, "finetune")
    hardware = choose(config.runtime, config.trainer.precision)
    on_devices("finetune", artifacts, hardware, lambda: finetune(config, artifacts, hardware))


def finetune(config: RunConfig, artifacts: Artifacts, hardware: Hardware) -> None:
    """Does the stage in one of its processes; rank zero holds the lock, writes, and talks to MLflow."""
    prepared = PreparedData(artifacts.prepared)
    folder = resolve(config.model, artifacts.project, weights=True)
    inputs = input_digests(artifacts, "finetune") | {"weights": weights_digest(folder)}
    store = Store(artifacts.state / "checkpoints" / stage_digest(artifacts, "finetune", config, inputs, on=hardware.precision))
    train = partial(_train, config, folder, prepared, hardware, store, features=_features(artifacts, inputs, hardware))
    if rank():
        train(sink=lambda _metrics, _step: None)
        return
    with store.lock():
        with _open_run(config, artifacts, prepared, store, inputs, hardware) as tracked:
            fitted, tokenizer = train(sink=tracked.log)
            record = {"run_id": tracked.id, "tracking_uri": config.runtime.tracking_uri, "columns": prepared.schema["columns"]}
            _save(fitted, tokenizer, store, artifacts.finetuned, record | {"task": config.task.target, "inputs": inputs})
            require_unchanged(artifacts, "finetune", inputs)
            tracked.set_tags({"trained": "; ".join(fitted.phases)})
            tracked.log({"best_epoch": fitted.best_epoch, "best_score": fitted.best_score}, fitted.steps)
            tracked.log_model(artifacts.finetuned, prepared.open("train")["text"][:3].to_pylist())
        store.remove()


def _train(
    config: RunConfig, folder: Path, prepared: PreparedData, hardware: Hardware, store: Store, *, features: Path, sink: Sink
) -> tuple[Fitted, PreTrainedTokenizerBase]:
    task, strategy = targets.build("task", config.task), targets.build("strategy", config.strategy)
    tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = task.max_length
    require_same_tokens(tokenizer, prepared.open("train").slice(0, 16), folder)
    torch.manual_seed(config.seed)  # the new head
    options = task.model_options(prepared.labels) | with_head_dropout(folder, config.model.head_dropout)
    model = load_model(
        folder, auto_class=task.auto_class, options=options, new_head=True,
        trust_remote_code=config.model.trust_remote_code,
    )  # fmt: skip
    tuning = strategy.tune(model)
    fitted = fit(
        config=config, tuning=tuning, task=task, prepared=prepared,
        pad_token_id=pad_token_id(tokenizer), hardware=hardware, store=store, sink=sink, features=features,
    )  # fmt: skip
    return fitted, tokenizer


def _features(artifacts: Artifacts, inputs: dict[str, str], hardware: Hardware) -> Path:
    """Activations are a function of tokens, weights and arithmetic: trials that share those share them."""
    read = [inputs[f"data/prepared/{split}.arrow"] for split in ("train", "val")] + [inputs["weights"], hardware.precision]
    return artifacts.state / "features" / hashlib.sha256("\n".join(read).encode()).hexdigest()[:32]


def _open_run(
    config: RunConfig, artifacts: Artifacts, prepared: PreparedData, store: Store, inputs: dict[str, str], hardware: Hardware
) -> Run:
    tracker = Tracker(config.runtime, artifacts)
    known = store.note("run")
    again = tracker.resume(known) if known else None
    if again is not None:
        return again
    settings = to_plain(config, declared_sections(artifacts.pipeline, "finetune"))
    settings |= {"data": prepared.schema["settings"], "precision": hardware.precision}
    lineage = tags(artifacts, inputs, settings) | {"hardware": str(hardware)}
    started = tracker.start(run_name(prepared.schema["name"]), tags=lineage, params=settings)
    store.note("run", started.id)
    for split in ("train", "val"):
        started.log_data(split, prepared.schema)
    return started


def _save(fitted: Fitted, tokenizer: Any, store: Store, folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = fitted.tuning.model
    if fitted.tuning.merge:
        model = fitted.tuning.merge(model, folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.copyfile(store.folder / "history.csv", folder / "history.csv")
    best = {"trained": fitted.phases, "best_epoch": fitted.best_epoch, "best_score": fitted.best_score, "steps": fitted.steps}
    (folder / "run.json").write_text(json.dumps(record | best, indent=2) + "\n", encoding="utf-8")
