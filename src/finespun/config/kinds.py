"""What a `_target_` names: whether it is a task, strategy, optimizer or schedule at all, found without importing torch."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from finespun.errors import did_you_mean, listed

OURS = {"task": ("finespun.tasks", "Task"), "strategy": ("finespun.strategies", "Strategy")}  # package, protocol in its base.py
THEIRS = {  # packages, and what the names of the base classes end with
    "optimizer": (("torch.optim", "transformers.optimization"), ("Optimizer",)),
    "scheduler": (("torch.optim.lr_scheduler", "transformers.optimization"), ("LRScheduler", "LambdaLR")),
}
IMPORTS_TORCH = re.compile(r"^(import|from) torch", re.MULTILINE)
Definition = ast.ClassDef | ast.FunctionDef


def wrong_kind(section: str, target: str) -> str | None:
    """Returns why `target` cannot be what a section asks for, or None; sections that are not listed here take anything."""
    if section in OURS:
        module_name, _, name = target.rpartition(".")
        try:
            found = getattr(importlib.import_module(module_name), name)
        except (ModuleNotFoundError, AttributeError):
            return _refused(section, target, "does not exist", _ours(section))
        return None if is_ours(section, found, module_name) else _refused(section, target, f"is no {section}", _ours(section))
    if section not in THEIRS:
        return None
    node = find(target)
    if node is None:
        return _refused(section, target, "does not exist", _theirs(section))
    return None if _is_theirs(section, node, target) else _refused(section, target, f"is no {section}", _theirs(section))


def _refused(section: str, target: str, why: str, allowed: list[str]) -> str:
    return f"{target} {why}{did_you_mean(target, allowed)}; {section}s are: {listed(allowed)}"


def is_ours(section: str, found: Any, module_name: str) -> bool:
    """Whether something is a class, defined in that module, with all that the section's protocol asks for."""
    package, name = OURS[section]
    protocol = getattr(importlib.import_module(f"{package}.base"), name)
    if not inspect.isclass(found) or found.__module__ != module_name or getattr(found, "_is_protocol", False):
        return False
    members = {*inspect.get_annotations(protocol), *(name for name in vars(protocol) if not name.startswith("_"))}
    fields = getattr(found, "model_fields", {})
    return all(
        member in fields or (hasattr(found, member) and not getattr(getattr(found, member), "__isabstractmethod__", False))
        for member in members
    )


def _ours(section: str) -> list[str]:
    package = OURS[section][0]
    spec = importlib.util.find_spec(package)
    assert spec is not None, "finespun's own package"
    assert spec.submodule_search_locations, "it has modules"
    found, folder = [], Path(spec.submodule_search_locations[0])
    for path in sorted(folder.rglob("*.py"), key=lambda path: (len(path.parts), path)):
        if path.stem == "__init__" or IMPORTS_TORCH.search(path.read_text(encoding="utf-8")):
            continue
        module = importlib.import_module(".".join([package, *path.relative_to(folder).with_suffix("").parts]))
        found += [f"{module.__name__}.{name}" for name, each in vars(module).items() if is_ours(section, each, module.__name__)]
    return found


def _theirs(section: str) -> list[str]:
    found = []
    for package in THEIRS[section][0]:
        for node in definitions(package):
            target = f"{package.removesuffix('.optimization')}.{node.name}"
            if not node.name.startswith("_") and _is_theirs(section, node, target):
                found.append(target)
    return found


def _is_theirs(section: str, node: Definition, target: str) -> bool:
    if isinstance(node, ast.FunctionDef):  # transformers makes schedules by functions
        return section == "scheduler" and node.name.startswith("get_") and node.args.args[:1] != [] and (
            node.args.args[0].arg == "optimizer"
        )  # fmt: skip
    packages, ends = THEIRS[section]
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    if any(base.endswith(ends) for base in bases):
        return True
    inherited = [find(f"{package}.{base}") for base in bases for package in (target.rpartition(".")[0], *packages)]
    return any(_is_theirs(section, each, target) for each in inherited if isinstance(each, ast.ClassDef) and each is not node)


def find(target: str) -> Definition | None:
    """Returns the definition of what `target` names: in a module, or in any module of a package, before its last dot."""
    package, _, name = target.rpartition(".")
    for path in _files(package):
        text = path.read_text(encoding="utf-8")
        if f"class {name}" in text or f"def {name}(" in text:  # parsing is what takes time
            for node in _parsed(path):
                if node.name == name:
                    return node
    return None


def definitions(package: str) -> Iterator[Definition]:
    """Yields the classes and functions of a module, or of all modules of a package."""
    for path in _files(package):
        yield from _parsed(path)


def _files(package: str) -> list[Path]:
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    if spec is None or spec.origin is None:
        return []
    inside = spec.submodule_search_locations
    place = Path(inside[0] if inside else Path(spec.origin).with_suffix("")).joinpath(*rest)
    return [path for path in sorted(place.glob("*.py")) or [place.with_suffix(".py")] if path.is_file()]


@cache
def _parsed(path: Path) -> list[Definition]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
