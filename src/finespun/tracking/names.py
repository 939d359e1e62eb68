"""Names in MLflow: what a run is called, and names that MLflow takes.

Those have letters, digits, `_ - . : /` and spaces, are a normal path, and at most 250 characters long.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import yaml

from finespun.artifacts import Artifacts
from finespun.config.sections import ModelConfig, RunConfig

LONGEST = 250
REFUSED = re.compile(r"[^\w\-. :/]")
SAYS_NOTHING = {
    "model",
    "checkpoint",
    "weights",
    "finetuned",
    "pytorch_model",
    ".",
}  # names of folders and files inside packages
LONGEST_DIFFERENCE = 100  # characters of what differs
DOT = " \N{MIDDLE DOT} "


def legal(name: str) -> str:
    """Returns the name itself where MLflow takes it, else the nearest legal one with six digits of its digest.

    The digits keep apart names that would become the same (`C+` and `C#`), in whatever order they come.
    """
    parts = ["_" if part in {"", ".", ".."} else part for part in REFUSED.sub("_", name).split("/")]
    found = "/".join(parts)
    if found == name and len(name) <= LONGEST:
        return name
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{found[: LONGEST - 7]}-{mark}"


def changed(names: Iterable[str]) -> dict[str, str]:
    """Returns what names are called in MLflow, for those that cannot keep their own."""
    return {name: legal(name) for name in names if legal(name) != name}


def run_title(config: RunConfig, artifacts: Artifacts, data: str) -> str:
    """Returns `data · model · strategy`, and the overrides of `finespun run`."""
    strategy = config.strategy.target.split(".")[-2]
    different = ", ".join(_overrides(artifacts))
    shortened = (
        different if len(different) <= LONGEST_DIFFERENCE else f"{different[: LONGEST_DIFFERENCE - 1]}\N{HORIZONTAL ELLIPSIS}"
    )
    return DOT.join(part for part in (data, model_name(config.model), strategy, shortened) if part)


def model_name(model: ModelConfig) -> str:
    """Returns the telling part of where a model's weights come from."""
    address = (
        model.checkpoint or (model.config or {}).get("model_type") or (model.module and model.module.target) or model.weights
    )
    if str(address).startswith("models:/"):
        return str(address).removeprefix("models:/").replace("/", " ")
    if str(address).startswith("runs:/"):
        return f"run {str(address).removeprefix('runs:/')[:8]}"
    scheme, _, path = str(address).rpartition("://")
    parts = [part for part in PurePosixPath(path).parts if part.lower() not in SAYS_NOTHING and part != "/"]
    if not scheme and "/" not in str(address) and model.module:
        return parts[-1].rpartition(".")[2]
    return parts[-1] if parts else str(address)


def command(artifacts: Artifacts) -> str:
    """Returns what was run: of `finespun run`, with its overrides."""
    if artifacts.out == artifacts.project:
        return "dvc repro"
    return " ".join(["finespun run", *_overrides(artifacts)])


def _overrides(artifacts: Artifacts) -> list[str]:
    """Returns what `finespun run` was given beside the dials as params.yaml sets them."""
    path = artifacts.out / ".hydra" / "overrides.yaml"
    if artifacts.out == artifacts.project or not path.is_file():
        return []
    dials: dict[str, Any] = yaml.safe_load(artifacts.params.read_text(encoding="utf-8")) or {}
    usual = {f"{name}={value}" for name, value in dials.items()}
    given: list[str] = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    return [each.lstrip("+") for each in given if each.lstrip("+") not in usual]
