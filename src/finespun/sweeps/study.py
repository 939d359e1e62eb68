"""A sweep's study in Optuna's storage: its trials, which of them are still to be done, and what a trial is to be drawn with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from finespun.errors import ConfigError, MachineError
from finespun.sweeps.space import Dimension, Space, Values, differences
from finespun.tracking.trials.studies import build

SAME_SEED = {"QMCSampler"}  # that draw by the trial's number: another seed a trial would spoil their evenness
RETRIED = {5, 75, 137}  # failures of the machine: the same settings may do better another time
INTERRUPTED = {130, 143}


@dataclass(frozen=True)
class Goal:
    """One objective: the name of a value of a trial's outcome, and where it should go."""

    metric: str
    direction: Literal["minimize", "maximize"]


@dataclass
class Study:
    """A sweep's study; its trials are read anew each time, for other processes report to it."""

    stored: optuna.Study
    storage: RDBStorage
    space: Space
    sampler: Mapping[str, Any] | None  # None: a grid
    seed: int

    @classmethod
    def open(
        cls, storage: RDBStorage, name: str, *, goals: Sequence[Goal], space: Space, sampler: Mapping[str, Any] | None,
        seed: int, identity: Mapping[str, str],
    ) -> Study:  # fmt: skip
        """Opens a study, or begins it.

        Raises:
            ConfigError: there is one of this name that searches something else.
        """
        study = optuna.create_study(
            storage=storage, study_name=name, directions=[goal.direction for goal in goals], load_if_exists=True
        )  # fmt: skip
        before = study.user_attrs.get("identity")
        if before is None:
            if study.get_trials(deepcopy=False):
                raise ConfigError(
                    [f"sweep.name: {name}: the storage has a study of this name that is not finespun's; choose another"]
                )
            study.set_user_attr("identity", dict(identity))
        elif differences(before, identity):
            lines = [f"sweep.name: {name}: is a sweep of something else; choose another name, or undo:"]
            raise ConfigError([*lines, *(f"  {line}" for line in differences(before, identity))])
        return cls(study, storage, space, sampler, seed)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in their order."""
        return self.stored.get_trials(deepcopy=False)

    @property
    def done(self) -> list[FrozenTrial]:
        """Trials that were trained to their end."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    def interrupted(self) -> list[FrozenTrial]:
        """Trials that were begun and not ended: their process, or this one's predecessor, was killed."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    def left_of_grid(self) -> list[Values]:
        """Points of the grid that no trial has had, and those that the machine failed."""
        had = [trial.user_attrs.get("values") for trial in self.trials if not self._may_retry(trial)]
        return [point for point in self.space.grid() if point not in had]

    def to_retry(self) -> list[Values]:
        """Settings of trials that the machine failed, and that no later trial has had."""
        found = [trial.user_attrs["values"] for trial in self.trials if self._may_retry(trial)]
        had = [trial.user_attrs.get("values") for trial in self.trials if not self._may_retry(trial)]
        return [values for number, values in enumerate(found) if values not in had and values not in found[:number]]

    def _may_retry(self, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.FAIL and trial.user_attrs.get("exit_code") in RETRIED

    def ask(self, values: Values | None = None, **attributes: Any) -> tuple[int, int, Values]:
        """Begins a trial with the values given, or drawn; returns its id, its number and its values."""
        if values is None:
            number = len(self.stored.get_trials(deepcopy=False))
            self.stored.sampler = self._sampler(number)
            return self._drawn(self.stored.ask())
        distributions = {each.key: self._distribution(each) for each in self.space.dimensions if each.key in values}
        params = {key: _inside(how, values[key]) for key, how in distributions.items()}
        begun = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs={"values": values, **attributes}
        )  # fmt: skip
        trial_id = self.storage.create_new_trial(self.stored._study_id, begun)  # noqa: SLF001
        return trial_id, self.storage.get_trial(trial_id).number, values

    def take_up(self, trial: FrozenTrial) -> tuple[int, int, Values]:
        """Goes on with an interrupted trial: with the values that it had, or would have been drawn."""
        if "values" in trial.user_attrs:
            return trial._trial_id, trial.number, trial.user_attrs["values"]  # noqa: SLF001  (Optuna has no other way to it)
        self.stored.sampler = self._sampler(trial.number)
        return self._drawn(optuna.trial.Trial(self.stored, trial._trial_id))  # noqa: SLF001

    def _drawn(self, trial: optuna.trial.Trial) -> tuple[int, int, Values]:
        values = self.space.draw(trial._suggest)  # noqa: SLF001  (the public ones want to be told the kind)
        trial.set_user_attr("values", values)
        return trial._trial_id, trial.number, values  # noqa: SLF001

    def _distribution(self, dimension: Dimension) -> BaseDistribution:
        return dimension.distribution if self.sampler else CategoricalDistribution(dimension.values or ())

    def _sampler(self, number: int) -> BaseSampler:
        """Returns the sampler of one trial: what it draws is a function of seed, number and earlier results alone."""
        assert self.sampler is not None
        same = str(self.sampler["_target_"]).rpartition(".")[2] in SAME_SEED
        text = f"{self.seed}" if same else f"{self.seed}-{number}"
        found: BaseSampler = build(self.sampler, seed=int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))
        return found

    def note(self, trial_id: int, **attributes: Any) -> None:
        """Keeps facts of a trial."""
        for name, value in attributes.items():
            self.storage.set_trial_user_attr(trial_id, name, value)

    def tell(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Ends a trial."""
        try:
            self.storage.set_trial_state_values(trial_id, state=state, values=values)
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise MachineError("another process has ended a trial of this sweep; run one process a sweep") from error

    def best(self, metric: int = 0) -> list[FrozenTrial]:
        """Complete trials, the best first by one objective; of equals the earlier one."""
        sign = -1 if self.stored.directions[metric] == optuna.study.StudyDirection.MAXIMIZE else 1
        return sorted(self.done, key=lambda trial: (sign * trial.values[metric], trial.number))


def _inside(distribution: BaseDistribution, value: str) -> Any:
    """Returns a value of the command line as a distribution has it: few digits may lie beyond its end."""
    if isinstance(distribution, FloatDistribution):
        return min(max(float(value), distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else value
