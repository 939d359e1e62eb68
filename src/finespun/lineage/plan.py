"""`finespun plan`: which stages `dvc repro` would run and because of what; nothing is run or changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from finespun.artifacts import Artifacts
from finespun.config.check import flatten
from finespun.config.compose import as_written, compose
from finespun.errors import MachineError
from finespun.files import read_json, read_yaml

COMPOSED = "build/config.yaml"
CONFIGURE = "configure"
SHOWN = 12  # reasons of a stage
REMEDY = "restore it with `git checkout`"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage: why it would run (empty: it would not), and what it took last time."""

    stage: str
    reasons: tuple[str, ...]
    seconds: float | None = None
    size: int = 0  # bytes that it wrote last time


def plan(artifacts: Artifacts) -> list[Step]:
    """Returns the stages in the order in which they run.

    Raises:
        ConfigError: the configuration has problems.
        MachineError: DVC cannot say what has changed.
    """
    config, _ = compose(artifacts)
    stages = read_yaml(artifacts.pipeline, error=MachineError, remedy=REMEDY, keys=("stages",))["stages"]
    locked = _locked(artifacts.dvc_lock)
    changed, composed = _changed(artifacts), yaml.safe_load(yaml.safe_dump(as_written(config)))
    steps: list[Step] = []
    made: dict[str, str] = {}  # output -> stage that will make it anew
    for name, stage in stages.items():
        reasons = [*_files(changed.get(name, ())), *_settings(locked.get(name, {}), composed, artifacts)]
        if name not in locked:
            reasons = ["it has not run yet"]
        if name != CONFIGURE:
            above = {made[out] for dep in stage["deps"] for out in made if _within(dep, out) or _within(out, dep)}
            reasons += [f"{stage_above} runs" for stage_above in stages if stage_above in above]
        outs = [_path(out) for kind in ("outs", "metrics") for out in stage.get(kind, [])]
        if reasons and name != CONFIGURE:  # what configure makes is known: it is compared key by key
            made |= dict.fromkeys(outs, name)
        steps.append(
            Step(
                stage=name,
                reasons=tuple(dict.fromkeys(reasons)),
                seconds=_seconds(name, artifacts),
                size=_size(outs, artifacts),
            )
        )
    return steps


def _changed(artifacts: Artifacts) -> dict[str, list[Any]]:
    """Returns what DVC says of each stage's files, by stage."""
    from dvc.exceptions import DvcException  # noqa: PLC0415  (0.6 s that only this command needs)
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(artifacts.project)) as repo:
            return {str(name): list(found) for name, found in repo.status().items()}
    except DvcException as error:
        raise MachineError(f"DVC cannot say what has changed ({error}); `finespun doctor` looks for the reason") from error


def _files(found: list[Any] | tuple[()]) -> Iterator[str]:
    """Yields files that were changed, without the settings, which are compared key by key."""
    for entry in found:
        if isinstance(entry, str):
            yield {"changed command": "its command was changed", "always changed": "it always runs"}.get(entry, entry)
            continue
        for kind, files in entry.items():
            for path, state in files.items():
                if path in {COMPOSED, "params.yaml"} and kind == "changed deps":
                    continue
                what = "is not there" if state == "deleted" else f"was {state}"
                yield f"{'its result ' if kind == 'changed outs' else ''}{path} {what}"


def _settings(locked: Mapping[str, Any], composed: Mapping[str, Any], artifacts: Artifacts) -> Iterator[str]:
    """Yields keys that a stage reads and that have another value than when it ran: old -> new."""
    recorded = locked.get("params", {})
    dials = yaml.safe_load(artifacts.params.read_text(encoding="utf-8"))
    for file, now in ((COMPOSED, composed), ("params.yaml", dials)):
        if file not in recorded:
            continue
        sections = recorded[file]
        before, after = dict(flatten(sections)), dict(flatten({name: now.get(name) for name in sections}))
        for key in dict.fromkeys([*before, *after]):
            if before.get(key, UNSET) != after.get(key, UNSET):
                yield f"{key}: {_short(before.get(key, UNSET))} -> {_short(after.get(key, UNSET))}"


UNSET = object()


def _short(value: Any) -> str:
    if value is UNSET:
        return "(not set)"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _locked(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return dict(read_yaml(path, error=MachineError, remedy=REMEDY).get("stages") or {})


def _path(out: str | Mapping[str, Any]) -> str:
    return out if isinstance(out, str) else next(iter(out))


def _within(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def _seconds(stage: str, artifacts: Artifacts) -> float | None:
    """Returns how long a stage took last time, as far as it recorded that."""
    record = artifacts.finetuned / "run.json"
    if stage != "finetune" or not record.is_file():
        return None
    cost = read_json(record, error=MachineError, remedy="restore it with `dvc checkout`").get("cost", {})
    return float(cost["train_minutes"]) * 60 if "train_minutes" in cost else None


def _size(outs: list[str], artifacts: Artifacts) -> int:
    files = [file for out in outs for file in ([artifacts.project / out] if (artifacts.project / out).is_file() else
             (artifacts.project / out).rglob("*")) if file.is_file()]  # fmt: skip
    return sum(file.stat().st_size for file in files)


def show(steps: list[Step]) -> None:
    """Prints stages with the reasons for which they would run, and what they took last time."""
    for step in steps:
        click.echo(f"{step.stage:<10} {'runs' if step.reasons else 'is up to date'}")
        for reason in step.reasons[:SHOWN]:
            click.echo(f"           {reason}")
        if step.reasons[SHOWN:]:
            click.echo(f"           and {len(step.reasons) - SHOWN} more")
    running = [step for step in steps if step.reasons]
    if not running:
        click.echo("dvc repro would run nothing")
        return
    times = [f"{step.stage} took {step.seconds / 60:.1f} minutes" for step in running if step.seconds is not None]
    size = sum(step.size for step in running)
    last = [*times, *([f"they wrote {size / 1e6:,.1f} MB"] if size else [])]
    click.echo(
        f"dvc repro would run {', '.join(step.stage for step in running)}{'; last time ' if last else ''}{', '.join(last)}"
    )
