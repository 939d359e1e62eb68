"""A sweep from its command line to its end: checked, begun or gone on with, run, closed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from finespun.artifacts import Artifacts, find_project
from finespun.config.check import check_sweep, flatten
from finespun.config.compose import read_dials, to_plain
from finespun.config.sections import RunConfig, SweepConfig
from finespun.data.sources.source import Source
from finespun.errors import BusyError, ConfigError, FinespunError
from finespun.masking import holds_secret
from finespun.models.addresses import processor_folder
from finespun.sweeps import automatic
from finespun.sweeps.composing import Composer
from finespun.sweeps.loop import Loop, Plan
from finespun.sweeps.processes.trials import named
from finespun.sweeps.processes.workers import MODEL, LocalWorkers, PublishedWorkers, Workers, gpus_here
from finespun.sweeps.record import ParentRun
from finespun.sweeps.space import Space, parse
from finespun.sweeps.study import Goal, Study
from finespun.sweeps.table import table
from finespun.tracking.earlier import localised
from finespun.tracking.trials.studies import address_in, answering, build, open_storage
from finespun.tracking.trials.trial import STORAGE

DEFAULT_TRIALS = 20
AUTO_MINUTES = 60.0
PRUNES_NOTHING = "NopPruner"
OF_NO_IDENTITY = {"runtime", "report", "evaluation"}
MODES: dict[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}


def search(whole: DictConfig, context: HydraContext, function: TaskFunction, arguments: Sequence[str]) -> None:
    """Runs a sweep, or goes on with it.

    Raises:
        ConfigError: a trial's configuration is wrong, or the name is that of another sweep; nothing was trained.
        BusyError: another process runs this sweep.
        FinespunError: no trial succeeded, one failed for a reason of ours, or the sweep was interrupted.
    """
    artifacts = Artifacts(project=find_project(), out=find_project())
    assert isinstance(context.config_loader, ConfigLoaderImpl)
    composer = Composer(context.config_loader, whole, artifacts.conf)
    settings, sampler = _settings(whole), _plain(whole.hydra.sweeper.get("sampler"))
    space = _space(whole, composer, arguments, artifacts, settings)
    base, _ = composer.checked(space.overrides({}))
    composer.check_all((named(drawn), space.overrides(drawn)) for drawn in (space.corners() if sampler else space.grid()))
    goals = _goals(settings, base)
    identity = _identity(space, base, goals, artifacts, adaptive=sampler is not None)
    name = settings.name or f"{Path(base.data.name).stem}-{_digest(identity)[:8]}"
    kept = artifacts.sweeps / name
    kept.mkdir(parents=True, exist_ok=True)
    address = settings.storage or address_in(kept)
    secret = {STORAGE: address} if settings.storage and holds_secret(settings.storage) else {}
    plan = _plan(whole, settings, base, artifacts, goals, name=name, storage="" if secret else address, trials=_trials(
        settings, space, adaptive=sampler is not None))  # fmt: skip
    with _alone(kept, name), answering(address):
        study = Study.open(
            open_storage(address), name, goals=goals, space=space, sampler=sampler, seed=base.seed, identity=identity
        )  # fmt: skip
        _note(kept, plan)
        given = (each.lstrip("+") for each in _said_by_user(arguments, artifacts))
        command = " ".join(["finespun run -m", *given])
        with ParentRun.opened(study, plan, base, artifacts, command) as run, table(plan, study) as shown:
            workers = _workers(whole, context, function, settings, base, artifacts, secret | run.environment)
            Loop(plan, study, composer, workers, run, shown).run()


def _plan(
    whole: DictConfig, settings: SweepConfig, base: RunConfig, artifacts: Artifacts, goals: Sequence[Goal], *, name: str,
    storage: str, trials: int,
) -> Plan:  # fmt: skip
    sampler, pruner = _plain(whole.hydra.sweeper.get("sampler")), _pruner(whole, goals)
    if sampler:
        build(sampler)  # its options are found wrong before the first trial
    return Plan(
        name=name, folder=artifacts.project / _folder(whole, name), artifacts=artifacts, goals=goals, trials=trials,
        settings=settings, monitor=str(base.task.options["monitor"]), mode=str(base.task.options["monitor_mode"]),
        storage=storage if pruner else None, pruner=pruner,
    )  # fmt: skip


def _settings(whole: DictConfig) -> SweepConfig:
    settings, problems = check_sweep(OmegaConf.to_container(whole.sweep, resolve=True))
    if settings is None:
        raise ConfigError([f"{key}: {problem}" for key, problem in problems])
    return settings


def _space(
    whole: DictConfig, composer: Composer, arguments: Sequence[str], artifacts: Artifacts, settings: SweepConfig
) -> Space:  # fmt: skip
    said = _said_by_user(arguments, artifacts)
    beneath = list(arguments)[: len(arguments) - len(said)]
    params = _plain(whole.hydra.sweeper.get("params")) or {}
    if settings.space == "auto":
        fixed = [line for line in arguments if not composer.parser.parse_override(line).is_sweep_override()]
        params = automatic.params(composer, fixed, artifacts, settings.minutes or AUTO_MINUTES) | params
    lines = [f"{key}={value}" for key, value in params.items()]
    return parse(composer.parser.parse_overrides([*beneath, *lines, *said]), composer.groups, composer.keys_of)


def _said_by_user(arguments: Sequence[str], artifacts: Artifacts) -> list[str]:
    """Returns the arguments that are not the dials of params.yaml, which `finespun run` puts first."""
    left = list(arguments)
    for dial, value in read_dials(artifacts.params).items():
        if left and left[0] == f"{dial}={value}":
            left.pop(0)
    return left


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node


def _goals(settings: SweepConfig, base: RunConfig) -> list[Goal]:
    monitor, mode = str(base.task.options["monitor"]), str(base.task.options["monitor_mode"])
    metrics = settings.metrics or (monitor,)
    directions = settings.direction or (MODES[mode],)
    return [Goal(metric, direction) for metric, direction in zip(metrics, directions, strict=True)]


def _pruner(whole: DictConfig, goals: Sequence[Goal]) -> dict[str, Any] | None:
    """Returns the pruner's settings; several objectives have none, for Optuna cannot say which trial falls behind."""
    settings = _plain(whole.hydra.sweeper.get("pruner"))
    if not settings or len(goals) > 1 or str(settings["_target_"]).endswith(PRUNES_NOTHING):
        return None
    build(settings)
    return dict(settings)


