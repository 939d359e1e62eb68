"""`finespun sweeps`: the sweeps of a project, and the trials of one."""

from __future__ import annotations

from collections.abc import Sequence

import click
from optuna.trial import TrialState

from finespun.artifacts import Artifacts
from finespun.sweeps import known
from finespun.sweeps.processes.trials import named
from finespun.sweeps.table import STATES


def show_all(artifacts: Artifacts) -> None:
    """Prints a line a sweep: name, trials, best."""
    rows = [("sweep", "trials", "best", "its trial")]
    for sweep in known.every(artifacts):
        if isinstance(sweep, tuple):
            rows.append((sweep[0], "?", "", sweep[1]))
            continue
        best = sweep.best
        value = "" if best is None else f"{sweep.goals[0].metric} {best.values[0]:.4f}"
        trial = "" if best is None else f"{best.number}: {named(best.user_attrs['values'])}"
        rows.append((sweep.name, sweep.counted(), value, trial))
    if len(rows) == 1:
        click.echo("no sweep has been run here; `finespun run -m optimizer.lr=1e-5,3e-5` runs one")
        return
    _print(rows)


def show_one(artifacts: Artifacts, name: str) -> None:
    """Prints a line a trial: number, state, objectives, time, what differs, why it failed.

    Raises:
        ConfigError: there is no such sweep.
    """
    sweep = known.find(artifacts, name)
    best = sweep.best
    rows = [("trial", "state", *(goal.metric for goal in sweep.goals), "seconds", "what differs")]
    for trial in sweep.trials:
        attributes = trial.user_attrs
        values = [f"{value:.4f}" for value in trial.values or ()] if trial.state != TrialState.FAIL else []
        values += [""] * (len(sweep.goals) - len(values))
        seconds = attributes.get("outcome", {}).get("seconds")
        state = STATES[trial.state] + (" (best)" if best is not None and best.number == trial.number else "")
        reason = f": {attributes['reason']}" if trial.state == TrialState.FAIL and "reason" in attributes else ""
        differs = named(attributes.get("values", {})) + reason
        rows.append((str(trial.number), state, *values, "" if seconds is None else f"{seconds:.1f}", differs))
    _print(rows)
    click.echo(f"results: {sweep.folder}")


def _print(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
