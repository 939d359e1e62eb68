"""A sweep in MLflow: the parent run of its trials, with its space, its best value and Optuna's plots."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finespun.artifacts import Artifacts
from finespun.config.sections import RunConfig
from finespun.errors import MachineError
from finespun.sweeps import finalists
from finespun.sweeps.study import Study
from finespun.tracking.client import Run, Tracker
from finespun.tracking.lineage import code_of, source_tags
from finespun.tracking.trials.folds import cross_validated
from finespun.tracking.trials.trial import PARENT
from finespun.tracking.untracked import Untracked

if TYPE_CHECKING:
    from finespun.sweeps.loop import Plan

PLOTS = ("optimization_history", "param_importances", "parallel_coordinate", "slice")
PLOTTED_TRIALS = 2  # that are the fewest of which plots say something


class ParentRun:
    """The run that trials are children of."""

    def __init__(self, run: Run, tracker: Tracker | None, project: Path) -> None:
        """Without a `tracker` nothing is tracked."""
        self.run, self.id, self.tracker = run, run.id, tracker
        self.environment = {PARENT: run.id}
        self.code = code_of(project)

    @classmethod
    @contextmanager
    def opened(
        cls, study: Study, plan: Plan, base: RunConfig, artifacts: Artifacts, command: str
    ) -> Iterator[ParentRun]:  # fmt: skip
        """Opens the sweep's run, or goes on with it.

        Raises:
            MachineError: the server does not answer.
        """
        if not base.runtime.tracking:
            yield cls(Untracked(), None, artifacts.project)
            return
        tracker = Tracker(base.runtime, artifacts)
        before = study.stored.user_attrs.get("run_id")
        run = tracker.resume(before) if before else None
        if run is None:
            run = tracker.start(plan.name, tags={}, params={})
            study.stored.set_user_attr("run_id", run.id)
        run.set_tags({
            "sweep.name": plan.name, "sweep.command": command, "sweep.space": json.dumps(study.space.described),
            "sweep.optimised": ", ".join(f"{goal.metric} ({goal.direction})" for goal in plan.goals),
            "sweep.folder": os.path.relpath(plan.folder, artifacts.project),
        })  # fmt: skip
        with run:
            parent = cls(run, tracker, artifacts.project)
            run.set_tags(source_tags(parent.code, command))
            yield parent

    def child(self, name: str, tags: Mapping[str, str]) -> str | None:
        """Opens a trial's run; None where the server does not answer now: the trial tries again."""
        try:
            return self.tracker.begin(name, {**tags, "mlflow.parentRunId": self.id}) if self.tracker else None
        except MachineError:
            return None

    def deliver(self) -> None:
        """Sends what trials that have ended left to be sent."""
        with suppress(MachineError):
            if self.tracker:
                self.tracker.deliver_leftovers(but=self.id)

    def took(self, number: int, objectives: Sequence[float]) -> None:
        """Records a trial's objectives, the trial's number being the step."""
        self.run.log(
            {f"trial/objective_{n}" if n else "trial/objective": each for n, each in enumerate(objectives)}, step=number
        )

    def interrupt(self) -> None:
        """The sweep goes on another time."""
        self.run.set_tags({"sweep.state": "interrupted"})

    def close(self, study: Study, plan: Plan) -> None:
        """Records the best trial and the plots."""
        best = finalists.winner(study)
        self.run.set_tags({"sweep.state": "finished", "sweep.trials": str(len(study.trials))})
        if best is None:
            return
        run_id = str(best.user_attrs.get("run_id", ""))
        experiment = self.tracker.experiment_id if self.tracker else ""
        note = f"Best: trial {best.number}, [{run_id}](#/experiments/{experiment}/runs/{run_id})"
        self.run.set_tags({"sweep.best_trial": str(best.number), "sweep.best_run": run_id, "mlflow.note.content": note})
        metrics = {f"best/{goal.metric}": best.values[n] for n, goal in enumerate(plan.goals)}
        metrics |= self._cross_validation(study, plan)
        self.run.log(metrics, step=len(study.trials))
        drawn = draw_plots(study, plan.goals[0].metric, plan.folder / "plots")
        if drawn:
            self.run.log_folder(plan.folder / "plots", "plots")

    def _cross_validation(self, study: Study, plan: Plan) -> dict[str, float]:
        """Records mean and deviation over folds, where they were searched: of the best setting as metrics, of all as a tag."""
        found = cross_validated(study.done)
        if not found:
            return {}
        goal = plan.goals[0]
        for each in found:
            print(f"cross-validation: {goal.metric}: {each}")  # noqa: T201
        self.run.set_tags({"sweep.folds": "; ".join(map(str, found))})
        best = (max if goal.direction == "maximize" else min)(found, key=lambda each: each.mean)
        return {f"folds/{goal.metric}/mean": best.mean, f"folds/{goal.metric}/deviation": best.deviation}


def draw_plots(study: Study, metric: str, folder: Path) -> list[str]:
    """Draws Optuna's plots as PNG; those that these trials allow."""
    import matplotlib as mpl  # noqa: PLC0415  (1 s that a sweep pays once, at its end)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from optuna.visualization import matplotlib as plots  # noqa: PLC0415

    if len(study.done) < PLOTTED_TRIALS or not study.space.dimensions:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    several = len(study.stored.directions) > 1
    target: Callable[[Any], float] | None = (lambda trial: float(trial.values[0])) if several else None
    drawn = []
    for name in PLOTS:
        with warnings.catch_warnings(), suppress(ValueError, RuntimeError, ZeroDivisionError):  # too few or too equal trials
            warnings.simplefilter("ignore")
            logging.getLogger("optuna").setLevel(logging.ERROR)
            getattr(plots, f"plot_{name}")(study.stored, target=target, target_name=metric)
            plt.gcf().set_size_inches(10, 6)
            plt.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
            drawn.append(name)
        plt.close("all")
    return drawn
