"""`finespun promote`: a trial, or a run of `finespun run`, becomes what `dvc repro` makes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from finespun.artifacts import Artifacts
from finespun.config.check import choices, flatten
from finespun.config.compose import MARK, NOT_IN_KEYS, compose, declared_sections, read_dials, to_plain
from finespun.errors import ConfigError, FinespunError, ModelError, did_you_mean
from finespun.files import read_json, read_yaml
from finespun.kept import write_whole
from finespun.sweeps import known
from finespun.tracking.client import Tracker
from finespun.tracking.lineage import code_of

SECTIONS = ("data", "task", "model", "strategy", "optimizer", "scheduler", "trainer")  # that can change a result
APART = ("runtime", "report", "evaluation", "sweep", "experiment")  # groups whose dials stay as they are
STAGES = ("prepare", "finetune", "evaluate", "test", "report")
LONG = 32  # characters: ids of runs are, and make no good names
NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Origin:
    """What is promoted: where it lies, and what is known of it."""

    folder: Path
    what: str
    found: str
    run_id: str


def promote(artifacts: Artifacts, what: str, name: str | None) -> None:
    """Writes `conf/experiment/NAME.yaml` and sets the dials of `params.yaml`; says what `dvc repro` will do.

    Raises:
        ConfigError: there is no such sweep or run, or another experiment has the name.
    """
    origin = _of_sweep(artifacts, what) if (artifacts.sweeps / what / known.NOTE).is_file() else _of_run(artifacts, what)
    name = name or re.sub(r"[^\w.-]", "-", what if len(what) < LONG else what[:8])
    if not NAME.fullmatch(name):
        raise ConfigError([f"--name: {name!r}: use letters, digits, - and _"])
    wanted = _configuration(origin.folder)
    chosen, dials = _dials(artifacts, origin, wanted)
    path = artifacts.conf / "experiment" / f"{name}.yaml"
    with _as_it_was_on_errors(path, artifacts.params):
        _set_dials(artifacts.params, {**dials, "experiment": "none"})
        text = _experiment(origin, artifacts, chosen, wanted["seed"], _different(_plain(artifacts), wanted))
        _require_free(path, text)
        write_whole(path, text)
        _set_dials(artifacts.params, {"experiment": name})
        _require_same(_plain(artifacts), wanted)
    _tell(artifacts, origin, name, {**dials, "experiment": name}, wanted)


def _dials(artifacts: Artifacts, origin: Origin, wanted: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the trial's choices of config groups, and which dials of params.yaml change."""
    groups, dials = choices(artifacts.conf), read_dials(artifacts.params)
    given = _overrides(origin.folder)
    chosen = {key: value for key, value in given.items() if key in groups and key not in APART}
    changed = {key: value for key, value in chosen.items() if str(dials.get(key)) != value}
    return chosen, changed | ({"seed": str(wanted["seed"])} if dials.get("seed") != wanted["seed"] else {})


@contextmanager
def _as_it_was_on_errors(*files: Path) -> Iterator[None]:
    before = {file: file.read_text(encoding="utf-8") if file.is_file() else None for file in files}
    try:
        yield
    except BaseException:
        for file, content in before.items():
            if content is None:
                file.unlink(missing_ok=True)
            else:
                write_whole(file, content)
        raise


def _require_free(path: Path, text: str) -> None:
    if path.is_file() and _body(path.read_text(encoding="utf-8")) != _body(text):
        raise ConfigError([f"conf/experiment/{path.name}: is another experiment; choose another --name"])


def _of_sweep(artifacts: Artifacts, name: str) -> Origin:
    sweep = known.find(artifacts, name)
    best = sweep.best
    if best is None:
        raise ConfigError([f"{name}: no trial of this sweep has come to its end; run it again"])
    found = ", ".join(f"{goal.metric} {value!r}" for goal, value in zip(sweep.goals, best.values, strict=True))
    what = f"sweep {name}, trial {best.number} of {len(sweep.trials)}"
    return Origin(sweep.folder / str(best.number), what, found, str(best.user_attrs.get("run_id", "")))


def _of_run(artifacts: Artifacts, run_id: str) -> Origin:
    config, _ = compose(artifacts)
    there = known.names(artifacts)
    remedy = f"name a sweep ({', '.join(there) or 'there is none'}) or the id of a run that MLflow shows"
    tracked = Tracker(config.runtime, artifacts).look_up(run_id)
    if tracked is None:
        raise ConfigError([f"{run_id}: neither a sweep nor a run of MLflow's{did_you_mean(run_id, there)}; {remedy}"])
    folder = tracked.get("folder")
    if folder is None or not (artifacts.project / folder / "build" / "config.yaml").is_file():
        raise ConfigError([f"{run_id}: its folder ({folder or 'not recorded'}) is not here any more; run it again"])
    return Origin(artifacts.project / folder, f"run {run_id}", f"best score {tracked.get('best_score', 'unknown')}", run_id)


