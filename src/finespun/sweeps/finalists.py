"""Finalists: the best settings trained with further seeds, so that luck with one seed does not choose."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from finespun.sweeps.study import Study

if TYPE_CHECKING:
    from finespun.sweeps.loop import Plan


def left(study: Study, plan: Plan) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Returns what is still to be trained: values with a further seed each, and whose seed it is."""
    if not plan.settings.finalists:
        return []
    trials = study.trials
    had = {
        (trial.user_attrs["finalist_of"], trial.user_attrs["values"]["seed"])
        for trial in trials
        if "finalist_of" in trial.user_attrs
    }
    found, finalists = [], chosen(study, plan.settings.finalists)
    for more in range(1, plan.settings.seeds):  # each finalist's second seed first: time may end before the third
        for trial in finalists:
            seed = str(int(trial.user_attrs["values"].get("seed", study.seed)) + more)
            if (trial.number, seed) not in had:
                found.append(({**trial.user_attrs["values"], "seed": seed}, {"finalist_of": trial.number}))
    return found


def chosen(study: Study, count: int) -> list[FrozenTrial]:
    """Returns the finalists: those that were chosen before, or now the best."""
    before = {trial.user_attrs["finalist_of"] for trial in study.trials if "finalist_of" in trial.user_attrs}
    ranked = [trial for trial in study.best() if "finalist_of" not in trial.user_attrs]
    return [trial for trial in ranked if trial.number in before] if before else ranked[:count]


def winner(study: Study) -> FrozenTrial | None:
    """Returns the trial to promote."""
    return next(iter(ranked(study)), None)


def ranked(study: Study) -> list[FrozenTrial]:
    """Returns the settings that came to an end, each by its first trial, the one to promote first.

    Finalists that had further seeds come before all others, by their mean over seeds, of equals the quickest.
    """
    groups: dict[int, list[FrozenTrial]] = {}
    for trial in study.done:
        if "finalist_of" in trial.user_attrs:
            groups.setdefault(trial.user_attrs["finalist_of"], []).append(trial)
    sign = -1 if study.stored.directions[0].name == "MAXIMIZE" else 1

    def rank(trial: FrozenTrial) -> tuple[bool, float, float]:
        trials = [trial, *groups.get(trial.number, [])]
        seconds = fmean(each.user_attrs["outcome"]["seconds"] for each in trials) if len(trials) > 1 else 0
        return len(trials) == 1, sign * fmean(each.values[0] for each in trials), seconds

    return sorted((trial for trial in study.best() if "finalist_of" not in trial.user_attrs), key=rank)
