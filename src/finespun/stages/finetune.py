"""finetune: a pretrained model and prepared data become models/finetuned/, a transformers folder, and an MLflow run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
import transformers
import yaml

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import declared_sections, read_for_stage, to_plain
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.errors import DivergedError, PrunedError
from finespun.evaluation.predict import predict_split
from finespun.failures import require_writable, while_writing
from finespun.kept import file_digest
from finespun.masking import masked, recorded
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
from finespun.report import card
from finespun.stages import finished
from finespun.stages.launching import on_devices
from finespun.stages.slurm import hand_over
from finespun.strategies.base import Tuning
from finespun.tasks.base import Encoder, Task
from finespun.tracking.client import Run, Tracker, new_key
from finespun.tracking.earlier import localised
from finespun.tracking.lineage import input_digests, lineage, require_unchanged, stage_digest, tags
from finespun.tracking.model_run import log_fine_tuned
from finespun.tracking.names import command, run_title
from finespun.tracking.system_metrics import watched
from finespun.tracking.trials.trial import Trial, Watch
from finespun.tracking.untracked import Untracked
from finespun.training import target_units
from finespun.training.checkpoints import Store, size_of
from finespun.training.cost import training_cost
from finespun.training.data_loaders import EVALUATION_ROWS, make_loader
from finespun.training.fit import Fitted, fit
from finespun.training.frozen.head_inputs import few_rows
from finespun.training.history import History, Sink
from finespun.training.lightning.devices import Hardware, choose
from finespun.training.lightning.launching import is_worker, rank
from finespun.training.lightning.sharding import from_rank_zero, require_same_inputs

Trained = tuple[Fitted, Any, Loaded, Callable[[Any], None]]
TRIAL_QUIET_SECONDS = 20.0  # a shorter trial's record is sent by its sweep, which has the store open


def run(artifacts: Artifacts) -> None:
    """Trains from the pretrained weights, or from the newest checkpoint of the very same inputs."""
    config = read_for_stage(artifacts, "finetune")
    if hand_over("finetune", artifacts, config.runtime):
        return
    images = targets.build("task", config.task).processor == "AutoImageProcessor"
    hardware = choose(config.runtime, config.trainer.precision, images=images)
    if not is_worker() and finished.take(artifacts, "finetune", lambda: _digest(config, artifacts, hardware)):
        return
    on_devices("finetune", artifacts, hardware, lambda: finetune(config, artifacts, hardware), runtime=config.runtime)


def finetune(config: RunConfig, artifacts: Artifacts, hardware: Hardware) -> None:
    """Does the stage in one of its processes; rank zero holds the lock, writes, and talks to MLflow."""
    folder, inputs = _inputs(config, artifacts)
    require_same_inputs(inputs, hardware)
    prepared = PreparedData(artifacts.prepared).verified("train", "val")
    store = Store(artifacts.state / "checkpoints" / stage_digest(artifacts, "finetune", config, inputs, **hardware.arithmetic))
    train = partial(_train, config, folder, prepared, hardware, store, features=_features(artifacts, inputs, hardware))
    if rank():
        train(sink=lambda _metrics, _step: None)
        return
    require_writable(store.folder, artifacts.finetuned, *([artifacts.mlruns] if config.runtime.tracking else []))
    trial = Trial.of(artifacts)
    settings = _settings(config, artifacts, prepared, hardware)
    known = lineage(artifacts, inputs, settings, code=trial.code if trial else None)
    with store.lock():
        with _open_run(config, artifacts, prepared, store, known, settings, hardware, trial) as tracked:
            watch = Watch(trial, artifacts, tracked.log) if trial else None
            began = time.perf_counter()
            try:
                with watched(tracked, config.runtime):
                    trained = train(sink=watch or tracked.log)
            except (DivergedError, PrunedError) as error:
                tracked.set_tags({"ended": str(error)})
                store.remove()  # who starts again changes something; the same would end in the same
                raise
            about = {"inputs": inputs, "lineage": known, "settings": settings}
            _keep(config, artifacts, trained, store, tracked, watch, about, time.perf_counter() - began)
        digest = stage_digest(artifacts, "finetune", config, inputs, on=hardware.precision)
        finished.keep(artifacts, "finetune", digest, checkpoints=store.folder.name)
        store.remove()


def _keep(
    config: RunConfig, artifacts: Artifacts, trained: Trained, store: Store, tracked: Run, watch: Watch | None,
    known: dict[str, Any], seconds: float,
) -> None:  # fmt: skip
    """Saves and records what was trained; of a sweep's trials only the best are saved, and logged when they are measured."""
    fitted, processor, loaded, finish = trained
    prepared = PreparedData(artifacts.prepared)
    cost = training_cost(fitted.tuning.model, History(store.folder / "history.csv").rows(), seconds)
    name = watch.trial.name if watch else run_title(config, artifacts, prepared.schema["name"])
    record = {"run_id": tracked.id, "name": name, "loaded": str(loaded)} | _record(config, prepared) | known | {"cost": cost}
    if watch is None or watch.is_among_the_best(fitted.best_score):
        _save(fitted, processor, finish, store, artifacts.finetuned, record, prepared.schema)
    require_unchanged(artifacts, "finetune", known["inputs"])
    _tell(tracked, fitted, loaded, cost)
    if watch is None:
        log_fine_tuned(tracked, artifacts.finetuned, config, prepared)
        return
    size = sum(each.numel() for group in fitted.tuning.groups for each in group.parameters.values())
    watch.close(best_score=fitted.best_score, trained_parameters=size, run_id=tracked.id, steps=fitted.steps)


