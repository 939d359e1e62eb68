"""Composing and checking the configurations of trials: all of a grid, and enough of a search, before the first is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finespun.config import guard
from finespun.config.check import Origin, check
from finespun.config.sections import RunConfig
from finespun.errors import ConfigError
from finespun.masking import one_line

SHOWN = 10  # problems of one kind


class Composer:
    """Composes trials as Hydra does; files are read once for each combination of config groups."""

    def __init__(self, loader: ConfigLoaderImpl, whole: DictConfig, conf: Path) -> None:
        self.loader, self.whole, self.conf = loader, whole, conf
        self.parser = OverridesParser.create(config_loader=loader)
        self.always: list[str] = OmegaConf.to_container(whole.hydra.overrides.hydra)  # type: ignore[assignment]
        self.groups = set(loader.list_groups(""))
        self.kept: dict[tuple[str, ...], DictConfig] = {}

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """Returns a trial's configuration with its section `hydra`, not checked yet.

        Raises:
            ConfigError: Hydra refuses it.
        """
        try:
            parsed = self.parser.parse_overrides(list(overrides))
            plain = [each for each in parsed if each.key_or_group not in self.groups and "/" not in each.key_or_group]
            lines = tuple(each.input_line or "" for each in parsed if each not in plain)
            if lines not in self.kept:
                self.kept[lines] = self.loader.load_configuration(
                    self.whole.hydra.job.config_name, [*self.always, *lines], run_mode=RunMode.RUN
                )  # fmt: skip
            found = copy.deepcopy(self.kept[lines])
            self.loader._apply_overrides_to_config(plain, found)  # noqa: SLF001  (Hydra's own, after it has read the files)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError([f"command line: {one_line(error, None)}"]) from error
        problems = guard.problems(found)
        if problems:
            raise ConfigError(problems)
        return found

    def checked(self, overrides: Sequence[str]) -> tuple[RunConfig, DictConfig]:
        """Returns a trial's configuration as typed sections, and as it was composed.

        Raises:
            ConfigError: something in it is wrong.
        """
        composed = self.composed(overrides)
        choices = dict(composed.hydra.runtime.choices)
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        return check(composed, Origin(conf=self.conf, choices=choices, overrides=overrides)), composed

    def check_all(self, trials: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Checks the configurations of many trials, each given by its name and its overrides.

        Raises:
            ConfigError: all problems at once, each with the trial that has it.
        """
        problems: dict[str, str] = {}
        for name, overrides in trials:
            try:
                self.checked(overrides)
            except ConfigError as error:
                for problem in error.problems:
                    problems.setdefault(problem, name)
        if problems:
            more = [f"and {len(problems) - SHOWN} more problems"] if len(problems) > SHOWN else []
            shown = list(problems.items())[:SHOWN]
            raise ConfigError([*(f"{problem} (trial {trial})" for problem, trial in shown), *more])

    def keys_of(self, group: str, choice: str) -> frozenset[str]:
        """Returns the dotted keys of a group's choice, without the group's name."""
        node: Any = OmegaConf.select(self.composed([f"{group}={choice}"]), group.replace("/", "."))
        return frozenset(_keys(node)) if isinstance(node, DictConfig) else frozenset()


def _keys(node: DictConfig, prefix: str = "") -> Iterable[str]:
    for key in node:
        yield f"{prefix}{key!s}"
        below = node._get_node(key)  # noqa: SLF001  (without resolving it)
        if isinstance(below, DictConfig) and not below._is_none() and not below._is_missing() and not below._is_interpolation():  # noqa: SLF001
            yield from _keys(below, f"{prefix}{key!s}.")
