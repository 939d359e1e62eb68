"""`finespun plan`: which stages `dvc repro` would run and because of what, and which its cache has; nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
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
from finespun.lineage.run_cache import Digests, RunCache

COMPOSED, PARAMS = "build/config.yaml", "params.yaml"
CONFIGURE = "configure"
SHOWN = 12  # reasons of a stage
REMEDY = "restore it with `git checkout`"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage: why it would run (empty: it would not), and what it took last time."""

    stage: str
    reasons: tuple[str, ...]
    restored: bool = False  # DVC has what it would make in its cache, and takes it from there
    seconds: float | None = None
    size: int = 0  # bytes that it wrote last time

    @property
    def runs(self) -> bool:
        """Whether something is computed."""
        return bool(self.reasons) and not self.restored


@dataclass(frozen=True, kw_only=True)
class Status:
    """What DVC says: changed files by stage, digests of changed inputs by stage, and its run cache."""

    changed: Mapping[str, list[Any]]
    digests: Mapping[str, Digests]
    cache: RunCache


def plan(artifacts: Artifacts) -> list[Step]:
    """Returns the stages in the order in which they run.

    Raises:
        ConfigError: the configuration has problems.
        MachineError: DVC cannot say what has changed.
    """
    config, _ = compose(artifacts)
    stages = read_yaml(artifacts.pipeline, error=MachineError, remedy=REMEDY, keys=("stages",))["stages"]
    locked = _locked(artifacts.dvc_lock)
    status, composed = _status(artifacts), yaml.safe_load(yaml.safe_dump(as_written(config)))
    dials = yaml.safe_load(artifacts.params.read_text(encoding="utf-8"))
    steps: list[Step] = []
    made: dict[str, str] = {}  # outputs that are made anew -> their stage
    taken: Digests = {}  # outputs from the cache, and the files in them
    for name, stage in stages.items():
        before, said = locked.get(name, {}), status.changed.get(name, [])
        now = _params(before, composed, dials)
        outs = [_path(out) for kind in ("outs", "metrics") for out in stage.get(kind, [])]
        above = {made[out] for dep in stage["deps"] for out in made if name != CONFIGURE and _touch(dep, out)}
        other = [dep["path"] for dep in before.get("deps", []) if taken.get(dep["path"], dep.get("md5")) != dep.get("md5")]
        reasons = [*_files(said), *_settings(before.get("params", {}), now)]
        if name not in locked:
            reasons = ["it has not run yet"]
        reasons += [f"{stage_above} runs" for stage_above in stages if stage_above in above]
        reasons += [f"{path} is another one, from DVC's cache" for path in other]
        found = None
        if reasons and before and not above and _are_known(said):
            found = status.cache.results(before, now, status.digests.get(name, {}) | taken)
        if found is not None:
            taken |= found
            for folder, digest in found.items():
                taken |= status.cache.inside(folder, digest)
        elif reasons and name != CONFIGURE:  # what configure makes is known: it is compared key by key
            made |= dict.fromkeys(outs, name)
        seconds, size = _seconds(name, artifacts), _size(outs, artifacts)
        steps.append(
            Step(stage=name, reasons=tuple(dict.fromkeys(reasons)), restored=found is not None, seconds=seconds, size=size)
        )
    return steps


def _status(artifacts: Artifacts) -> Status:
    """Asks DVC, which keeps the digests of files that it has seen before."""
    from dvc.exceptions import DvcException  # noqa: PLC0415  (0.6 s that only this command needs)
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(artifacts.project)) as repo:
            changed = {str(name): list(found) for name, found in repo.status().items()}
            digests = {
                stage.name: {
                    dep.def_path: dep.get_hash().value
                    for dep in stage.deps
                    if dep.def_path in _changed_deps(changed[stage.name])
                }
                for stage in repo.index.stages
                if getattr(stage, "name", None) in changed
            }
            cache = RunCache(runs=Path(repo.cache.legacy.path) / "runs", files=Path(repo.cache.local.path))
            return Status(changed=changed, digests=digests, cache=cache)
    except DvcException as error:
        raise MachineError(f"DVC cannot say what has changed ({error}); `finespun doctor` looks for the reason") from error


def _are_known(found: list[Any]) -> bool:
    """Whether all inputs are there, and the command is the one of before: then DVC looks for an earlier result."""
    states = [state for entry in found if not isinstance(entry, str) for path, state in entry.get("changed deps", {}).items()
              if path not in {COMPOSED, PARAMS}]  # fmt: skip
    return all(isinstance(entry, dict) for entry in found) and set(states) <= {"modified"}


def _changed_deps(found: list[Any]) -> set[str]:
    """Returns the inputs that are there and other than before, without the settings."""
    states = [entry["changed deps"] for entry in found if not isinstance(entry, str) and "changed deps" in entry]
    return {path for each in states for path, state in each.items() if state == "modified"} - {COMPOSED, PARAMS}


