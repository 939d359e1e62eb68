"""Running a sweep's trials: what is begun next, what came of each, which models stay, when it is at an end."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from finespun.artifacts import Artifacts
from finespun.config.compose import write
from finespun.config.sections import SweepConfig
from finespun.errors import ConfigError, FinespunError, listed
from finespun.kept import write_whole
from finespun.sweeps import finalists
from finespun.sweeps.composing import Composer
from finespun.sweeps.processes.trials import LOG, Ended, alike, named, outcome_of, reason_of
from finespun.sweeps.processes.workers import INTERRUPTS, Workers
from finespun.sweeps.record import ParentRun
from finespun.sweeps.space import Values
from finespun.sweeps.study import INTERRUPTED, Goal, Study
from finespun.sweeps.table import Shown
from finespun.tracking.trials.trial import Trial

POLL_SECONDS = 0.25  # also how soon Ctrl-C is heard
ALIKE = 5  # trials that fail for one reason at the very beginning end the sweep
KILLS = 2  # by something outside, before a trial counts as failed
FURTHER_SEEDS = 1 / 3  # of a budget in minutes, at most: where it has room for few trials, another one tells more than a seed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep is to do."""

    name: str
    folder: Path
    artifacts: Artifacts
    goals: Sequence[Goal]
    trials: int
    settings: SweepConfig
    monitor: str
    mode: str
    storage: str | None  # that trials report to; None: they report nothing
    pruner: Mapping[str, Any] | None


