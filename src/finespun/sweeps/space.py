"""What a sweep searches: Hydra's override syntax as dimensions, and which of them a drawn config group has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from finespun.errors import ConfigError, listed

APART = ("sweep", "hydra", "runtime")  # sections that change no result
DIGITS = 4  # of a drawn number: no setting is known better, and a name stays short
TAGS = {"log", "int"}
Values = dict[str, str]  # key -> value, as on the command line


@dataclass(frozen=True)
class Dimension:
    """One searched key. `values` are all that a grid has, as written on the command line; None of an interval."""

    key: str
    written: str
    distribution: BaseDistribution
    values: tuple[str, ...] | None
    group: bool = False

    def spelt(self, drawn: Any) -> str:
        """Returns a drawn value as the command line has it."""
        return spelt(drawn) if isinstance(drawn, float) else str(drawn)

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to be tried before the first trial: all of a list, both ends of an interval."""
        if self.values is not None:
            return self.values
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return tuple(self.spelt(end) for end in (self.distribution.low, self.distribution.high))

    @property
    def middle(self) -> str:
        """The first of a list; the middle of an interval, a geometric mean where its logarithm is searched."""
        if self.values is not None:
            return self.values[0]
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        low, high = self.distribution.low, self.distribution.high
        found = math.sqrt(low * high) if self.distribution.log else (low + high) / 2
        return self.spelt(found if isinstance(self.distribution, FloatDistribution) else round(found))


def spelt(number: float) -> str:
    """Returns a number in few digits."""
    return repr(float(f"{number:.{DIGITS}g}"))