def _files(found: list[Any] | tuple[()]) -> Iterator[str]:
    """Yields files that were changed, without the settings, which are compared key by key."""
    for entry in found:
        if isinstance(entry, str):
            yield {"changed command": "its command was changed", "always changed": "it always runs"}.get(entry, entry)
            continue
        for kind, files in entry.items():
            for path, state in files.items():
                if path in {COMPOSED, PARAMS} and kind == "changed deps":
                    continue
                what = "is not there" if state == "deleted" else f"was {state}"
                yield f"{'its result ' if kind == 'changed outs' else ''}{path} {what}"


def _params(locked: Mapping[str, Any], composed: Mapping[str, Any], dials: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a stage reads, as they are now, by file and section, in the form of `dvc.lock`."""
    recorded = locked.get("params", {})
    files = {COMPOSED: composed, PARAMS: dials}
    return {file: {name: files[file].get(name) for name in recorded[file]} for file in recorded if file in files}


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yields keys that a stage reads and that have another value than when it ran: old -> new."""
    for file, sections in now.items():
        old, new = dict(flatten(before[file])), dict(flatten(sections))
        for key in dict.fromkeys([*old, *new]):
            if old.get(key, UNSET) != new.get(key, UNSET):
                yield f"{key}: {_short(old.get(key, UNSET))} -> {_short(new.get(key, UNSET))}"


UNSET = object()


def _short(value: Any) -> str:
    if value is UNSET:
        return "(not set)"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Lock(yaml.SafeLoader):
    """Reads numbers as DVC writes them, by YAML 1.2: `5e-05` is one, which PyYAML takes for a text."""


_Lock.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"])


def _locked(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return dict(read_yaml(path, error=MachineError, remedy=REMEDY, loader=_Lock).get("stages") or {})


def _path(out: str | Mapping[str, Any]) -> str:
    return out if isinstance(out, str) else next(iter(out))


def _touch(path: str, out: str) -> bool:
    return Path(path).is_relative_to(out) or Path(out).is_relative_to(path)


def _seconds(stage: str, artifacts: Artifacts) -> float | None:
    """Returns how long a stage took last time; of a model that was trained elsewhere, what its record says."""
    found = []
    with suppress(OSError, ValueError):
        found.append(float(artifacts.seconds(stage).read_text(encoding="utf-8")))
    record = artifacts.finetuned / "run.json"
    if stage == "finetune" and record.is_file():
        cost = read_json(record, error=MachineError, remedy="restore it with `dvc checkout`").get("cost", {})
        found.append(60 * float(cost.get("train_minutes", 0)))  # more, where it was killed and took up its checkpoint
    return max(found, default=None)


def _size(outs: list[str], artifacts: Artifacts) -> int:
    files = [file for out in outs for file in ([artifacts.project / out] if (artifacts.project / out).is_file() else
             (artifacts.project / out).rglob("*")) if file.is_file()]  # fmt: skip
    return sum(file.stat().st_size for file in files)


def show(steps: list[Step], artifacts: Artifacts) -> None:
    """Prints stages with the reasons for which they would run, what they took last time, and what need not be computed."""
    for step in steps:
        state = "is restored from DVC's cache" if step.restored else "runs" if step.reasons else "is up to date"
        click.echo(f"{step.stage:<10} {state}")
        for reason in step.reasons[:SHOWN]:
            click.echo(f"           {reason}")
        if step.reasons[SHOWN:]:
            click.echo(f"           and {len(step.reasons) - SHOWN} more")
    running = [step for step in steps if step.runs]
    for line in _kept([step.stage for step in running], artifacts):
        click.echo(line)
    if not running:
        click.echo("dvc repro would run nothing")
        return
    known = [step for step in running if step.seconds is not None]
    longest = max(known, key=lambda step: step.seconds or 0, default=None)
    times, size = sum(step.seconds or 0 for step in known), sum(step.size for step in running)
    last = []
    if longest is not None:
        last.append(f"took {times / 60:.1f} minutes ({longest.stage} {(longest.seconds or 0) / 60:.1f})")
    if size:
        last.append(f"wrote {size / 1e6:,.1f} MB")
    before = f"; last time {', '.join(step.stage for step in known)} " if len(known) < len(running) else "; last time they "
    said = (before if known else "; last time they ") + " and ".join(last) if last else ""
    click.echo(f"dvc repro would run {', '.join(step.stage for step in running)}{said}")


def _kept(running: list[str], artifacts: Artifacts) -> Iterator[str]:
    """Yields what is kept of earlier runs, and saves work where its inputs are the same."""
    if "finetune" not in running:
        return
    for folder, what in (("features", "of frozen parts, not computed anew for the same rows and weights"),
                         ("checkpoints", "of runs that were ended; the same configuration goes on from there")):  # fmt: skip
        size = _size([str(artifacts.state / folder)], artifacts)
        if size:
            yield f".finespun/{folder}: {size / 1e6:,.1f} MB {what}"
