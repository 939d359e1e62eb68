"""Every task and every strategy that conf/ names keeps its Protocol's promise, down to the names of parameters."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from finespun.strategies.base import Strategy
from finespun.tasks.base import Task
from helpers import ROOT, shipped

PROTOCOLS: dict[str, Any] = {"task": Task, "strategy": Strategy}
FILES = [(section, path) for section in PROTOCOLS for path in sorted((ROOT / "conf" / section).glob("*.yaml"))]


def members(protocol: type) -> tuple[set[str], set[str]]:
    """Names of a Protocol's methods, and of its attributes and properties."""
    public = {name: value for name, value in vars(protocol).items() if not name.startswith("_")}
    methods = {name for name, value in public.items() if inspect.isfunction(value)}
    annotated = {name for name in vars(protocol).get("__annotations__", {}) if not name.startswith("_")}
    return methods, annotated | (set(public) - methods)


def parameters(owner: type, name: str) -> list[tuple[str, Any, bool]]:
    """A method's parameters: name, kind, and whether it may be left out."""
    found = inspect.signature(getattr(owner, name)).parameters.values()
    return [(each.name, each.kind, each.default is not inspect.Parameter.empty) for each in found]


def test_the_protocols_promise_something() -> None:
    methods, attributes = members(Task)
    assert {"encode", "collate", "loss", "judge", "predictions"} <= methods
    assert {"input_roles", "answer_roles", "monitor", "auto_class"} <= attributes
    assert members(Strategy)[0]
    assert {section for section, _ in FILES} == set(PROTOCOLS)


@pytest.mark.parametrize(("section", "path"), FILES, ids=lambda each: getattr(each, "stem", each))
def test_a_class_has_every_method_and_attribute_of_its_protocol(section: str, path: Any) -> None:
    built = shipped(section, path.stem)
    protocol = PROTOCOLS[section]
    methods, attributes = members(protocol)
    assert {name for name in attributes if not hasattr(built, name)} == set()
    for name in methods:
        assert parameters(type(built), name) == parameters(protocol, name), name
    assert pickle.loads(pickle.dumps(built)) == built, "processes that check and encode are given it"