def _identity(
    space: Space, base: RunConfig, goals: Sequence[Goal], artifacts: Artifacts, *, adaptive: bool
) -> dict[str, str]:  # fmt: skip
    """Returns what a sweep of one name must have again: its space, its settings, its data and what it optimises."""
    plain = {section: values for section, values in to_plain(base).items() if section not in OF_NO_IDENTITY}
    searched = space.searched
    found = {
        key: str(value) for key, value in flatten(plain)
        if not any(f"{key}.".startswith(f"{each}.") for each in searched)
    }  # fmt: skip
    found |= {f"searched {key}": space.described[key] for key in searched}
    found["rows"] = Source(base.data, artifacts.project).digest()
    found["optimised"] = ", ".join(f"{goal.metric} ({goal.direction})" for goal in goals)
    found["kind"] = "search" if adaptive else "grid"
    return found


def _digest(identity: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _folder(whole: DictConfig, name: str) -> Path:
    raw = OmegaConf.to_container(whole.hydra.sweep, resolve=False)
    assert isinstance(raw, dict)
    OmegaConf.set_readonly(whole, False)
    OmegaConf.set_struct(whole, False)
    whole.sweep.name = name
    return Path(str(whole.hydra.sweep.dir))


def model_type(base: RunConfig, artifacts: Artifacts) -> str:
    """Returns the kind of model that trials load, as transformers calls it; nothing where it is not said."""
    try:
        folder = processor_folder(localised(base.model, base.runtime, artifacts), artifacts.project)
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (FinespunError, OSError, ValueError, KeyError):
        return ""  # the trial will say what is wrong


@contextmanager
def _alone(kept: Path, name: str) -> Iterator[None]:
    with (kept / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise BusyError(f"sweep {name}: process {lock.read().strip()} is running it; wait for it, or end it") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _note(kept: Path, plan: Plan) -> None:
    """Keeps what `finespun sweeps` and `finespun promote` need to find a sweep again; no address with a password."""
    storage = plan.settings.storage
    note = {
        "name": plan.name, "folder": os.path.relpath(plan.folder, plan.artifacts.project),
        "storage": None if storage is None or holds_secret(storage) else storage, "elsewhere": storage is not None,
        "goals": [vars(goal) for goal in plan.goals],
    }  # fmt: skip
    (kept / "sweep.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _trials(settings: SweepConfig, space: Space, *, adaptive: bool) -> int:
    if adaptive:
        return settings.trials or DEFAULT_TRIALS
    points = len(space.grid())
    return min(points, settings.trials or points)


def _workers(
    whole: DictConfig, context: HydraContext, function: TaskFunction, settings: SweepConfig, base: RunConfig,
    artifacts: Artifacts, environment: dict[str, str],
) -> Workers:  # fmt: skip
    target = str(whole.hydra.launcher._target_)
    if target.endswith((".LocalLauncher", ".BasicLauncher")):
        gpus = gpus_here(base.runtime.accelerator)
        if gpus and len(gpus) < settings.gpus_a_trial:
            raise ConfigError([f"sweep.gpus_a_trial: is {settings.gpus_a_trial}, but {len(gpus)} GPUs are here; lower it"])
        parallel = settings.parallel if settings.parallel != "auto" else max(1, len(gpus) // settings.gpus_a_trial)
        if gpus and parallel > len(gpus) // settings.gpus_a_trial:
            gpus = []  # more trials than GPUs: they share them
        environment[MODEL] = model_type(base, artifacts)
        return LocalWorkers(
            artifacts.project, parallel=parallel, gpus=gpus, gpus_a_trial=settings.gpus_a_trial, environment=environment
        )  # fmt: skip
    os.environ.update(environment)  # launchers hand it on
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=function, config=whole)

    def give(number: int, folder: Path, overrides: Sequence[str]) -> list[str]:
        return [*overrides, f"hydra.sweep.dir={folder.parent}", f"hydra.sweep.subdir={number}"]

    return PublishedWorkers(launcher, parallel=1 if settings.parallel == "auto" else settings.parallel, give=give)
