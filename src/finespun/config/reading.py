"""Reading YAML that people write: small, and without what readers of YAML understand differently."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from finespun.errors import ConfigError
from finespun.masking import take

MOST_BYTES = 1_048_576
MOST_CHARACTERS = 65_536  # of one value
MOST_DIGITS = 100
MOST_LEVELS = 50
MOST_REPEATED = 10_000  # values that aliases may add to those that are written
PREFIX = "tag:yaml.org,2002:"
TAGS = {"str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value"}  # a timestamp stays text
BOOL, INT, FLOAT = (f"{PREFIX}{name}" for name in ("bool", "int", "float"))
TRUE, FALSE = ("yes", "on"), ("no", "off")


def _from_environment(name: str, *default: Any) -> str | None:
    """`${oc.env:NAME}`: what it takes from the environment is hidden in all messages from then on."""
    value = oc.env(name, *default)
    return take(value) if isinstance(value, str) and name in os.environ else value


OmegaConf.register_new_resolver("oc.env", _from_environment, replace=True)


def load(path: Path, name: str | None = None) -> DictConfig | ListConfig:
    """Reads a YAML file of settings; `name` is what messages call it.

    Raises:
        ConfigError: it is no YAML, too large, or says something that can be understood in two ways.
        OSError: it cannot be read.
    """
    check(path, name)
    try:
        return OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError([f"{name or _name(path)}: cannot be read as YAML: {_one_line(error)}"]) from error


def check(path: Path, name: str | None = None) -> None:
    """Makes sure that a file of settings is small and clear, before anything is made of it.

    Raises:
        ConfigError: all its problems.
        OSError: it cannot be read.
    """
    name, size = name or _name(path), path.stat().st_size
    if size > MOST_BYTES:
        raise ConfigError([f"{name}: has {size:,} bytes; a file of settings has at most {MOST_BYTES:,}; keep data elsewhere"])
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{name}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{name}: cannot be read as YAML: {_one_line(error)}"]) from error
    except RecursionError as error:
        raise ConfigError([_too_deep(name)]) from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise ConfigError([f"{name}: holds no keys; each line must be KEY: VALUE"])
    if root is not None:
        problems = list(_problems(root, name))
        if problems:
            raise ConfigError(problems)


def _name(path: Path) -> str:
    """`conf/GROUP/FILE` or the file's own name: as people call it."""
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("conf") - 1 :]) if "conf" in parts[:-1] else path.name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _too_deep(name: str) -> str:
    return f"{name}: is nested deeper than {MOST_LEVELS} levels; write it flatter"


def _problems(root: yaml.Node, name: str) -> Iterator[str]:
    sizes: dict[int, int] = {}
    try:
        repeated = _size(root, sizes, 0) - len(sizes)
    except RecursionError:
        yield f"{name}: an alias stands inside its own anchor, or it is nested deeper than {MOST_LEVELS} levels; write it out"
        return
    if repeated > MOST_REPEATED:
        yield f"{name}: its aliases (*name) repeat {repeated:,} values; at most {MOST_REPEATED:,}; write out what is needed"
        return
    seen: set[int] = set()
    for node in _nodes(root, seen):
        where = f"{name}:{node.start_mark.line + 1}"
        if node.tag.removeprefix(PREFIX) not in TAGS:
            yield f"{where}: {node.tag.replace(PREFIX, '!!')} is no text, number, list or keys; leave it out"
        elif isinstance(node, yaml.MappingNode):
            yield from (f"{where}: {problem}" for problem in _twice(node))
        elif isinstance(node, yaml.ScalarNode):
            yield from (f"{where}: {problem}" for problem in _unclear(node))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _size(node: yaml.Node, sizes: dict[int, int], level: int) -> int:
    """Values in a node when its aliases are written out; `sizes` has an entry for each node that is written."""
    if level > MOST_LEVELS:
        raise RecursionError
    if id(node) not in sizes:
        size = 1 + sum(_size(each, sizes, level + 1) for each in _children(node))
        sizes[id(node)] = size
    return sizes[id(node)]


def _nodes(node: yaml.Node, seen: set[int]) -> Iterator[yaml.Node]:
    if id(node) not in seen:
        seen.add(id(node))
        yield node
        for each in _children(node):
            yield from _nodes(each, seen)


def _twice(node: yaml.MappingNode) -> Iterator[str]:
    keys = [(key.tag, str(key.value)) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
        yield f"the key {key[1]!r} stands there twice; YAML would take the last; delete one"


def _unclear(node: yaml.ScalarNode) -> Iterator[str]:
    value, plain = str(node.value), node.style is None
    if len(value) > MOST_CHARACTERS:
        yield f"a value of {len(value):,} characters; at most {MOST_CHARACTERS:,}; keep data in a file of its own"
    elif plain and node.tag == BOOL and value.lower() in TRUE + FALSE:
        meant = str(value.lower() in TRUE).lower()
        yield f"{value} is the word in some readers of YAML and {meant} in others; write {meant}, or '{value}' for the word"
    elif plain and node.tag == INT and len(value) > MOST_DIGITS:
        yield f"a number of {len(value):,} digits; at most {MOST_DIGITS}"
    elif plain and node.tag in {INT, FLOAT} and ":" in value:
        yield f"{value} is a number of base 60 in YAML; write '{value}' in quotes for the text"
    elif plain and node.tag == INT and re.fullmatch(r"[-+]?0[0-9_]+", value):
        number = int(value.replace("_", ""), 8)
        yield f"{value} is the octal number {number} in YAML; write {number}, or '{value}' in quotes for the text"