@dataclass(frozen=True)
class Space:
    """All dimensions, config groups first, and what every trial has.

    `options` says for each searched config group which keys each of its choices has: a key that a choice does not have, and
    another has, is not sent to it.
    """

    dimensions: tuple[Dimension, ...]
    fixed: Values
    options: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    def applies(self, key: str, drawn: Mapping[str, str]) -> bool:
        """Whether a key is one of the drawn choice of its config group."""
        group, _, rest = key.lstrip("+~").partition(".")
        if not rest or group not in self.options:
            return True
        owners = {choice for choice, keys in self.options[group].items() if rest in keys}
        return not owners or drawn.get(group) in owners

    def draw(self, suggest: Callable[[str, BaseDistribution], Any]) -> Values:
        """Draws all that applies; `suggest` is an Optuna trial's."""
        drawn: Values = {}
        for each in self.dimensions:
            if self.applies(each.key, drawn):
                drawn[each.key] = each.spelt(suggest(each.key, each.distribution))
        return drawn

    def overrides(self, drawn: Mapping[str, str]) -> list[str]:
        """Returns what a trial is given beside the configuration: what is fixed and applies, then what was drawn."""
        fixed = [f"{key}={value}" if value else key for key, value in self.fixed.items() if self.applies(key, drawn)]
        return [*fixed, *(f"{_forced(key, self.dimensions)}={value}" for key, value in drawn.items())]

    def grid(self) -> list[Values]:
        """Returns all combinations in their order, the last key changing first as Hydra's do, each once.

        Raises:
            ConfigError: there is an interval.
        """
        endless = [each for each in self.dimensions if each.values is None]
        if endless:
            remedy = "search it with hydra/sweeper=optuna, or list its values"
            raise ConfigError(
                [f"command line: {each.key}={each.written}: a grid has no intervals; {remedy}" for each in endless]
            )
        found = {}
        for values in itertools.product(*(each.values or () for each in self.dimensions)):
            point = self._applying(dict(zip((each.key for each in self.dimensions), values, strict=True)))
            found[tuple(point.items())] = point
        return list(found.values())

    def corners(self) -> Iterator[Values]:
        """Yields few points that together have every listed value and every end, for each combination of config groups."""
        groups = [each for each in self.dimensions if each.group]
        others = [each for each in self.dimensions if not each.group]
        for choices in itertools.product(*(each.ends for each in groups)):
            drawn = dict(zip((each.key for each in groups), choices, strict=True))
            for number in range(max((len(each.ends) for each in others), default=1)):
                point = {each.key: each.ends[min(number, len(each.ends) - 1)] for each in others}
                yield self._applying({**drawn, **point})

    def middle(self) -> Values:
        """Returns the point that is in the middle of all intervals and first in all lists."""
        return self._applying({each.key: each.middle for each in self.dimensions})

    def _applying(self, drawn: Values) -> Values:
        return {key: value for key, value in drawn.items() if self.applies(key, drawn)}

    @property
    def described(self) -> dict[str, str]:
        """What is searched and what is fixed, as written: what a sweep of this name must have again."""
        fixed = {key: value for key, value in self.fixed.items() if key.lstrip("+~").partition(".")[0] not in APART}
        plain = {key.lstrip("+"): value for key, value in fixed.items()}
        return {**plain, **{each.key: each.written for each in self.dimensions}}

    @property
    def searched(self) -> list[str]:
        """Keys that differ between trials."""
        return [each.key for each in self.dimensions]


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns what differs between two descriptions, a line a key."""
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return [f"{key}: was {before.get(key, 'not given')}, is {now.get(key, 'not given')}" for key in keys]


def _forced(key: str, dimensions: Iterable[Dimension]) -> str:
    """Sends an unknown key through Hydra to our check, which knows what was meant; a group as it is."""
    return key if any(each.key == key and each.group for each in dimensions) else f"++{key}"


def parse(
    overrides: Sequence[Override], groups: Iterable[str], keys_of: Callable[[str, str], frozenset[str]]
) -> Space:  # fmt: skip
    """Returns the space of a command line.

    Args:
        overrides: parsed by Hydra; of the same key the last one counts.
        groups: names of config groups.
        keys_of: gives the keys of a group's choice, dotted, without the group.

    Raises:
        ConfigError: something cannot be searched; all problems at once.
    """
    found: dict[str, Dimension] = {}
    fixed: Values = {}
    problems = []
    for override in overrides:
        key = override.get_key_element().lstrip("+")
        fixed.pop(key, None)
        found.pop(key, None)
        if not override.is_sweep_override():
            fixed[key] = "" if override.is_delete() and override.value() is None else override.get_value_element_as_str()
            continue
        if key.partition(".")[0].partition("/")[0] in APART:
            problems.append(f"command line: {key}: belongs to the whole sweep and cannot be searched; give it one value")
            continue
        try:
            found[key] = _dimension(key, override, group=key in groups)
        except ValueError as error:
            problems.append(f"command line: {key}={_written(override)}: {error}")
    if problems:
        raise ConfigError(problems)
    dimensions = sorted(found.values(), key=lambda each: not each.group)
    options = {
        each.key: {choice: keys_of(each.key, choice) for choice in each.ends} for each in dimensions if each.group
    }  # fmt: skip
    return Space(tuple(dimensions), {_with_sign(key, overrides): value for key, value in fixed.items()}, options)


def _with_sign(key: str, overrides: Sequence[Override]) -> str:
    """Returns a fixed key as it was given, with its `+`, `++` or `~`."""
    return next(o.get_key_element() for o in reversed(overrides) if o.get_key_element().lstrip("+") == key)


def _written(override: Override) -> str:
    line = override.input_line or ""
    return line.partition("=")[2]


def _dimension(key: str, override: Override, *, group: bool) -> Dimension:
    value, written = override.value(), _written(override)
    unknown = set(getattr(value, "tags", ())) - TAGS
    if unknown:
        raise ValueError(f"{listed(unknown)}: no such tag; there are: {listed(TAGS)}")
    if isinstance(value, IntervalSweep):
        return Dimension(key, written, _interval(value), None)
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ValueError("has no values; give at least one")
    if isinstance(value, RangeSweep) and not value.shuffle:
        return Dimension(key, written, _range(value, values), values)
    return Dimension(key, written, CategoricalDistribution(values), values, group=group)


def _interval(value: IntervalSweep) -> BaseDistribution:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    log = "log" in value.tags
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError("its ends must be numbers, the smaller one first")
    if log and low <= 0:
        raise ValueError("the tag log needs ends above 0")
    if "int" in value.tags or isinstance(low, int):  # int(interval(1, 8)) makes them so
        return IntDistribution(math.ceil(low), math.floor(high), log=log)
    return FloatDistribution(low, high, log=log)


def _range(value: RangeSweep, values: tuple[str, ...]) -> BaseDistribution:
    numbers = [float(each) for each in values]
    step = abs(value.step)
    if all(isinstance(each, int) for each in (value.start, value.stop, value.step)):
        return IntDistribution(int(min(numbers)), int(max(numbers)), step=int(step))
    return (
        FloatDistribution(min(numbers), max(numbers), step=float(step)) if len(numbers) > 1 else CategoricalDistribution(values)
    )
