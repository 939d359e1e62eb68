"""`finespun run`: a Hydra app over the same conf/ and the same stages, in Hydra's own output folder.

It stops before `test`: a look at the test split is for the model that is chosen, not for each that is tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import click
import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finespun.artifacts import Artifacts, find_project
from finespun.config.check import Origin, check, check_choices, choices
from finespun.config.compose import read_dials, write
from finespun.config.guard import ELSEWHERE  # (its import lets what Hydra composes be checked, here and in trials)
from finespun.errors import ConfigError, FinespunError, ModelError
from finespun.failures import ended
from finespun.files import read_json
from finespun.tracking.trials.trial import PARENT, Trial
from finespun.training.lightning.launching import run_and_wait

STAGES = ("prepare", "finetune", "evaluate")
REFUSED = {  # options of Hydra's
    "--config-dir": ELSEWHERE,
    "-cd": ELSEWHERE,
    "--config-path": ELSEWHERE,
    "-cp": ELSEWHERE,
    "--experimental-rerun": "it would read a pickle, which can run any code; give the overrides again",
}


def explore(arguments: Sequence[str]) -> None:
    """Runs Hydra with the dials of params.yaml beneath the user's overrides.

    Raises:
        ConfigError: a choice does not exist, or Hydra cannot read what is there.
    """
    project = find_project()
    conf = project / "conf"
    refused = [f"command line: {each}: {why}" for each in arguments for option, why in REFUSED.items() if _is(each, option)]
    if refused:
        raise ConfigError(refused)
    dials, groups = read_dials(project / "params.yaml"), choices(conf)
    pairs = (argument.lstrip("+").partition("=") for argument in arguments)
    given = {key: value for key, sign, value in pairs if sign}
    beneath = {key: value for key, value in dials.items() if key not in given}
    problems = check_choices(conf, beneath, where="params.yaml")
    for key, value in given.items():
        for choice in _choices(value) if key in groups else ():
            problems += check_choices(conf, {key: choice}, where="command line")
    if problems:
        raise ConfigError(problems)
    forced = [_forced(argument, groups) for argument in arguments]
    first = next((n for n, each in enumerate(forced) if "=" in each and not each.startswith("-")), len(forced))
    lowest = [f"{key}={value}" for key, value in beneath.items()]
    sys.argv = ["finespun run", *forced[:first], *lowest, *forced[first:]]  # Hydra wants its overrides in one row
    app = hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(_trial)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # what Hydra refuses reaches us: by itself it ends with 1, the code of our own bugs
    try:
        app()
    except (HydraException, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([f"command line or conf/: {' '.join((str(error) or str(error.__cause__)).split())}"]) from error


def new_folder(parent: str) -> str:
    """Makes `PARENT/DATE/TIME`, for this process alone: those that start in the same second get a number each."""
    moment = time.strftime("%H-%M-%S")
    day = Path(parent) / time.strftime("%Y-%m-%d")
    day.mkdir(parents=True, exist_ok=True)
    for number in count():
        folder = day / (f"{moment}-{number}" if number else moment)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return str(folder)
    raise AssertionError("numbers do not end")


OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True, replace=True)  # also in processes of launchers


def _is(argument: str, option: str) -> bool:
    """Whether an argument is an option of Hydra's, which takes long ones shortened, and values behind short ones."""
    name = argument.partition("=")[0]
    return option.startswith(name) and len(name) > 2 if name.startswith("--") else argument.startswith(option)


def _choices(value: str) -> list[str]:
    """What a config group is set to, in a sweep several; what other functions of Hydra's make is for Hydra to check."""
    names = value.removeprefix("choice(").removesuffix(")")
    return [] if "(" in names else [name.strip() for name in names.split(",")]


def _forced(argument: str, groups: dict[str, list[str]]) -> str:
    """Lets an unknown key through Hydra, which would advise `+key`, to our check, which knows what was meant."""
    key, sign, _ = argument.partition("=")
    if key.startswith("+") and key.lstrip("+") in groups:  # `+sweep=auto`: each group has a choice already
        return argument.lstrip("+")
    plain = sign and key[:1].isalpha() and key not in groups and not key.startswith("hydra")
    return f"++{argument}" if plain else argument


def _trial(composed: DictConfig) -> float | int:
    """Runs the stages in a process of their own; returns the best monitored metric, for a sweeper that optimises it."""
    hydra_config = HydraConfig.get()
    project = find_project()
    artifacts = Artifacts(project=project, out=Path(hydra_config.runtime.output_dir))
    origin = Origin(
        conf=project / "conf", choices=dict(hydra_config.runtime.choices), overrides=list(hydra_config.overrides.task)
    )
    try:
        config = check(composed.copy(), origin)
        write(config, composed, artifacts.config)
    except FinespunError as error:
        click.echo(f"finespun run: {error}", err=True)
        sys.exit(error.exit_code)
    command = [sys.executable, "-m", "finespun.stages", *STAGES, "--out", str(artifacts.out)]
    if artifacts.trial.is_file():
        return _trial_of_sweep(artifacts, command)
    code = run_and_wait(command, folder=project)
    if code:
        killed = ended(code)
        if killed:
            click.echo(f"finespun run: {killed}", err=True)
        sys.exit(killed.exit_code if killed else code)
    click.echo(f"results: {artifacts.out}")
    return float(
        read_json(artifacts.finetuned / "run.json", error=ModelError, remedy="run it again", keys=("best_score",))["best_score"]
    )


def _trial_of_sweep(artifacts: Artifacts, command: list[str]) -> int:
    """Runs a trial that a launcher of Hydra's has brought here; returns its exit code, for an exit would end the sweep."""
    trial = Trial.of(artifacts)
    assert trial is not None
    stages = [each for each in command if each != "evaluate"]  # that of the best is the sweep's affair
    parent = {PARENT: trial.parent} if trial.parent else {}
    with (artifacts.out / "trial.log").open("ab") as log:
        done = subprocess.run(stages, cwd=artifacts.project, env={**os.environ, **parent}, stdout=log, stderr=log, check=False)
    return done.returncode
