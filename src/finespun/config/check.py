"""Checks a composed configuration once, collecting every problem, and tells which file each comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from finespun import masking
from finespun.config import lightning, targets
from finespun.config.sections import RunConfig, SweepConfig, Target
from finespun.errors import ConfigError, did_you_mean, first_of, listed

SPLIT_ROLES = ("group", "split", "time")  # of any task: columns that decide on splits
CHOICE = re.compile(r"[A-Za-z]\w*(-\w+)*", re.ASCII)  # a name that Hydra's overrides take as it stands
ALLOWED = "such a name begins with a letter, and has ASCII letters, digits, _ and - alone"
FROM_ENVIRONMENT = "reads an environment variable, which would be recorded; only the section runtime may"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the values of a composed configuration were written."""

    conf: Path
    choices: Mapping[str, str | None]
    overrides: Sequence[str] = ()

    def of(self, key: str) -> str:
        """Returns `FILE: KEY` for a dotted key: the last place that says it."""
        for override in self.overrides:
            if f"{override.lstrip('+~').partition('=')[0]}.".startswith(f"{key}."):
                return f"command line: {key}"
        section, _, rest = key.partition(".")
        experiment = self.conf / "experiment" / f"{self.choices.get('experiment')}.yaml"
        if _says(experiment, key):
            return f"{self._name(experiment)}: {key}"
        chosen = self.conf / section / f"{self.choices.get(section)}.yaml"
        if chosen.is_file():
            return f"{self._name(chosen)}: {rest or section}"
        return f"conf/config.yaml or params.yaml: {key}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.conf.parent).as_posix()