def _configuration(folder: Path) -> dict[str, Any]:
    """Returns a trial's composed configuration as plain values."""
    path = folder / "build" / "config.yaml"
    plain = read_yaml(path, error=ModelError, remedy="run the trial again")
    return {section: _renamed(values) for section, values in plain.items()}


def _renamed(node: Any) -> Any:
    names = {MARK + name: name for name in NOT_IN_KEYS}
    if isinstance(node, dict):
        return {names.get(key, key): _renamed(value) for key, value in node.items()}
    return [_renamed(each) for each in node] if isinstance(node, list) else node


def _overrides(folder: Path) -> dict[str, str]:
    """Returns what a trial was given on its command line."""
    if (folder / "trial.json").is_file():
        said = read_json(folder / "trial.json", error=ModelError, remedy="run the trial again")["overrides"]
    else:
        said = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    pairs = (str(each).lstrip("+").partition("=") for each in said)
    return {key: value for key, sign, value in pairs if sign}


def _plain(artifacts: Artifacts) -> dict[str, Any]:
    return to_plain(compose(artifacts)[0])


def _different(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, nested, what a configuration says otherwise than the base does.

    Raises:
        ConfigError: it lacks something that the base has, which no experiment can take away.
    """
    old = dict(flatten({section: base[section] for section in SECTIONS}))
    new = dict(flatten({section: wanted[section] for section in SECTIONS}))
    gone = [key for key in old if key not in new and not any(other.startswith(f"{key}.") for other in new)]
    if any(old[key] is not None for key in gone):
        raise ConfigError([f"{key}: the trial was run without it (~{key}); take it out of conf/ first" for key in gone])
    found: dict[str, Any] = {}
    for key, value in new.items():
        if key not in old or old[key] != value or type(old[key]) is not type(value):
            node = found
            *parents, last = key.split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
    return found


def _experiment(
    origin: Origin, artifacts: Artifacts, chosen: Mapping[str, str], seed: int, values: Mapping[str, Any]
) -> str:  # fmt: skip
    code = code_of(artifacts.project)
    changed = " and changes that are not committed" if code["dirty_diff"] else ""
    commit = (code["commit"][:12] or "no commit") + changed
    said = ", ".join(f"{key}: {value}" for key, value in sorted(chosen.items()))
    lines = [
        "# @package _global_",
        f"# For `{said}`: promoted from {origin.what}.",
        f"# {origin.found}; seed {seed}; run {origin.run_id}; {time.strftime('%Y-%m-%d')}; commit {commit}",
    ]
    return "\n".join(lines) + "\n" + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def _body(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _set_dials(path: Path, dials: Mapping[str, str]) -> None:
    """Changes values in params.yaml and leaves everything else, comments too, as it is."""
    text = path.read_text(encoding="utf-8")
    for key, value in dials.items():
        line = re.compile(rf"^({re.escape(key)}:[ \t]*)[^\s#]+", re.MULTILINE)
        text = line.sub(rf"\g<1>{value}", text) if line.search(text) else f"{text.rstrip()}\n{key}: {value}\n"
    write_whole(path, text)


def _require_same(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for section in (*SECTIONS, "seed"):
        ours, theirs = dict(flatten({section: made[section]})), dict(flatten({section: wanted[section]}))
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if keys:
            raise FinespunError(
                f"{keys[0]}: cannot be written as an experiment: {ours.get(keys[0])} is not {theirs.get(keys[0])}"
            )


def _tell(artifacts: Artifacts, origin: Origin, name: str, dials: Mapping[str, str], wanted: Mapping[str, Any]) -> None:
    click.echo(f"conf/experiment/{name}.yaml: {origin.what}: {origin.found}")
    click.echo("params.yaml: " + ", ".join(f"{key}: {value}" for key, value in dials.items()))
    now = _configuration(artifacts.project) if artifacts.config.is_file() else {}
    again: list[str] = []
    for stage in STAGES:
        changed = any(now.get(section) != wanted[section] for section in declared_sections(artifacts.pipeline, stage))
        if changed or again:
            again.append(stage)
    click.echo(f"`dvc repro` will run: configure, {', '.join(again)}" if again else "`dvc repro` will run configure alone")
