"""Composing `params.yaml` and `conf/` with Hydra, writing the result, and reading back what a stage declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from finespun.artifacts import Artifacts
from finespun.config import reading
from finespun.config.check import Origin, check, check_choices, problems_in
from finespun.config.sections import RunConfig
from finespun.errors import ConfigError, MachineError
from finespun.failures import while_writing

NOT_IN_KEYS = ("size", "nfiles")  # DVC leaves keys of these names out of its run cache's key, so they are written otherwise
MARK = "="
EDITED = "was it edited by hand? `dvc repro` composes it anew"


def read_dials(path: Path) -> dict[str, Any]:
    """Reads `params.yaml`: one choice a config group, and the seed."""
    try:
        dials = OmegaConf.to_container(reading.load(path))
    except FileNotFoundError as error:
        where = f"is not in {path.parent.resolve()}"
        raise ConfigError([f"{path.name}: {where}; go to the folder of a project, or restore it from Git"]) from error
    except OSError as error:
        raise ConfigError([f"{path.name}: cannot be read: {_one_line(error)}"]) from error
    if not dials or not isinstance(dials, dict):
        raise ConfigError([f"{path.name}: holds no keys; each line must be `group: choice`"])
    return {str(key): value for key, value in dials.items()}


def compose(artifacts: Artifacts) -> tuple[RunConfig, DictConfig]:
    """Composes and checks the configuration of `dvc repro`; returns it checked and as Hydra composed it.

    Raises:
        ConfigError: all problems at once; a dial that names no file is set aside, so that the rest is checked too.
    """
    from hydra import compose as hydra_compose  # noqa: PLC0415  (0.1 s that reading a composed file need not pay)
    from hydra import initialize_config_dir  # noqa: PLC0415
    from hydra.errors import HydraException  # noqa: PLC0415

    from finespun.config import guard  # noqa: F401, PLC0415  (checks what Hydra composes; imports it)

    conf = artifacts.conf
    dials = read_dials(artifacts.params)
    problems = check_choices(conf, dials, where=artifacts.params.name)
    wrong = {problem.split(": ")[1] for problem in problems}
    overrides = [f"{dial}={value}" for dial, value in dials.items() if dial not in wrong]
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = hydra_compose("config", overrides, return_hydra_config=True)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    except (HydraException, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([*problems, f"conf/: {_one_line(error)}"]) from error
    choices = dict(composed.hydra.runtime.choices)
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    try:
        config = check(composed, Origin(conf=conf, choices=choices))
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    return config, composed


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or str(error.__cause__)).split())


def write(config: RunConfig, composed: DictConfig, path: Path) -> None:
    """Writes the checked configuration as plain YAML.

    `runtime` is written as it was composed: what it takes from the environment (a server's password) is not recorded.
    """
    runtime = OmegaConf.to_container(composed.runtime, resolve=False)
    plain = as_written(config) | {"runtime": runtime}
    with while_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def as_written(config: RunConfig) -> dict[str, Any]:
    """Returns the sections as `build/config.yaml` has them, and DVC's lock file after it."""
    return {str(key): value for key, value in _renamed(to_plain(config), {name: MARK + name for name in NOT_IN_KEYS}).items()}


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """Returns plain values with some keys called otherwise, however deep."""
    if isinstance(node, list):
        return [_renamed(each, names) for each in node]
    return {names.get(key, key): _renamed(value, names) for key, value in node.items()} if isinstance(node, dict) else node


def to_plain(config: RunConfig, sections: Iterable[str] | None = None) -> dict[str, Any]:
    """Returns plain values of some or all sections, with `_target_` spelled as in `conf/`."""
    include = None if sections is None else set(sections) & set(config.model_fields_set)
    plain = config.model_dump(mode="json", by_alias=True, include=include)
    for section, values in plain.items():
        if isinstance(values, dict) and "_target_" in values:  # options that were not set are the class's own affair
            given = getattr(config, section).model_extra or {}
            plain[section] = {key: value for key, value in values.items() if value is not None or key in given}
    return plain


def declared_sections(pipeline: Path, stage: str) -> list[str]:
    """Returns the sections of `build/config.yaml` that `dvc.yaml` declares for a stage."""
    return [
        section
        for param in _stage(pipeline, stage).get("params", [])
        if isinstance(param, dict)
        for section in param.get("build/config.yaml") or []
    ]


def declared_dependencies(pipeline: Path, stage: str) -> list[str]:
    """Returns the files and folders that `dvc.yaml` declares as read by a stage."""
    return [str(dependency) for dependency in _stage(pipeline, stage)["deps"]]


def _stage(pipeline: Path, stage: str) -> dict[str, Any]:
    try:
        return dict(_pipeline(pipeline, pipeline.stat().st_mtime_ns)["stages"][stage])
    except (OSError, ConfigError, KeyError, TypeError) as error:
        reason = "; ".join(error.problems) if isinstance(error, ConfigError) else _one_line(error)
        raise ConfigError([f"{pipeline.name}: has no readable stage {stage!r} ({reason}); restore it from Git"]) from error


@lru_cache(maxsize=8)
def _pipeline(path: Path, _changed: int) -> Any:
    """Reads `dvc.yaml`, once a process: it is asked many times."""
    reading.check(path, "YAML")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _resolved(written: Any) -> Any:
    """Returns plain values; `runtime` alone was written as it was composed, elsewhere a `${` is text."""
    plain: Any = OmegaConf.to_container(written, resolve=False)
    if "runtime" in plain:
        plain["runtime"] = OmegaConf.to_container(written["runtime"], resolve=True)
    return plain


class StageConfig(RunConfig):
    """A configuration that holds only what a stage declared."""

    def __getattr__(self, name: str) -> Any:
        if name in RunConfig.model_fields:
            raise AssertionError(
                f"this stage reads the section {name!r} that dvc.yaml does not declare for it: its results would go stale;"
                f" add {name} to the stage's params: - build/config.yaml: [...]"
            )
        return super().__getattr__(name)  # type: ignore[misc]  # pydantic defines it at run time only


def read_for_stage(artifacts: Artifacts, stage: str) -> RunConfig:
    """Reads the sections that a stage declared, and `runtime`, from `build/config.yaml`.

    Raises:
        MachineError: there is no composed configuration yet.
        ConfigError: it was edited by hand and no longer fits.
    """
    try:
        written = reading.load(artifacts.config, str(artifacts.config))
        plain = _resolved(written)
        full = RunConfig.model_validate(_renamed(plain, {MARK + name: name for name in NOT_IN_KEYS}))
    except FileNotFoundError as error:
        raise MachineError(f"{artifacts.config}: is not there; `dvc repro {stage}` composes it first") from error
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([f"{artifacts.config}: {_one_line(error)}; {EDITED}"]) from error
    except ConfigError as error:
        raise ConfigError([f"{problem}; {EDITED}" for problem in error.problems]) from error
    except ValidationError as error:
        raise ConfigError([f"{artifacts.config}: {key}: {problem}; {EDITED}" for key, problem in problems_in(error)]) from error
    sections = [*declared_sections(artifacts.pipeline, stage), "runtime"]
    return StageConfig.model_construct(_fields_set=set(sections), **{section: getattr(full, section) for section in sections})