def _says(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    return OmegaConf.select(OmegaConf.load(path), key, throw_on_missing=False) is not None


def check(composed: DictConfig, origin: Origin) -> RunConfig:
    """Turns a composed configuration into typed sections.

    Raises:
        ConfigError: with all problems at once, each as `FILE: KEY: what is wrong`.
    """
    problems = [f"{origin.of(key)}: is '???'; give it a value" for key in sorted(OmegaConf.missing_keys(composed))]
    problems += [f"{origin.of(key)}: {FROM_ENVIRONMENT}" for key in _interpolated(composed, "oc.env")]
    if problems:
        raise ConfigError(problems)
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError([f"{origin.of(str(key))}: {str(error).splitlines()[0]}"]) from error
    assert isinstance(plain, dict)
    taken = [key for key in _interpolated(composed) if masking.was_taken(str(OmegaConf.select(composed, key)))]
    if taken:
        raise ConfigError([f"{origin.of(key)}: {FROM_ENVIRONMENT}" for key in taken])
    return validate({str(key): value for key, value in plain.items()}, origin)


def validate(plain: dict[str, Any], origin: Origin) -> RunConfig:
    """Checks plain values against the typed sections and the targets that they name."""
    found: list[tuple[str, str]] = []
    config: RunConfig | None = None
    sweep = plain.pop("sweep", None)  # the sweep's own affair: no trial's result depends on it
    if sweep is not None:
        found += check_sweep(sweep)[1]
    try:
        config = RunConfig.model_validate(plain)
    except ValidationError as error:
        found += [(key, problem + _elsewhere(key, plain)) for key, problem in problems_in(error)]
    for section in targets.ALLOWED.keys() & RunConfig.model_fields.keys():
        found += [(f"{section}.{key}", problem) for key, problem in _check_target(section, plain)]
    if config:
        found += _check_modules(config)
    if config and not found:
        found += [*_check_roles(config), *_check_zero_shot(config), *lightning.problems(config)]
    if config and not found:
        return config
    raise ConfigError([f"{origin.of(key)}: {problem}" for key, problem in dict(found).items()])


def check_sweep(plain: Any) -> tuple[SweepConfig | None, list[tuple[str, str]]]:
    """Returns the typed section `sweep`, or None, and (key, problem) for everything that is wrong with it."""
    try:
        return SweepConfig.model_validate(plain), []
    except ValidationError as error:
        known = list(SweepConfig.model_fields)
        return None, [
            (".".join(["sweep", *(str(part) for part in e["loc"] if "[" not in str(part))]), targets.describe(e, known))
            for e in error.errors()
        ]


def check_choices(conf: Path, dials: Mapping[str, Any], where: str) -> list[str]:
    """Returns a problem for each dial that is unknown or names a file that does not exist."""
    groups = choices(conf)
    problems = []
    for dial, value in dials.items():
        if dial == "seed":
            continue
        if dial not in groups:
            known = [*groups, "seed"]
            problems.append(f"{where}: {dial}: unknown key{did_you_mean(dial, known)}; allowed: {listed(known)}")
        elif isinstance(value, dict | list):
            problems.append(
                f"{where}: {dial}: is to name a file of conf/{dial}/, whose keys are set there, or by `finespun run"
                f" {dial}.KEY=VALUE`; there are: {listed(groups[dial])}"
            )
        elif value is None:
            problems.append(f"{where}: {dial}: is empty; choose one of: {listed(groups[dial])}")
        elif str(value) in groups[dial] and not (isinstance(value, str) and CHOICE.fullmatch(value)):
            problems.append(
                f"{where}: {dial}: {value!r} is no name of a file in conf/: {ALLOWED}; rename conf/{dial}/{value}.yaml"
            )
        elif str(value) not in groups[dial]:
            problems.append(
                f"{where}: {dial}: there is no conf/{dial}/{value}.yaml{did_you_mean(str(value), groups[dial])};"
                f" there are: {listed(groups[dial])}"
            )
    return problems


def choices(conf: Path) -> dict[str, list[str]]:
    """Config groups and the names of their files."""
    folders = sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra")  # those are Hydra's own
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def _interpolated(composed: DictConfig, what: str = "${") -> Iterator[str]:
    """Yields the keys that are recorded and take `what` from elsewhere."""
    for key, value in flatten(OmegaConf.to_container(composed, resolve=False)):
        if what in str(value) and not key.startswith(("runtime.", "sweep.")):
            yield key


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted names and leaves; a list is a leaf."""
    if not isinstance(node, Mapping):
        yield prefix, node
        return
    for key, value in node.items():
        yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))


def problems_in(error: ValidationError) -> list[tuple[str, str]]:
    """Returns (key, problem) for everything that the typed sections refused."""
    return [
        (".".join(str(part) for part in e["loc"] if "[" not in str(part)), targets.describe(e, _siblings(e["loc"])))
        for e in error.errors()
    ]  # pydantic's names of the members of a union have brackets


def _elsewhere(key: str, plain: Mapping[str, Any]) -> str:
    """Returns where an unknown key of the top stands in a section."""
    places = [f"{section}.{key}" for section, values in plain.items() if isinstance(values, dict) and key in values]
    return f"; is {first_of(places)} meant?" if places and "." not in key else ""


def _siblings(loc: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] | None = RunConfig
    for part in loc[:-1]:
        if section is not None and isinstance(part, str):  # others are places in lists
            field = section.model_fields.get(part)
            section = _section_in(field.annotation) if field else None
    return list(section.model_fields) if section else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Returns the section that an annotation names, also inside `| None` or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _check_target(section: str, plain: dict[str, Any]) -> list[tuple[str, str]]:
    value, runtime = plain.get(section), plain.get("runtime")
    if not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
        return []  # reported with the section
    also = runtime.get("allow_targets") if isinstance(runtime, dict) else ()
    field = RunConfig.model_fields[section].annotation
    assert isinstance(field, type)
    assert issubclass(field, Target)
    return targets.check(section, field.model_construct(**value), also=[str(each) for each in also or ()])


def _check_modules(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields a problem for each class of the user's that the section `model` would import and is not allowed to."""
    named = dict(named_classes(config.model.config or {}, "model.config"))
    if config.model.module:
        named["model.module._target_"] = config.model.module.target
    for key, target in named.items():
        refused = targets.refusal("model.module", target, also=config.runtime.allow_targets)
        if refused:
            yield key, refused


def named_classes(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the classes that a model's configuration names: `target` of `finespun.models.conversion.module`, however deep."""
    for key, value in flatten(values, prefix):
        if key.rpartition(".")[2] == "target" and isinstance(value, str) and "." in value:
            yield key, value


def _check_zero_shot(config: RunConfig) -> Iterator[tuple[str, str]]:
    task = targets.build("task", config.task)
    answers = task.answers_untrained or any(how.verbatim for how in task.answer_roles.values())
    if config.evaluation.zero_shot and not answers:
        why = f"is for tasks that write; before training {type(task).__name__} says nothing: set it to false"
        yield "evaluation.zero_shot", why


def _check_roles(config: RunConfig) -> Iterator[tuple[str, str]]:
    task = targets.build("task", config.task)
    roles = {**task.input_roles, **task.answer_roles}
    needed = [role for role, how in roles.items() if how.needed]
    for role in needed:
        if role not in config.data.columns:
            yield f"data.columns.{role}", f"is missing; the task {type(task).__name__} needs the columns {listed(needed)}"
    known = [*roles, *SPLIT_ROLES]
    for role in set(config.data.columns) - {*known}:
        yield f"data.columns.{role}", f"unknown role; the task {type(task).__name__} has {listed(known)}"
    yield from _check_items(config, task)
    if config.data.split_by == "stratified" and not {"label", "labels", "tags"} & task.answer_roles.keys():
        yield "data.split.by", f"stratified needs labels, and {type(task).__name__} has none; say hash"
    texts = any(how.verbatim for how in task.answer_roles.values())
    unlike = {
        "target": "texts" if texts else "numbers", "labels": "any number of labels",
        "tags": "tags of words", "mask": "a class a pixel", "boxes": "boxes",
    }  # fmt: skip
    given = next((unlike[role] for role in task.answer_roles if role in unlike), None)
    if config.trainer.imbalance != "ignore" and given:
        yield (
            "trainer.imbalance",
            f"{config.trainer.imbalance} needs one label a row, and {type(task).__name__} has {given}; set it to ignore",
        )
    for kind in task.cannot_keep:
        said = getattr(config.data.checks, kind)
        if said in {"warn", "note"}:
            yield (
                f"data.checks.{kind}",
                f"{said} would keep rows that {type(task).__name__} cannot learn from; say error or drop",
            )


def _check_items(config: RunConfig, task: Any) -> Iterator[tuple[str, str]]:
    if config.data.items is None:
        return
    if not task.ranks:
        yield "data.items", f"is for tasks that rank items, and {type(task).__name__} ranks none; leave it out"
        return
    given = config.data.items.columns
    for role in sorted({*task.item_roles} ^ {*given}):
        said = "is missing" if role not in given else "unknown role"
        yield f"data.items.columns.{role}", f"{said}; items of {type(task).__name__} have {listed(task.item_roles)}"
