"""A model beside the champion of MLflow's registry, and `finespun register`, which makes it the next one where it is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.config.sections import EvaluationConfig, GateConfig, RunConfig
from finespun.errors import ConfigError, DataError, did_you_mean
from finespun.evaluation.analysis.kept_predictions import compared, on_the_same_rows
from finespun.evaluation.record import read_record
from finespun.report import words
from finespun.report.facts import Facts
from finespun.tracking.client import Tracker
from finespun.tracking.registry import CANDIDATE, CHAMPION, Registry, Tested, champion_of, legal_model


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A model (`ours`) beside the champion (`theirs`) on the test rows of both: `scores` with the differences' intervals."""

    champion: str  # its name and version
    rows: int
    confidence: float
    score: str  # that the gate looks at
    margin: float
    scores: Mapping[str, Mapping[str, float]]

    @property
    def won(self) -> bool:
        """Whether the whole interval of the difference is better by more than the margin."""
        found = self.scores[self.score]
        least = -found["high"] if words.smaller_is_better(self.score) else found["low"]
        return least > self.margin

    @property
    def said(self) -> str:
        """The result in a sentence."""
        gap = words.gap(self.score, self.scores[self.score])
        by = f" by more than {words.difference(self.score, self.margin)}" if self.margin else ""
        how = f"better{by}" if self.won else f"not better{by} with {self.confidence:.0%} confidence"
        return f"{words.score_name(self.score)} {gap} beside {self.champion} on {self.rows:,} test rows: {how}"


def contest(
    details: Mapping[str, Any], predictions: pa.Table, champion: Tested, config: EvaluationConfig
) -> Contest:  # fmt: skip
    """Compares a model's results on the test split with the champion's, on the rows that both predicted.

    Raises:
        ConfigError: `evaluation.gate.score` is none that both have.
        DataError: they have too few rows in common.
    """
    mine, theirs = on_the_same_rows(predictions, champion.predictions)
    labels = list(dict.fromkeys([*details.get("labels", ()), *champion.details.get("labels", ())]))
    count = config.bootstrap_resamples
    scores = compared(mine, theirs, labels, count=count, confidence=config.confidence)
    shown = [name for name in details["shown"] if name in scores] or list(scores)
    return Contest(
        champion=f"{champion.name} (version {champion.version})", rows=mine.num_rows, confidence=config.confidence,
        score=_score(config.gate, shown, scores), margin=config.gate.margin, scores={name: scores[name] for name in shown},
    )  # fmt: skip


def _score(gate: GateConfig, shown: list[str], scores: Mapping[str, Any]) -> str:
    wanted = gate.score or shown[0]
    if wanted not in shown:
        close = did_you_mean(wanted, [*scores])
        raise ConfigError([f"evaluation.gate.score: {wanted} is not one of {', '.join(shown)}{close}; choose one, or null"])
    return wanted


def register(artifacts: Artifacts, *, run_id: str | None, force: bool) -> None:
    """Registers a run's model, by default that of `models/finetuned`, as `candidate`, and as `champion` if it passes the gate.

    Raises:
        ModelError: there is no model yet.
        MachineError: MLflow has not the model or its results.
        ConfigError, DataError: it cannot be compared with the champion.
    """
    config, _ = compose(artifacts)
    run_id = run_id or str(read_record(artifacts.finetuned)["run_id"])
    registry = Registry(Tracker(config.runtime, artifacts))
    ours = registry.tested(run_id)
    name = config.evaluation.gate.model or legal_model(ours.data)
    champion = registry.champion(name)
    found = None
    if champion and champion.run_id != run_id:
        found = contest(ours.details, ours.predictions, champion, config.evaluation)
    said = found.said if found else words.verdict(ours.details, rows=ours.predictions.num_rows, split="test")
    version = registry.register(ours, name, said)
    click.echo(f"{name} version {version}: {ours.name}, run {run_id}: alias {CANDIDATE}")
    if champion is not None and champion.run_id == run_id:
        click.echo(f"it is the {CHAMPION} already")
        return
    if found:
        _show(found)
    if found and not found.won and not force:
        click.echo(f"the {CHAMPION} stays {found.champion}: {found.said}")
        return
    registry.crown(name, version)
    why = "there was none" if found is None else found.said if found.won else f"--force, although: {found.said}"
    click.echo(f"models:/{name}@{CHAMPION} is version {version}: {why}")


def _show(found: Contest) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("", CANDIDATE, CHAMPION, f"difference ({found.confidence:.0%} interval)"):
        table.add_column(title, justify="right" if title else "left")
    for name, each in found.scores.items():
        called = words.score_name(name) + (" (gate)" if name == found.score else "")
        table.add_row(called, words.number(each["ours"]), words.number(each["theirs"]), words.gap(name, each))
    Console().print(table)


def beside_champion(artifacts: Artifacts, facts: Facts, config: RunConfig) -> Contest | None:
    """Returns how a tested model stands beside the present champion; None where there is none, or it is the model itself."""
    if not config.runtime.tracking or facts.best.split != "test":
        return None
    name = config.evaluation.gate.model or legal_model(facts.schema["name"])
    champion = champion_of(Tracker(config.runtime, artifacts), name, but=str(facts.record.get("run_id", "")))
    try:
        return contest(facts.best.details, facts.best.predictions, champion, config.evaluation) if champion else None
    except DataError as error:
        click.echo(f"warning: the model is not compared with the champion: {error}")
        return None
