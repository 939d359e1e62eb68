"""Every file under conf/ works, and every kind of task and strategy has one of its own name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib import import_module
from inspect import isfunction
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.check import Origin, check
from finespun.config.compose import compose, to_plain
from finespun.config.sections import RunConfig
from finespun.stages.prepare import prepare
from finespun.strategies.base import Strategy
from finespun.tasks.base import Task, roles_of
from helpers import ROOT, shipped

CONF = ROOT / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml"))
CHOICES = [path for path in FILES if path != Path("config")]
PROTOCOLS: dict[str, type] = {"task": Task, "strategy": Strategy}
PARTS = {"inputs", "answers", "metrics"}  # rooms of what tasks are made of
FOLDERS = {"task": ROOT / "src" / "finespun" / "tasks", "strategy": ROOT / "src" / "finespun" / "strategies"}


@cache
def kinds(section: str) -> set[str]:
    """Stems of the modules that hold a class of the kind; `base.py` holds the Protocol, other files hold what they share."""
    promised = {name for name, value in vars(PROTOCOLS[section]).items() if isfunction(value) and not name.startswith("_")}
    assert promised
    return {
        path.stem
        for path in FOLDERS[section].rglob("*.py")
        if path.stem != "base" and path.parent.name not in PARTS
        for found in vars(import_module(module_of(path))).values()
        if isinstance(found, type) and found.__module__ == module_of(path) and promised <= set(dir(found))
    }


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


def test_files_were_found() -> None:
    assert len(FILES) >= 13
    groups = {path.parts[0] for path in CHOICES}
    assert groups - {"hydra", "sweep"} == {*RunConfig.model_fields, "experiment"} - {"seed"}


def roles(task: str) -> tuple[str, ...]:
    return tuple(role for role, how in roles_of(shipped("task", task)).items() if how.needed)


def is_brought(data: str) -> bool:
    """Whether data come from a package that is not installed here: the file then names the script that makes them."""
    named = re.search(r"python (data/sources/\w+\.py)", (CONF / "data" / f"{data}.yaml").read_text())
    return named is not None and (ROOT / named[1]).is_file()


def beside(group: str, name: str) -> list[str]:
    """The choices that data, or an experiment, need beside them, where they are not those in `conf/config.yaml`."""
    if group == "experiment":  # its first comment says in backticks which choices it is for
        words = re.search(r"^# For `([^`]+)`", (CONF / group / f"{name}.yaml").read_text(), re.MULTILINE)
        return [] if words is None else words[1].replace(": ", "=").split(", ")
    if group in {"hydra/sweeper/sampler", "hydra/sweeper/pruner"}:
        return ["hydra/sweeper=optuna"]
    if group != "data":
        return []
    columns = yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())["columns"]
    fitting = [path.name for path in CHOICES if path.parent == Path("task") and set(roles(path.name)) <= set(columns)]
    return [f"task={fitting[-1]}"]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_file_composes_and_is_valid(choice: Path) -> None:
    group, name = choice.parent.as_posix(), choice.name
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra_compose("config", [f"{group}={name}", *beside(group, name)])
    if group == "task":  # with columns for just its roles
        OmegaConf.update(composed, "data.columns", {role: role for role in roles(name)}, merge=False, force_add=True)
    config = check(composed, Origin(conf=CONF, choices={group: name}))
    if group in RunConfig.model_fields:
        text = (CONF / group / f"{name}.yaml").read_text()
        said = yaml.safe_load(text)
        known = to_plain(config) if "@package _global_" in text else to_plain(config)[group]
        assert said
        assert set(said) - {"defaults"} <= set(known) | {key for key, value in said.items() if value is None}


@pytest.mark.parametrize("name", [path.name for path in CHOICES if path.parent == Path("data") and not is_brought(path.name)])
def test_shipped_data_pass_their_own_checks_and_are_prepared_whole(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data" / "raw", tmp_path / "data" / "raw", ignore=shutil.ignore_patterns("digits"))
    said = yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())
    for maker in (tmp_path / "data" / "raw").glob("*.py"):
        if f"data/raw/{maker.stem}/" in f"{said['path']}/":
            subprocess.run([sys.executable, maker.name], cwd=maker.parent, check=True)
    model = ["model=mobilenet_v2"] if "image" in said["columns"] else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra_compose("config", [f"data={name}", *beside("data", name), *model])
    config = check(composed, Origin(conf=CONF, choices={}))
    prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / "prepared")
    rows = json.loads((tmp_path / "prepared" / "schema.json").read_text())["rows"]
    assert min(rows.values()) > 100


def test_what_is_shipped_is_valid() -> None:
    config, composed = compose(Artifacts(project=ROOT, out=ROOT))
    dials = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert all((CONF / group / f"{name}.yaml").is_file() for group, name in dials.items() if group != "seed")
    assert config.seed == dials["seed"]
    assert not OmegaConf.missing_keys(composed)


@pytest.mark.parametrize("section", PROTOCOLS)
def test_every_kind_has_a_file_of_its_own_name_and_no_file_lacks_a_kind(section: str) -> None:
    files = [path for path in CHOICES if path.parent == Path(section)]
    named = {path.name: yaml.safe_load((CONF / path).with_suffix(".yaml").read_text())["_target_"] for path in files}
    prefix = f"finespun.{FOLDERS[section].name}."
    assert kinds(section)
    assert kinds(section) <= set(named)
    for stem in kinds(section):
        assert named[stem].startswith(prefix)
        assert named[stem].split(".")[-2] == stem
    for target in named.values():  # a file of another name is a variant of some kind
        assert target.split(".")[-2] in kinds(section)
        assert isinstance(targets.load(section, target), type)
