"""What people read of a sweep: names of trials, reasons of failures, the table, the last words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState
from rich.console import Console

from finespun.artifacts import Artifacts
from finespun.config.sections import SweepConfig
from finespun.sweeps import finalists
from finespun.sweeps.loop import Loop, Plan
from finespun.sweeps.processes.trials import LOG, alike, named, reason_of
from finespun.sweeps.space import parse
from finespun.sweeps.study import Goal, Study
from finespun.sweeps.table import last_words, overview
from finespun.tracking.trials.studies import open_storage

GOALS = [Goal("val/f1_macro", "maximize")]


def settings(**changes: object) -> SweepConfig:
    plain = {
        "name": None, "trials": None, "minutes": None, "parallel": "auto", "gpus_a_trial": 1, "metrics": None,
        "direction": None, "keep_models": 1, "finalists": 0, "seeds": 3, "storage": None, "space": "given",
    }  # fmt: skip
    return SweepConfig.model_validate(plain | changes)


def plan(**changes: object) -> Plan:
    here = Path("/project")
    return Plan(
        name="rates", folder=here / "multirun" / "rates", artifacts=Artifacts(project=here, out=here), goals=GOALS, trials=4,
        settings=settings(**changes), monitor="val/f1_macro", mode="max", storage=None, pruner=None,
    )  # fmt: skip


@pytest.fixture
def study() -> Study:
    space = parse(OverridesParser.create().parse_overrides(["optimizer.lr=1,2,3,4"]), set(), lambda *_: frozenset())
    storage = open_storage("sqlite://")
    found = Study.open(storage, "rates", goals=GOALS, space=space, sampler=None, seed=7, identity=space.described)
    for values, state, score in (("1", "COMPLETE", 0.5), ("2", "COMPLETE", 0.75), ("3", "FAIL", None), ("4", "PRUNED", 0.25)):
        trial_id, _, _ = found.ask({"optimizer.lr": values})
        found.note(trial_id, outcome={"seconds": 2.0}, reason="the reason")
        found.tell(trial_id, TrialState[state], None if score is None else [score])
    return found


def test_a_trial_is_named_by_what_differs_in_short() -> None:
    assert named({"optimizer.lr": "3e-05", "strategy": "llrd"}) == "lr=3e-05 strategy=llrd"
    assert named({"a.lr": "0.1000001", "b.lr": "2"}) == "a.lr=0.1 b.lr=2", "whole keys where their ends are the same"
    assert named({}) == "as configured"


def test_a_reason_is_the_last_that_the_log_says(tmp_path: Path) -> None:
    assert "before it wrote anything" in reason_of(tmp_path, 5)
    (tmp_path / LOG).write_text("finespun prepare: old\nepoch 1\nfinespun finetune: step 4: train/loss is nan;\n  lower it\n")
    assert reason_of(tmp_path, 6) == "step 4: train/loss is nan; lower it"
    assert reason_of(tmp_path, -9) == "killed by signal 9 (SIGKILL); if nobody did it, memory ran out"


def test_reasons_are_alike_whatever_numbers_and_paths_they_name() -> None:
    assert alike(["step 4: loss is nan in /a/1", "step 17: loss is nan in /b/2"])
    assert not alike(["step 4: loss is nan", "the disk is full"])


def test_the_table_shows_each_trial_and_which_is_the_best(study: Study) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(overview(study, plan(), seconds=61, rest=125, most=15))
    console.file.close()
    text = console.export_text()
    assert "rates: 4 of 4 trials, 1 min 1 s, about 2 min 5 s left" in text
    for expected in ("lr=1", "0.5000", "lr=2", "0.7500", "done (best)", "failed", "pruned", "val/f1_macro"):
        assert expected in text


def test_the_last_words_say_the_best_and_how_to_promote_it(study: Study) -> None:
    said = "\n".join(last_words(study, plan(), nothing_was_left=False))
    assert "4 trials (2 done, 1 failed, 1 pruned)" in said
    assert "best: trial 1 (lr=2): val/f1_macro 0.7500" in said
    assert "finespun promote rates" in said


def test_finalists_are_trained_with_further_seeds_and_the_best_mean_wins(study: Study) -> None:
    left = finalists.left(study, plan(finalists=2))
    assert [(each["seed"], note["finalist_of"]) for each, note in left] == [("8", 1), ("8", 0), ("9", 1), ("9", 0)]
    for values, note in left:  # luck: trial 1 is worse with other seeds
        trial_id, _, _ = study.ask(values, **note)
        study.note(trial_id, outcome={"seconds": 2.0})
        study.tell(trial_id, TrialState.COMPLETE, [0.1 if note["finalist_of"] == 1 else 0.5])
    assert finalists.left(study, plan(finalists=2)) == []
    best = finalists.winner(study)
    assert best is not None
    assert best.number == 0, "by the mean, not by the luckiest seed"
    assert [trial.number for trial in finalists.ranked(study)] == [0, 1]


def test_models_of_all_finalists_stay_until_their_seeds_have_spoken(study: Study, tmp_path: Path) -> None:
    loop = Loop(replace(plan(finalists=2), folder=tmp_path), study, *[None] * 4)  # type: ignore[arg-type]
    for number in range(2):
        (tmp_path / str(number) / "models").mkdir(parents=True)
    loop._keep_models(2)
    assert json.loads((tmp_path / "best.json").read_text()) == {"mode": "max", "keep": 2, "values": [0.75, 0.5]}
    trial_id, _, _ = study.ask({"optimizer.lr": "1", "seed": "8"}, finalist_of=0)
    study.note(trial_id, outcome={"seconds": 2.0})
    study.tell(trial_id, TrialState.COMPLETE, [0.5])
    loop._keep_models(1)
    assert [path.parent.name for path in tmp_path.glob("*/models")] == ["0"], "that with a mean, though one seed was better"


@pytest.mark.parametrize(
    ("seconds", "late", "finalists_late"),
    [
        (30, False, False),  # of 60; a trial takes 2, and two finalists' two further seeds 8
        (49, False, False),
        (51, True, False),
        (59, True, True),
    ],
)
def test_a_budget_keeps_room_for_the_finalists(study: Study, seconds: float, late: bool, finalists_late: bool) -> None:
    loop = Loop(plan(minutes=1, finalists=2), study, None, SimpleNamespace(parallel=1), None, None)  # type: ignore[arg-type]
    loop.spent = seconds
    assert (loop._late(), loop._late(finalists_turn=True)) == (late, finalists_late)
    loop.plan = plan(minutes=1, finalists=40)
    loop.spent = 30
    assert not loop._late(), "a third of the budget at most"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ["a", "b"], "direction": "minimize"}, "metrics names 2, direction 1"),
        ({"direction": ["minimize", "maximize"]}, "direction has several, but metrics is null"),
        ({"name": "a/b"}, "String should match pattern"),
        ({"trials": 0}, "greater than 0"),
    ],
)
def test_settings_of_a_sweep_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)
