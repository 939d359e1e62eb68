"""finetune: a pretrained model and prepared data become models/finetuned/, a transformers folder, and an MLflow run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
import transformers

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import declared_sections, read_for_stage, to_plain
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.errors import DivergedError
from finespun.evaluation.predict import predict_split
from finespun.failures import require_writable, while_writing
from finespun.masking import recorded
from finespun.models.addresses import weights_digest
from finespun.models.compatibility import add_embeddings, fitted_together, require_size
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import (
    Loaded,
    load,
    load_processor,
    require_same_pixels,
    require_same_tokens,
    with_head_dropout,
)
from finespun.stages import finished
from finespun.stages.launching import on_devices
from finespun.strategies.base import Tuning
from finespun.tasks.base import Encoder, Task
from finespun.tracking.client import Run, Tracker, new_key, run_name
from finespun.tracking.earlier import localised
from finespun.tracking.lineage import input_digests, require_unchanged, stage_digest, tags
from finespun.tracking.model_run import log_fine_tuned
from finespun.tracking.untracked import Untracked
from finespun.training import target_units
from finespun.training.checkpoints import Store, size_of
from finespun.training.data_loaders import EVALUATION_ROWS, make_loader
from finespun.training.fit import Fitted, fit
from finespun.training.frozen.head_inputs import few_rows
from finespun.training.history import Sink
from finespun.training.lightning.devices import Hardware, choose
from finespun.training.lightning.launching import is_worker, rank
from finespun.training.lightning.sharding import from_rank_zero


def run(artifacts: Artifacts) -> None:
    """Trains from the pretrained weights, or from the newest checkpoint of the very same inputs."""
    config = read_for_stage(artifacts, "finetune")
    images = targets.build("task", config.task).processor == "AutoImageProcessor"
    hardware = choose(config.runtime, config.trainer.precision, images=images)
    if not is_worker() and finished.take(artifacts, "finetune", lambda: _digest(config, artifacts, hardware)):
        return
    stall_minutes = config.runtime.stall_minutes
    on_devices("finetune", artifacts, hardware, lambda: finetune(config, artifacts, hardware), stall_minutes=stall_minutes)


def finetune(config: RunConfig, artifacts: Artifacts, hardware: Hardware) -> None:
    """Does the stage in one of its processes; rank zero holds the lock, writes, and talks to MLflow."""
    folder, inputs = _inputs(config, artifacts)
    prepared = PreparedData(artifacts.prepared).verified("train", "val")
    store = Store(artifacts.state / "checkpoints" / stage_digest(artifacts, "finetune", config, inputs, **hardware.arithmetic))
    train = partial(_train, config, folder, prepared, hardware, store, features=_features(artifacts, inputs, hardware))
    if rank():
        train(sink=lambda _metrics, _step: None)
        return
    require_writable(store.folder, artifacts.finetuned, *([artifacts.mlruns] if config.runtime.tracking else []))
    with store.lock():
        with _open_run(config, artifacts, prepared, store, inputs, hardware) as tracked:
            try:
                fitted, processor, loaded, finish = train(sink=tracked.log)
            except DivergedError:
                store.remove()  # who starts again changes something; the same would end in the same
                raise
            record: dict[str, Any] = {"run_id": tracked.id, "tracking_uri": recorded(config.runtime.tracking_uri)}
            record |= {"columns": prepared.schema["columns"], "trust_remote_code": config.model.trust_remote_code}
            settings = prepared.schema["settings"]
            record["reading"] = {name: settings[name] for name in ("delimiter", "encoding", "quoting")}
            record["reading"] |= {} if settings.get("header", True) else {"header": False}
            _save(
                fitted,
                processor,
                finish,
                store,
                artifacts.finetuned,
                record | {"task": to_plain(config, ["task"])["task"], "loaded": str(loaded), "inputs": inputs},
            )
            require_unchanged(artifacts, "finetune", inputs)
            tracked.set_tags({"trained": "; ".join(fitted.phases), "loaded": str(loaded)})
            tracked.log({"best_epoch": fitted.best_epoch, "best_score": fitted.best_score}, fitted.steps)
            log_fine_tuned(tracked, artifacts.finetuned, config, prepared)
        digest = stage_digest(artifacts, "finetune", config, inputs, on=hardware.precision)
        finished.keep(artifacts, "finetune", digest, checkpoints=store.folder.name)
        store.remove()


def _inputs(config: RunConfig, artifacts: Artifacts) -> tuple[Path, dict[str, str]]:
    """Returns the folder of the pretrained model, and the digests of all that the stage reads."""
    model = localised(config.model, config.runtime, artifacts)
    folder = ready(model, artifacts.project, auto_class=targets.build("task", config.task).auto_class)
    return folder, input_digests(artifacts, "finetune") | {"weights": weights_digest(folder)}


def _digest(config: RunConfig, artifacts: Artifacts, hardware: Hardware) -> str:
    """Returns what names the result: DVC, too, takes it whatever the number of threads is."""
    return stage_digest(artifacts, "finetune", config, _inputs(config, artifacts)[1], on=hardware.precision)


def _train(
    config: RunConfig, folder: Path, prepared: PreparedData, hardware: Hardware, store: Store, *, features: Path, sink: Sink
) -> tuple[Fitted, Any, Loaded, Callable[[Any], None]]:
    """Returns what was trained, the processor to be saved with it, where it began, and what a merged model still needs."""
    begun = from_rank_zero(partial(_begin, config, folder, prepared), hardware)
    task, encoder = begun.task, begun.encoder
    fitted = fit(
        config=config, tuning=begun.tuning, task=task, prepared=prepared, encoder=encoder, hardware=hardware, store=store,
        sink=sink, features=features / begun.frozen,
    )  # fmt: skip
    if task.decides:
        _decide(task, fitted, prepared, encoder, config)
    tried = make_loader(prepared, "val", task=task, encoder=encoder, step_rows=EVALUATION_ROWS, runtime=config.runtime)
    return fitted, begun.processor, begun.loaded, partial(target_units.fold, task, tried=few_rows(tried).inputs)


class Begun(NamedTuple):
    """What training begins with; `frozen` is the digest of what the seed drew and will never train."""

    task: Task
    tuning: Tuning
    encoder: Encoder
    processor: Any
    loaded: Loaded
    frozen: str


def _begin(config: RunConfig, folder: Path, prepared: PreparedData) -> Begun:
    task, strategy = targets.build("task", config.task), targets.build("strategy", config.strategy)
    task = task.fitted(prepared.open("train"), prepared.labels)
    model, encoder, processor, loaded, drawn = _ready(config, task, folder, prepared)
    if rank() == 0:
        print(f"weights: {loaded}", flush=True)  # noqa: T201
    task = target_units.take_up(task, model, loaded)
    tuning = strategy.tune(model)
    return Begun(task, tuning, encoder, processor, loaded, _digest_of_frozen(drawn, tuning))


def _ready(
    config: RunConfig, task: Task, folder: Path, prepared: PreparedData
) -> tuple[Any, Encoder, Any, Loaded, dict[str, torch.Tensor]]:  # fmt: skip
    """Loads model and processor and makes sure that they and the rows fit; also returns the tensors that the seed drew."""
    encoder = task.encoder(folder)
    trust = config.model.trust_remote_code
    processor = load_processor(task.processor, folder, task.processor_options(encoder), trust_remote_code=trust)
    torch.manual_seed(config.seed)  # the new head
    dropout = with_head_dropout(folder, config.model.head_dropout, trust_remote_code=trust)
    model, loaded = load(
        folder, auto_class=task.auto_class, options=task.model_options(prepared.labels) | dropout, new_head=True,
        allow_partial=config.model.allow_partial, trust_remote_code=trust,
    )  # fmt: skip
    grown: list[str] = []
    if task.processor == "AutoTokenizer":
        require_same_tokens(processor, task, prepared.examples("train", 16), folder)
        changes, grown = add_embeddings(model, processor, folder)
        rows = pa.concat_tables([prepared.telling("train"), prepared.telling("val")], promote_options="permissive")
        encoder, more = fitted_together(model, processor, task=task, encoder=encoder, rows=rows, folder=folder)
        loaded = replace(loaded, changes=[*changes, *more])
    else:
        require_same_pixels(processor, encoder, folder)
        require_size(model, encoder.size, folder)
    drawn = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name in {*loaded.new, *grown}}
    return model, encoder, processor, loaded, drawn


def _decide(task: Task, fitted: Fitted, prepared: PreparedData, encoder: Encoder, config: RunConfig) -> None:
    """Lets the task choose on the validation split what its answers depend on; the model's configuration keeps it."""
    model: Any = fitted.tuning.model
    outputs = predict_split(
        model=model, task=task, encoder=encoder, prepared=prepared, split="val", runtime=config.runtime
    )  # fmt: skip
    if outputs is not None:
        model.config.update(task.decide(prepared.open("val"), outputs, prepared.labels))


