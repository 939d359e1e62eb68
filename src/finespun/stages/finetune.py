"""finetune: a pretrained model and prepared data become models/finetuned/, a transformers folder, and an MLflow run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import declared_sections, read_for_stage, to_plain
from finespun.config.sections import RunConfig
from finespun.data.prepared import ITEMS, PreparedData
from finespun.errors import DivergedError, PrunedError
from finespun.evaluation.predict import predict_split, with_items
from finespun.failures import require_writable
from finespun.masking import recorded
from finespun.models.addresses import weights_digest
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import Loaded
from finespun.stages import finished
from finespun.stages.launching import on_devices
from finespun.stages.saving import save
from finespun.stages.slurm import hand_over
from finespun.tasks.base import Encoder, Task
from finespun.tracking.client import Run
from finespun.tracking.earlier import localised
from finespun.tracking.lineage import input_digests, lineage, require_unchanged, stage_digest
from finespun.tracking.model_run import log_fine_tuned, open_run_of_training
from finespun.tracking.names import run_title
from finespun.tracking.system_metrics import watched
from finespun.tracking.trials.trial import Trial, Watch
from finespun.training import target_units
from finespun.training.begin import begin
from finespun.training.checkpoints import Store
from finespun.training.cost import training_cost
from finespun.training.data_loaders import EVALUATION_ROWS, make_loader
from finespun.training.fit import Fitted, fit
from finespun.training.frozen.head_inputs import few_rows
from finespun.training.history import History, Sink
from finespun.training.lightning.devices import Hardware, choose
from finespun.training.lightning.launching import is_worker, rank
from finespun.training.lightning.sharding import from_rank_zero, require_same_inputs

Trained = tuple[Fitted, Any, Loaded, Callable[[Any], None]]


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
    prepared = PreparedData(artifacts.prepared).verified("train", "val", ITEMS)
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
        with open_run_of_training(config, artifacts, prepared, store, known, settings, str(hardware), trial) as tracked:
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
        save(fitted, processor, finish, store, artifacts.finetuned, record, prepared.schema)
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
    settings = prepared.schema["settings"]
    header = {} if settings.get("header", True) else {"header": False}
    return {
        "tracking_uri": recorded(config.runtime.tracking_uri),
        "columns": prepared.schema["columns"],
        "trust_remote_code": config.model.trust_remote_code,
        "reading": {name: settings[name] for name in ("delimiter", "encoding", "quoting")} | header,
        "histories": settings.get("histories"),
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
    begun = from_rank_zero(partial(begin, config, folder, prepared), hardware)
    task, encoder = begun.task, begun.encoder
    fitted = fit(
        config=config, tuning=begun.tuning, task=task, prepared=prepared, encoder=encoder, hardware=hardware, store=store,
        sink=sink, features=features / begun.frozen,
    )  # fmt: skip
    if task.decides:
        _decide(task, fitted, prepared, encoder, config)
    tried = make_loader(prepared, "val", task=task, encoder=encoder, step_rows=EVALUATION_ROWS, runtime=config.runtime)
    if task.ranks:
        task = with_items(task, model=fitted.tuning.model, encoder=encoder, prepared=prepared, runtime=config.runtime)
    fitted = replace(fitted, beside=task.write_beside)
    return fitted, begun.processor, begun.loaded, partial(target_units.fold, task, tried=few_rows(tried).inputs)


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


def _settings(config: RunConfig, artifacts: Artifacts, prepared: PreparedData, hardware: Hardware) -> dict[str, Any]:
    """Returns all that was chosen, as MLflow's parameters show it."""
    settings = to_plain(config, declared_sections(artifacts.pipeline, "finetune"))
    return settings | {"data": prepared.schema["settings"], "precision": hardware.precision}
