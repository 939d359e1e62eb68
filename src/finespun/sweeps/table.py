"""What a sweep shows while it runs: a live table in a terminal, a line a trial elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click
from optuna.trial import FrozenTrial, TrialState

from finespun.sweeps import finalists
from finespun.sweeps.processes.trials import named
from finespun.sweeps.study import Study

if TYPE_CHECKING:
    from rich.table import Table

    from finespun.sweeps.loop import Plan

ROWS = 15
STATES = {
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class Shown(Protocol):
    """Where a sweep says how it gets on."""

    def begun(self, number: int, name: str) -> None:
        """A trial has begun."""

    def ended(self, number: int, state: str, value: float | None, seconds: float | None, /, *, reason: str = "") -> None:
        """A trial has ended."""

    def say(self, text: str) -> None:
        """Says something else."""

    def refresh(self, study: Study, seconds: float) -> None:
        """Time has passed."""

    def end(self, study: Study, *, nothing_was_left: bool) -> None:
        """The sweep is at its end."""


class Lines:
    """A plain log: a line when a trial begins and when it ends."""

    def __init__(self, plan: Plan, study: Study) -> None:
        self.plan = plan
        self.names: dict[int, str] = {}
        first = next(iter(study.best()), None)  # of those that an earlier process has trained
        self.best: tuple[float, int] | None = (first.values[0], first.number) if first else None

    def begun(self, number: int, name: str) -> None:
        """Says what a trial is."""
        self.names[number] = name
        self.say(f"trial {number}: {name}: begun")

    def ended(self, number: int, state: str, value: float | None, seconds: float | None, /, *, reason: str = "") -> None:
        """Says what a trial found, and what is the best so far."""
        goal = self.plan.goals[0]
        if value is not None and state == "done":
            better = self.best is None or (value > self.best[0] if goal.direction == "maximize" else value < self.best[0])
            self.best = (value, number) if better else self.best
        found = "" if value is None else f", {goal.metric} {value:.4f}"
        took = "" if seconds is None else f", {seconds:.1f} s"
        best = "" if self.best is None else f"; best {self.best[0]:.4f} (trial {self.best[1]})"
        said = f": {reason}" if reason else ""
        self.say(f"trial {number}: {self.names.get(number, '')}: {state}{said}{found}{took}{best}")

    def say(self, text: str) -> None:
        """Writes a line."""
        click.echo(text)

    def refresh(self, study: Study, seconds: float) -> None:
        """A log does not change."""

    def end(self, study: Study, *, nothing_was_left: bool) -> None:
        """Says the best trial and how to make it the project's."""
        for line in last_words(study, self.plan, nothing_was_left=nothing_was_left):
            self.say(line)


class Live(Lines):
    """A table that changes in place; what else is said stands above it."""

    def __init__(self, plan: Plan, study: Study) -> None:
        from rich.console import Console  # noqa: PLC0415  (a log needs none)
        from rich.live import Live as RichLive  # noqa: PLC0415

        super().__init__(plan, study)
        self.live = RichLive(console=Console(), refresh_per_second=4)
        self.before = {trial.number for trial in study.trials if trial.state.is_finished()}
        self.began = time.monotonic()

    def begun(self, number: int, name: str) -> None:
        """The table shows it."""
        self.names[number] = name

    def ended(self, number: int, state: str, _value: float | None, _seconds: float | None, /, *, reason: str = "") -> None:
        """The table shows it; a reason stands above."""
        if reason:
            self.say(f"trial {number}: {self.names.get(number, '')}: {state}: {reason}")

    def say(self, text: str) -> None:
        """Writes a line above the table."""
        self.live.console.print(text, markup=False, highlight=False)

    def refresh(self, study: Study, seconds: float) -> None:
        """Draws the table anew."""
        trials = study.trials
        ended = [trial for trial in trials if trial.state.is_finished()]
        here = [trial for trial in ended if trial.number not in self.before]
        left = max(0, self.plan.trials - len(ended))
        rest = (time.monotonic() - self.began) / len(here) * left if here else None
        self.live.update(overview(study, self.plan, seconds=seconds, rest=rest, most=ROWS))


def overview(study: Study, plan: Plan, *, seconds: float, rest: float | None, most: int) -> Table:
    """Returns the newest trials as a table, and above it how far the sweep is."""
    from rich.table import Table  # noqa: PLC0415

    trials, best = study.trials, finalists.winner(study)
    ended = sum(trial.state.is_finished() for trial in trials)
    time_left = "" if rest is None else f", about {_clock(rest)} left"
    table = Table(title=f"{plan.name}: {ended} of {plan.trials} trials, {_clock(seconds)}{time_left}", title_justify="left")
    for name in ("trial", "what differs", *(goal.metric for goal in plan.goals), "state"):
        table.add_column(name, overflow="fold")
    shown = trials[-most:]
    if best is not None and best.number not in {trial.number for trial in shown}:
        shown = [trials[best.number], *shown]
    for trial in shown:
        style = "bold" if best is not None and trial.number == best.number else ""
        state = STATES[trial.state] + (" (best)" if style else "")
        table.add_row(
            str(trial.number), named(trial.user_attrs.get("values", {})), *_numbers(trial, len(plan.goals)), state, style=style
        )
    return table


def _numbers(trial: FrozenTrial, count: int) -> list[str]:
    values = trial.values or [None] * count
    if trial.state == TrialState.RUNNING and trial.intermediate_values:
        values = [trial.intermediate_values[max(trial.intermediate_values)]]
    return ["" if value is None else f"{value:.4f}" for value in (*values, *[None] * (count - len(values)))]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def last_words(study: Study, plan: Plan, *, nothing_was_left: bool) -> list[str]:
    """Returns what a sweep says at its end."""
    trials = study.trials
    counts = {state: sum(trial.state == each for trial in trials) for each, state in STATES.items()}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    again = "; all had ended before: another sweep.name begins anew" if nothing_was_left else ""
    lines = [f"sweep {plan.name}: {len(trials)} trials ({said}){again}"]
    best = finalists.winner(study)
    if best is not None:
        found = ", ".join(f"{goal.metric} {value:.4f}" for goal, value in zip(plan.goals, best.values, strict=True))
        lines += [f"best: trial {best.number} ({named(best.user_attrs['values'])}): {found}", f"results: {plan.folder}"]
        lines += [f"to make it the project's: finespun promote {plan.name}"]
    return lines


@contextmanager
def table(plan: Plan, study: Study) -> Iterator[Shown]:
    """Yields where the sweep says how it gets on: a table in a terminal, a log elsewhere."""
    if not sys.stdout.isatty():
        yield Lines(plan, study)
        return
    shown = Live(plan, study)
    with shown.live:
        yield shown