def _features(artifacts: Artifacts, inputs: dict[str, str], hardware: Hardware) -> Path:
    """Activations are a function of tokens, weights and arithmetic: trials that share those share what is kept here."""
    read = [inputs[f"data/prepared/{split}.arrow"] for split in ("train", "val")] + [inputs["weights"], hardware.precision]
    read += [torch.__version__, transformers.__version__]
    return artifacts.state / "features" / hashlib.sha256("\n".join(read).encode()).hexdigest()[:32]


def _digest_of_frozen(drawn: dict[str, torch.Tensor], tuning: Tuning) -> str:
    """Of tensors that no file holds, those that never train: the seed draws them, and activations are a function of them."""
    trained = {id(parameter) for group in tuning.groups for parameter in group.parameters.values()}
    digest = hashlib.sha256()
    for name, tensor in drawn.items():
        if id(tensor) not in trained:
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def _open_run(
    config: RunConfig, artifacts: Artifacts, prepared: PreparedData, store: Store, inputs: dict[str, str], hardware: Hardware
) -> Run:
    if not config.runtime.tracking:
        return Untracked()
    tracker = Tracker(config.runtime, artifacts)
    key, run_id = store.note("run"), store.note("run_id")
    again = tracker.resume(run_id) if run_id else tracker.find(key) if key else None
    if again is None:
        key = new_key()
        store.note("run", key)
        again = _start_run(config, artifacts, prepared, inputs, hardware, tracker, key)
    store.note("run_id", again.id)
    return again


