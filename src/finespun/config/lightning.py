"""Arguments of Lightning's Trainer and its callbacks in YAML: which may be set where, and why the others may not.

`runtime.lightning` takes what cannot change a result, `trainer.lightning` what can, `trainer.callbacks` a list of `_target_`s.
Names are checked against the Trainer's own signature, values by Lightning when a stage builds it.
"""

from __future__ import annotations

from collections.abc import Iterator

from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.errors import did_you_mean, listed

TRAINER = "pytorch_lightning.trainer.Trainer"
ALLOWED = {
    "runtime": {"profiler", "detect_anomaly", "enable_model_summary"},
    "trainer": {"limit_train_batches", "limit_val_batches", "max_steps", "val_check_interval", "check_val_every_n_epoch"},
}
REFUSED = {
    "accelerator": "set runtime.accelerator",
    "accumulate_grad_batches": "it would change the effective batch; set runtime.device_batch_size, which does not",
    "barebones": "it would switch off checkpoints and metrics",
    "benchmark": "it chooses kernels by timing them, and the same inputs would no longer end in the same bits",
    "callbacks": "set trainer.callbacks",
    "default_root_dir": "checkpoints lie in .finespun/, outside of what DVC deletes",
    "deterministic": "it is always on: the same inputs end in the same bits",
    "devices": "set runtime.devices",
    "enable_checkpointing": "checkpoints are always saved; set runtime.checkpoint_seconds",
    "enable_progress_bar": "set runtime.progress_bar",
    "fast_dev_run": "it would train without checkpoints; take runtime: debug",
    "gradient_clip_algorithm": "gradients are clipped by their norm; set trainer.gradient_clip_norm",
    "gradient_clip_val": "set trainer.gradient_clip_norm",
    "inference_mode": "it is always on",
    "limit_predict_batches": "no stage predicts by it",
    "limit_test_batches": "the test split is evaluated whole",
    "log_every_n_steps": "each step is recorded",
    "logger": "metrics go to MLflow by way of a file, so that a dead server costs nothing; set runtime.tracking_uri",
    "max_epochs": "set trainer.max_epochs",
    "max_time": "a run that ends by the clock ends elsewhere each time; set trainer.max_epochs or max_steps",
    "min_epochs": "set trainer.early_stopping_patience",
    "min_steps": "set trainer.early_stopping_patience",
    "num_nodes": "set runtime.nodes",
    "num_sanity_val_steps": "the longest batches are tried before training anyhow",
    "overfit_batches": "it replaces the sampler; set data.limit.rows",
    "plugins": "checkpoints are verified and exact only through finespun's own",
    "precision": "set trainer.precision",
    "reload_dataloaders_every_n_epochs": "a run that is resumed would begin its epoch anew",
    "strategy": "set runtime.strategy",
    "sync_batchnorm": "the result would depend on the number of devices in another way than documented",
    "use_distributed_sampler": "each row counts once on any number of devices through finespun's own sampler",
}
IN_SHARDS, COPIES = "runtime.strategy is fsdp", "runtime.strategy: ddp"
REFUSED_CALLBACKS = {
    "ModelCheckpoint": "checkpoints are saved, verified and resumed anyhow; set runtime.checkpoint_seconds",
    "OnExceptionCheckpoint": "an interrupted run saves a checkpoint anyhow",
    "EarlyStopping": "set trainer.early_stopping_patience",
    "EMAWeightAveraging": "set trainer.ema_decay",
    "WeightAveraging": "set trainer.ema_decay",
    "StochasticWeightAveraging": "set trainer.ema_decay",
    "GradientAccumulationScheduler": "it would change the effective batch",
    "BackboneFinetuning": "take strategy: gradual; this one freezes again when a run is resumed",
    "BaseFinetuning": "take strategy: gradual; this one freezes again when a run is resumed",
    "Timer": "a run that ends by the clock ends elsewhere each time; set trainer.max_epochs",
    "BatchSizeFinder": "it would change the effective batch; set runtime.device_batch_size",
    "LearningRateFinder": "it would change the rate behind the configuration's back; search it with `finespun run -m`",
    "LearningRateMonitor": "rates are recorded with each step anyhow",
    "DeviceStatsMonitor": "it needs Lightning's logger, which is off",
    "TQDMProgressBar": "set runtime.progress_bar",
    "RichProgressBar": "set runtime.progress_bar",
    "ModelPruning": "the saved folder would not load in plain transformers",
}


def problems(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields (key, problem) for every argument and callback that cannot be given to the Trainer."""
    known = targets.signature(TRAINER)
    assert known, f"{TRAINER} has moved"
    for section, given in (("runtime", config.runtime.lightning), ("trainer", config.trainer.lightning)):
        for name in given:
            problem = _problem(section, name, known)
            if problem:
                yield f"{section}.lightning.{name}", problem
    yield from _sharding(config)
    every = config.trainer.lightning.get("check_val_every_n_epoch", 1)
    if isinstance(every, int) and every > config.trainer.max_epochs:
        yield (
            "trainer.lightning.check_val_every_n_epoch",
            f"{every} is more than trainer.max_epochs: nothing would be validated",
        )
    for number, callback in enumerate(config.trainer.callbacks):
        reason = REFUSED_CALLBACKS.get(callback.target.rpartition(".")[2])
        found = (
            [("_target_", f"{callback.target}: {reason}")]
            if reason
            else targets.check("callbacks", callback, also=config.runtime.allow_targets)
        )
        yield from ((f"trainer.callbacks.{number}.{key}", problem) for key, problem in found)


def _sharding(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields what makes no sense with a model in shards."""
    if config.runtime.strategy != "fsdp":
        return
    if config.trainer.ema_decay:
        yield "trainer.ema_decay", f"{IN_SHARDS}: the average is a copy of the whole model; set it to null, or {COPIES}"
    if config.trainer.compile:
        yield (
            "trainer.compile",
            f"{IN_SHARDS}: the graph would break wherever a block is gathered; set it to false, or {COPIES}",
        )


def _problem(section: str, name: str, known: set[str]) -> str | None:
    if name in ALLOWED[section]:
        return None
    other = next((each for each, names in ALLOWED.items() if name in names), None)
    if other:
        change = "changes results" if other == "trainer" else "cannot change a result"
        return f"{change}; set {other}.lightning.{name}"
    if name in known:
        return f"makes no sense here: {REFUSED.get(name, 'finespun sets it itself')}"
    return f"Lightning's Trainer has no such argument{did_you_mean(name, known)}; here may be set: {listed(ALLOWED[section])}"
