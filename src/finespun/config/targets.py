"""`_target_`: which classes a configuration may name, how they are found, and their options, read without importing.

Only what is listed here is allowed: `_target_: torch.load` would otherwise run a pickle's code (hydra does not mind). It is the
one list for our own sections and for Hydra's (`config/guard.py`).
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from finespun.config.kinds import OURS, find, is_ours, wrong_kind
from finespun.config.sections import Target
from finespun.errors import ConfigError, did_you_mean, listed

ALLOWED = {  # beginnings of names where they end with a dot, else whole names, in which * is one word
    "task": ("finespun.tasks.",),
    "strategy": ("finespun.strategies.",),
    "optimizer": ("torch.optim.", "transformers."),
    "scheduler": ("torch.optim.lr_scheduler.", "transformers."),
    "callbacks": ("pytorch_lightning.callbacks.",),
    "model.module": ("torch.nn.", "torchvision.models."),
    "hydra.callbacks": ("hydra.experimental.callbacks.LogJobReturnCallback",),
    "hydra.launcher": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.finespun_sweeps.LocalLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.*",
        "hydra_plugins.hydra_ray_launcher.ray_aws_launcher.*",
        "hydra_plugins.hydra_ray_launcher.ray_launcher.*",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.*",
    ),
    "hydra.sweeper": (
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.finespun_sweeps.FinespunSweeper",
        "hydra_plugins.hydra_ax_sweeper.ax_sweeper.*",
        "hydra_plugins.hydra_nevergrad_sweeper.nevergrad_sweeper.*",
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.*",
        "optuna.pruners.*",
        "optuna.samplers.*",
    ),
    "hydra.logging": (
        "colorlog.ColoredFormatter",
        "logging.FileHandler",
        "logging.Formatter",
        "logging.NullHandler",
        "logging.StreamHandler",
        "logging.handlers.RotatingFileHandler",
        "logging.handlers.TimedRotatingFileHandler",
        "logging.handlers.WatchedFileHandler",
        "rich.logging.RichHandler",
    ),
}
MEANT = {  # kinds of pydantic's errors, for people who write YAML
    "tuple_type": "must be a list, such as [first, second]",
    "dict_type": "must be keys with values, such as {key: value}",
    "model_type": "must be keys with values, such as {key: value}",
    "string_type": "must be text; put it between quotes",
}
FILLED_IN = {"params", "optimizer", "num_training_steps", "num_warmup_steps", "total_steps", "max_lr", "mode"}


def _is_listed(section: str, target: str) -> bool:
    return any(
        target.startswith(each) if each.endswith(".") else re.fullmatch(re.escape(each).replace(r"\*", r"\w+"), target)
        for each in ALLOWED[section]
    )


def refusal(section: str, target: str, *, also: Sequence[str] = ()) -> str | None:
    """Returns why a section may not name `target`, or None; `also` is `runtime.allow_targets`: names, or their beginnings."""
    theirs = any(f"{target}.".startswith(f"{each.rstrip('.')}.") for each in also)
    if theirs or _is_listed(section, target):
        return None
    trust = "" if section in {"task", "strategy"} else f"; if you trust it, add {target} to runtime.allow_targets"
    return f"{target} is not allowed; it must begin with one of: {listed((*ALLOWED[section], *also))}{trust}"


def load(section: str, target: str, *, also: Sequence[str] = ()) -> Any:
    """Imports the class or function that `target` names; `also` as in `refusal`.

    Raises:
        ConfigError: its section may not name it, or it does not exist.
    """
    refused = refusal(section, target, also=also)
    if refused:
        raise ConfigError([f"{section}._target_: {refused}"])
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError([f"{section}._target_: {target} does not exist ({error}); correct the name"]) from error
    if section in OURS and not is_ours(section, found, module_name):
        raise ConfigError([f"{section}._target_: {wrong_kind(section, target)}"])
    home = getattr(found, "__module__", None) or "a module"
    if home.partition(".")[0] != target.partition(".")[0]:  # what an allowed module imports from elsewhere is not allowed
        raise ConfigError([f"{section}._target_: {target} is not allowed; it is {home}.{name}; correct the name"])
    return found


def build(section: str, target: Target) -> Any:
    """Builds a task or a strategy: a class of ours that checks its own options."""
    return load(section, target.target)(**target.options)


def check(section: str, target: Target, *, also: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Returns (key, problem) for everything wrong with a target and its options, importing no torch; `also` as in `refusal`."""
    refused = refusal(section, target.target, also=also)
    if refused:
        return [("_target_", refused)]
    wrong = wrong_kind(section, target.target) if _is_listed(section, target.target) else None
    if wrong:
        return [("_target_", wrong)]
    if section in OURS:
        return _check_ours(section, target)
    names = signature(target.target)
    if names is None:
        return [("_target_", f"{target.target} does not exist; correct the name")]
    known = names - FILLED_IN
    if "**" in names:
        return []
    return [
        (key, f"{target.target} has no such option{did_you_mean(key, known)}; it has: {listed(known)}")
        for key in target.options
        if key not in known
    ]


def _check_ours(section: str, target: Target) -> list[tuple[str, str]]:
    try:
        build(section, target)
    except ValidationError as error:
        ours = load(section, target.target)
        why = getattr(ours, "refuses", {})  # a strategy says why options of others make no sense with it
        found = [(".".join(map(str, e["loc"])), e) for e in error.errors()]
        return [
            (key, f"makes no sense with {ours.__name__}: {why[key]}" if key in why else describe(e, ours.model_fields))
            for key, e in found
        ]
    except ConfigError as error:
        return [("_target_", error.problems[0].partition(": ")[2])]
    return []


def describe(error: Any, known: Any) -> str:
    """One pydantic error in our words; `known` are the names that exist beside the wrong one."""
    loc, value = error["loc"], error["input"]
    if error["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(str(loc[-1]), known)}; allowed: {listed(known)}"
    if error["type"] == "missing":
        return "is missing; add it"
    return f"{MEANT.get(error['type']) or error['msg'].removeprefix('Value error, ')} (it is {value!r})"


def signature(target: str) -> set[str] | None:
    """Names of the parameters of a class or function, from its source; `**` among them if it takes any name.

    Returns None where no such name exists.
    """
    found = find(target)
    if found is None:
        return None
    if isinstance(found, ast.ClassDef):
        inits = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        if not inits:
            return {"**"}  # inherited: the class itself will check
        found = inits[0]
    arguments = found.args
    names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self"}
    return names | ({"**"} if arguments.kwarg else set())