def _start_run(
    config: RunConfig, artifacts: Artifacts, prepared: PreparedData, inputs: dict[str, str], hardware: Hardware,
    tracker: Tracker, key: str,
) -> Run:  # fmt: skip
    settings = to_plain(config, declared_sections(artifacts.pipeline, "finetune"))
    settings |= {"data": prepared.schema["settings"], "precision": hardware.precision}
    lineage = tags(artifacts, inputs, settings) | {"hardware": str(hardware)}
    started = tracker.start(run_name(prepared.schema["name"]), tags=lineage, params=settings, key=key)
    for split in ("train", "val"):
        started.log_data(split, prepared.schema)
    return started


def _save(
    fitted: Fitted, processor: Any, finish: Callable[[Any], None], store: Store, folder: Path, record: dict[str, Any]
) -> None:  # fmt: skip
    model: Any = fitted.tuning.model
    with while_writing(folder, needed=size_of(model.state_dict())):
        folder.mkdir(parents=True, exist_ok=True)
        if fitted.tuning.merge:
            model = fitted.tuning.merge(model, folder)
        finish(model)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        shutil.copyfile(store.folder / "history.csv", folder / "history.csv")
        best = {"best_epoch": fitted.best_epoch, "best_score": fitted.best_score, "steps": fitted.steps}
        whole = record | {"trained": fitted.phases} | best
        (folder / "run.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