class Loop:
    """One process's work at a sweep."""

    def __init__(
        self, plan: Plan, study: Study, composer: Composer, workers: Workers, run: ParentRun, shown: Shown
    ) -> None:  # fmt: skip
        self.plan, self.study, self.composer, self.workers = plan, study, composer, workers
        self.record, self.shown = run, shown
        self.ids: dict[int, int] = {}  # of running trials, by number
        self.kills: dict[int, int] = {}
        self.heard: int | None = None
        self.spent = float(study.stored.user_attrs.get("seconds", 0))
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the sweep has been worked at, by all processes."""
        return self.spent + time.monotonic() - self.began

    def run(self) -> None:
        """Runs what is left of the sweep.

        Raises:
            FinespunError: it was interrupted, nothing succeeded, or a trial failed for a reason of ours.
        """
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        before = len(self.study.trials)
        try:
            with self._listening():
                self._go_through(self._next(), self._late)
                self._go_through(iter(finalists.left(self.study, self.plan)), lambda: self._late(finalists_turn=True))
                self._keep_models(self.plan.settings.keep_models)
                self._measure_models()
        except BaseException:
            self.workers.stop(signal.SIGTERM)
            raise
        self.study.stored.set_user_attr("seconds", round(self.seconds, 3))
        self.record.close(self.study, self.plan)
        self.shown.end(self.study, nothing_was_left=len(self.study.trials) == before)
        self._judge()

    def _next(self) -> Iterator[tuple[FrozenTrial | Values | None, dict[str, Any]]]:
        """Yields what is to be done: interrupted trials, those that the machine failed, then the rest."""
        yield from ((trial, {}) for trial in self.study.interrupted())
        again = self.study.to_retry() if self.study.sampler else []
        yield from ((values, {"again": True}) for values in again)
        if self.study.sampler is None:
            left = self.study.left_of_grid()[: max(0, self.plan.trials - len(self._settled()))]
            yield from ((values, {}) for values in left)
            return
        if self.plan.settings.space == "auto" and not self.study.trials:
            yield self.study.space.middle(), {}
        while len([trial for trial in self.study.trials if _counts(trial)]) < self.plan.trials:
            yield None, {}

    def _settled(self) -> list[FrozenTrial]:
        return [
            trial for trial in self.study.trials if trial.state in {TrialState.COMPLETE, TrialState.PRUNED} and _counts(trial)
        ]

    def _go_through(
        self, work: Iterator[tuple[FrozenTrial | Values | None, dict[str, Any]]], late: Callable[[], bool]
    ) -> None:  # fmt: skip
        more = True
        while more or self.ids:
            while more and len(self.ids) < self.workers.parallel and self.heard is None and not late():
                item = next(work, None)
                if item is None:
                    more = False
                    break
                self._begin(*item)
            if self.heard is not None:
                self._stop()
            if not self.ids:
                return
            found = self.workers.wait(POLL_SECONDS)
            for ended in found:
                self._settle(ended)
            if found:
                self.record.deliver()
            self.shown.refresh(self.study, self.seconds)

    def _late(self, *, finalists_turn: bool = False) -> bool:
        """Whether the budget has no room for another trial, as long as the mean, beside the finalists' further seeds."""
        settings = self.plan.settings
        if settings.minutes is None:
            return False
        budget = 60 * settings.minutes
        spent = [float(trial.user_attrs["outcome"]["seconds"]) for trial in self.study.done]
        mean = fmean(spent) if spent else 0
        further = 0 if finalists_turn else settings.finalists * (settings.seeds - 1) / self.workers.parallel
        return self.seconds + mean + min(further * mean, FURTHER_SEEDS * budget) >= budget

    def _begin(self, what: FrozenTrial | Values | None, attributes: dict[str, Any]) -> None:
        if isinstance(what, FrozenTrial):
            trial_id, number, values = self.study.take_up(what)
        else:
            trial_id, number, values = self.study.ask(what, **attributes)
        overrides = self.study.space.overrides(values)
        folder = self.plan.folder / str(number)
        config, composed = self.composer.checked(overrides)
        artifacts = Artifacts(project=self.plan.artifacts.project, out=folder)
        write(config, composed, artifacts.config)
        name = named(values)
        tags = {
            "sweep.name": self.plan.name,
            "sweep.trial": str(number),
            "sweep.overrides": " ".join(each.lstrip("+") for each in overrides),
        }
        noted = self.study.storage.get_trial(trial_id).user_attrs
        further = "finalist_of" in noted  # it reports nothing, for a mean is of all seeds or none: no pruner ends it
        run_id = noted.get("run_id") or self.record.child(name, tags)
        if run_id:
            self.study.note(trial_id, run_id=run_id)
        Trial(
            sweep=self.plan.name, number=number, name=name, parent=self.record.id, monitor=self.plan.monitor,
            mode=self.plan.mode, trial_id=trial_id, storage=None if further else self.plan.storage, pruner=self.plan.pruner,
            overrides=overrides, run_id=run_id, tags=tags, code=self.record.code,
        ).write(artifacts.trial)  # fmt: skip
        self.ids[number] = trial_id
        self.shown.begun(number, name)
        self.workers.start(number, folder, overrides)

    def _settle(self, ended: Ended) -> None:
        """Records what came of a trial; one that something outside has killed goes on from its checkpoint, once."""
        folder, trial_id = self.plan.folder / str(ended.number), self.ids[ended.number]
        found = outcome_of(folder) if ended.code == 0 else None
        if ended.killed and self.heard is None:
            self.kills[ended.number] = self.kills.get(ended.number, 0) + 1
            if self.kills[ended.number] < KILLS:
                self.shown.say(f"trial {ended.number}: {reason_of(folder, ended.code)}; it goes on from its last checkpoint")
                self.workers.start(ended.number, folder, self.study.space.overrides(self._values(trial_id)))
                return
        del self.ids[ended.number]
        if (ended.code in INTERRUPTED or ended.killed) and self.heard is not None:
            return  # the next process goes on with it
        if found is not None:
            self._complete(ended.number, trial_id, found)
        elif ended.pruned:
            self._prune(ended.number, trial_id, folder)
        else:
            code = 128 - ended.code if ended.killed else ended.code or 1
            self._fail(ended.number, trial_id, reason_of(folder, ended.code), code)

    def _values(self, trial_id: int) -> Values:
        return dict(self.study.storage.get_trial(trial_id).user_attrs["values"])

    def _complete(self, number: int, trial_id: int, found: Mapping[str, Any]) -> None:
        values = found["values"]
        missing = [goal.metric for goal in self.plan.goals if goal.metric not in values]
        if missing:
            raise ConfigError([f"sweep.metrics: {each}: no trial has it; there are: {listed(values)}" for each in missing])
        objectives = [float(values[goal.metric]) for goal in self.plan.goals]
        if not all(map(math.isfinite, objectives)):
            self._fail(number, trial_id, f"{self.plan.goals[0].metric} is {objectives[0]}", 6)
            return
        self.study.note(trial_id, run_id=found["run_id"], outcome=values)
        self.study.tell(trial_id, TrialState.COMPLETE, objectives)
        settings = self.plan.settings  # until further seeds have spoken, each finalist may be the one
        self._keep_models(max(settings.keep_models, settings.finalists) if settings.keep_models else 0)
        self.record.took(number, objectives)
        self.shown.ended(number, "done", objectives[0], values["seconds"])

    def _prune(self, number: int, trial_id: int, folder: Path) -> None:
        self.study.note(trial_id, reason=reason_of(folder, 7))
        reported = self.study.storage.get_trial(trial_id).intermediate_values
        last = reported[max(reported)] if reported else None
        self.study.tell(trial_id, TrialState.PRUNED, None if last is None or not math.isfinite(last) else [last])
        self.shown.ended(number, "pruned", last, None)

    def _fail(self, number: int, trial_id: int, reason: str, code: int) -> None:
        self.study.note(trial_id, reason=reason, exit_code=code)
        self.study.tell(trial_id, TrialState.FAIL)
        self.shown.ended(number, "failed", None, None, reason=reason)
        first = [trial for trial in self.study.trials if trial.state.is_finished()][:ALIKE]
        reasons = [trial.user_attrs.get("reason", "") for trial in first]
        if len(first) == ALIKE and all(trial.state == TrialState.FAIL for trial in first) and alike(reasons):
            self._end_all(signal.SIGTERM)
            raise with_code(f"sweep {self.plan.name}: the first {ALIKE} trials failed alike, so it stops: {reasons[0]}", code)

    def _keep_models(self, keep: int) -> None:
        """Says to trials what a model must reach to be kept, and removes those that no longer do."""
        goal, ranked = self.plan.goals[0], finalists.ranked(self.study)
        mode = "max" if goal.direction == "maximize" else "min"
        values = [trial.values[0] for trial in ranked[:keep]]
        write_whole(self.plan.folder / "best.json", json.dumps({"mode": mode, "keep": keep, "values": values}))
        kept = {trial.number for trial in ranked[:keep]}
        for trial in self.study.trials:
            if trial.state.is_finished() and trial.number not in kept:
                shutil.rmtree(self.plan.folder / str(trial.number) / "models", ignore_errors=True)

    def _measure_models(self) -> None:
        """Evaluates the best trials' models in full and logs them, as `finespun run` does for its one model."""
        if self.heard is not None:
            return
        for trial in finalists.ranked(self.study)[: self.plan.settings.keep_models]:
            folder = self.plan.folder / str(trial.number)
            artifacts = Artifacts(project=self.plan.artifacts.project, out=folder)
            if (artifacts.finetuned / "run.json").is_file() and not (artifacts.report("evaluate") / "metrics.json").is_file():
                self.shown.say(f"trial {trial.number}: its model is measured and logged")
                self.workers.start(trial.number, folder, [], ("evaluate",))
                for ended in self._until_ended():
                    if ended.code:
                        self.shown.say(f"warning: trial {trial.number}: {reason_of(folder, ended.code)} ({folder / LOG})")

    def _until_ended(self) -> list[Ended]:
        while self.heard is None:
            ended = self.workers.wait(POLL_SECONDS)
            if ended or not getattr(self.workers, "running", None):
                return ended
        return self.workers.stop(self.heard)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def remember(number: int, _frame: FrameType | None) -> None:
            if self.heard is not None:  # a second time: at once
                self._end_all(signal.SIGKILL)
                raise KeyboardInterrupt
            self.heard = number

        before = {number: signal.signal(number, remember) for number in INTERRUPTS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        """Ends running trials, which save where they stand, and the sweep."""
        assert self.heard is not None
        self.shown.say(f"sweep {self.plan.name}: {len(self.ids)} running trials save where they stand ...")
        self._end_all(signal.SIGINT)
        self.study.stored.set_user_attr("seconds", round(self.seconds, 3))
        self.record.interrupt()
        raise with_code(f"sweep {self.plan.name}: interrupted; the same command goes on with it", 128 + self.heard)

    def _end_all(self, number: int) -> None:
        for ended in self.workers.stop(number):
            if ended.number in self.ids and (ended.code == 0 or ended.pruned):
                self._settle(ended)

    def _judge(self) -> None:
        failed = [trial for trial in self.study.trials if trial.state == TrialState.FAIL]
        codes = [int(trial.user_attrs.get("exit_code", 1)) for trial in failed]
        if not self.study.done:
            reason = failed[0].user_attrs.get("reason", "") if failed else "no trial came to an end"
            raise with_code(f"sweep {self.plan.name}: no trial succeeded: {reason}", codes[0] if codes else 1)
        if 1 in codes:
            number = failed[codes.index(1)].number
            raise with_code(
                f"sweep {self.plan.name}: trial {number} failed by a bug: {self.plan.folder / str(number) / LOG}", 1
            )


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: not a second try, not a finalist's further seed."""
    return "again" not in trial.user_attrs and "finalist_of" not in trial.user_attrs


def with_code(message: str, exit_code: int) -> FinespunError:
    """Returns an error with an exit code of its own."""
    error = FinespunError(message)
    error.exit_code = exit_code
    return error