def _tell(tracked: Run, fitted: Fitted, loaded: Loaded, cost: Mapping[str, float]) -> None:
    """Adds to the run what came of training."""
    tracked.set_tags({"trained": "; ".join(fitted.phases), "loaded": str(loaded)})
    best = {"best_epoch": fitted.best_epoch, "best_score": fitted.best_score}
    tracked.log(best | {f"perf/{name}": value for name, value in cost.items()}, fitted.steps)


def _record(config: RunConfig, prepared: PreparedData) -> dict[str, Any]:
    """Returns what is needed to use the model: its task, its columns, how its rows were read."""
    return {
        "tracking_uri": recorded(config.runtime.tracking_uri),
        "columns": prepared.schema["columns"],
        "trust_remote_code": config.model.trust_remote_code,
        "reading": {name: prepared.schema["settings"][name] for name in ("delimiter", "encoding", "quoting")},
        "task": to_plain(config, ["task"])["task"],
        "auto_class": targets.build("task", config.task).auto_class,
    }


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
) -> Trained:
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
    loaded = replace(loaded, changes=changes) if tokens else loaded
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
    config: RunConfig, artifacts: Artifacts, prepared: PreparedData, store: Store, known: dict[str, Any],
    settings: dict[str, Any], hardware: Hardware, trial: Trial | None,
) -> Run:  # fmt: skip
    if not config.runtime.tracking:
        return Untracked()
    tracker = Tracker(config.runtime, artifacts)
    key, run_id = store.note("run"), store.note("run_id")
    describe = partial(_describe, artifacts, prepared, known, settings, hardware)
    if trial and trial.run_id:
        again = Run(tracker, trial.run_id, quiet_seconds=TRIAL_QUIET_SECONDS)
        if run_id != trial.run_id:
            describe(again)
    else:
        found = tracker.resume(run_id) if run_id else tracker.find(key) if key else None
        again = found or _start_run(config, artifacts, prepared, tracker, store)
        if found is None:
            describe(again)
    store.note("run_id", again.id)
    return again


def _start_run(config: RunConfig, artifacts: Artifacts, prepared: PreparedData, tracker: Tracker, store: Store) -> Run:
    key = new_key()
    store.note("run", key)
    return tracker.start(run_title(config, artifacts, prepared.schema["name"]), tags={}, params={}, key=key)


def _describe(
    artifacts: Artifacts, prepared: PreparedData, known: dict[str, Any], settings: dict[str, Any],
    hardware: Hardware, run: Run,
) -> None:  # fmt: skip
    run.set_tags(tags(known, prepared.schema, command=command(artifacts)) | {"hardware": str(hardware)})
    run.set_tags({"folder": os.path.relpath(artifacts.out, artifacts.project)})
    run.log_params(settings)
    run.log_texts({"lineage.json": json.dumps(known, indent=2), "config.yaml": yaml.safe_dump(settings, sort_keys=False)})
    for split in ("train", "val"):
        run.log_data(split, prepared.schema)


def _settings(config: RunConfig, artifacts: Artifacts, prepared: PreparedData, hardware: Hardware) -> dict[str, Any]:
    """Returns all that was chosen, as MLflow's parameters show it."""
    settings = to_plain(config, declared_sections(artifacts.pipeline, "finetune"))
    return settings | {"data": prepared.schema["settings"], "precision": hardware.precision}


def _save(
    fitted: Fitted, processor: Any, finish: Callable[[Any], None], store: Store, folder: Path, record: dict[str, Any],
    schema: Mapping[str, Any] | None = None,
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
        weights = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
        whole = record | {"trained": fitted.phases, "weights_files": weights} | best
        (folder / "run.json").write_text(masked(json.dumps(whole, indent=2)) + "\n", encoding="utf-8")
        if schema is not None:
            (folder / "README.md").write_text(masked(card.render(whole, schema)), encoding="utf-8")
