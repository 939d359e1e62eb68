"""What a run is called: data, model, strategy, and what differs from params.yaml."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import yaml

from finespun.artifacts import Artifacts
from finespun.config.sections import ModelConfig, RunConfig

SAYS_NOTHING = {
    "model",
    "checkpoint",
    "weights",
    "finetuned",
    "pytorch_model",
    ".",
}  # names of folders and files inside packages
LONGEST = 100  # characters of what differs
DOT = " \N{MIDDLE DOT} "


def run_title(config: RunConfig, artifacts: Artifacts, data: str) -> str:
    """Returns `data · model · strategy`, and the overrides of `finespun run`."""
    strategy = config.strategy.target.split(".")[-2]
    different = ", ".join(_overrides(artifacts))
    shortened = different if len(different) <= LONGEST else f"{different[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return DOT.join(part for part in (data, model_name(config.model), strategy, shortened) if part)


def model_name(model: ModelConfig) -> str:
    """Returns the telling part of where a model's weights come from."""
    address = (
        model.checkpoint or (model.config or {}).get("model_type") or (model.module and model.module.target) or model.weights
    )
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
