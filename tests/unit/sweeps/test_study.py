"""Optuna's storage: many processes at one SQLite file, draws that are a function of seed, number and earlier results."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState

from finespun.errors import ConfigError, MachineError
from finespun.sweeps.space import parse
from finespun.sweeps.study import Goal, Study
from finespun.tracking.trials.studies import address_in, answering, build, open_storage
from helpers import ROOT

GOALS = [Goal("val/f1_macro", "maximize")]
TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 2, "multivariate": True, "group": True}
SETTINGS = ROOT / "conf" / "hydra" / "sweeper"


def study(folder: Path, *overrides: str, sampler: dict[str, object] | None = None, seed: int = 1, name: str = "s") -> Study:
    parsed = OverridesParser.create().parse_overrides(list(overrides or ["a.b=interval(0,1)", "c.d=x,y"]))
    space = parse(parsed, set(), lambda *_: frozenset())
    folder.mkdir(exist_ok=True)
    storage = open_storage(address_in(folder))
    return Study.open(storage, name, goals=GOALS, space=space, sampler=sampler, seed=seed, identity=space.described)


def run(search: Study, count: int) -> list[dict[str, str]]:
    found = []
    for _ in range(count):
        trial_id, number, values = search.ask()
        search.tell(trial_id, TrialState.COMPLETE, [float(values["a.b"]) - 0.1 * number])
        found.append(values)
    return found


@pytest.mark.parametrize("sampler", sorted(path.stem for path in (SETTINGS / "sampler").glob("*.yaml")))
def test_each_sampler_is_built_seeded_and_draws_the_same_again(sampler: str, tmp_path: Path) -> None:
    settings = yaml.safe_load((SETTINGS / "sampler" / f"{sampler}.yaml").read_text())
    overrides = ["a.b=0,0.5,1", "c.d=x,y"] if sampler == "bruteforce" else []
    whole = run(study(tmp_path, *overrides, sampler=settings), 4)
    first = study(tmp_path, *overrides, sampler=settings, name="two")
    assert run(first, 2) + run(study(tmp_path, *overrides, sampler=settings, name="two"), 2) == whole, (
        "a process makes no difference"
    )
    assert len({tuple(each.items()) for each in whole}) > 1
    if sampler != "bruteforce":
        assert run(study(tmp_path, *overrides, sampler=settings, seed=2, name="three"), 4) != whole


@pytest.mark.parametrize("pruner", sorted(path.stem for path in (SETTINGS / "pruner").glob("*.yaml")))
def test_each_pruner_is_built(pruner: str) -> None:
    assert build(yaml.safe_load((SETTINGS / "pruner" / f"{pruner}.yaml").read_text()))


def test_wrong_options_of_a_sampler_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.sampler: optuna\.samplers\.TPESampler: .*startup"):
        build({"_target_": "optuna.samplers.TPESampler", "startup": 3})


def test_a_trial_that_was_begun_is_taken_up_with_what_it_had_or_would_have_had(tmp_path: Path) -> None:
    whole = run(study(tmp_path / "whole", sampler=TPE), 4)
    cut = study(tmp_path / "cut", sampler=TPE)
    run(cut, 2)
    cut.stored.ask()  # a kill before anything was drawn
    again = study(tmp_path / "cut", sampler=TPE)
    [left] = again.interrupted()
    trial_id, number, values = again.take_up(left)
    assert (number, values) == (2, whole[2])
    again.tell(trial_id, TrialState.COMPLETE, [float(values["a.b"]) - 0.2])
    assert again.interrupted() == []
    assert run(again, 1) == whole[3:]


def test_a_grid_leaves_out_what_was_had_and_has_again_what_the_machine_failed(tmp_path: Path) -> None:
    grid = study(tmp_path, "a.b=1,2,3")
    for values, state, code in (("1", TrialState.COMPLETE, 0), ("2", TrialState.FAIL, 5), ("3", TrialState.FAIL, 6)):
        trial_id, _, _ = grid.ask({"a.b": values})
        grid.note(trial_id, exit_code=code)
        grid.tell(trial_id, state, [1.0] if state == TrialState.COMPLETE else None)
    assert grid.left_of_grid() == [{"a.b": "2"}]


def test_another_space_under_the_same_name_is_refused_with_the_difference(tmp_path: Path) -> None:
    study(tmp_path, "a.b=interval(0,1)", sampler=TPE)
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, "a.b=interval(0,2)", sampler=TPE)
    assert "sweep.name: s: is a sweep of something else" in str(caught.value)
    assert "a.b: was interval(0,1), is interval(0,2)" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("nosuch://x", ConfigError, r"sweep\.storage: nosuch://x: "),
        ("not an address", ConfigError, r"such as sqlite:///FILE, postgresql\+psycopg://"),
        ("sqlite:////no/such/folder/x.db", MachineError, r"sweep\.storage: sqlite:////no/such/folder/x\.db does not answer"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named(address: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_storage(address)


def test_a_storage_that_goes_away_is_named_with_what_to_do(tmp_path: Path) -> None:
    address = address_in(tmp_path)
    storage = open_storage(address)
    with closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute("DROP TABLE trials")
    storage.create_new_study(["minimize"], "s")
    with (
        pytest.raises(MachineError, match=r"sweep\.storage: .*study\.db does not answer .*; see .* then run the same command"),
        answering(address),
    ):
        storage.create_new_trial(1)


WRITER = """
import sys
from optuna.trial import TrialState
from finespun.tracking.trials.studies import open_storage
for address in sys.argv[2:]:
    storage = open_storage(address)
    study_id = storage.get_study_id_from_name("s")
    for number in range(int(sys.argv[1])):
        trial_id = storage.create_new_trial(study_id)
        for step in range(5):
            storage.set_trial_intermediate_value(trial_id, step, float(step))
            storage.get_all_trials(study_id)
        storage.set_trial_user_attr(trial_id, "number", number)
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
"""


def together(*folders: Path, workers: int, trials: int) -> None:
    for folder in folders:
        study(folder, sampler=TPE)
    command = [sys.executable, "-c", WRITER, str(trials), *map(address_in, folders)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(workers)]
    ended = [(process.communicate()[1], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * workers, ended
    for folder in folders:
        found = study(folder, sampler=TPE).trials
        assert sorted(trial.number for trial in found) == list(range(workers * trials))
        assert all(len(trial.intermediate_values) == 5 for trial in found)


def test_processes_at_one_sqlite_file_lose_nothing(tmp_path: Path) -> None:
    together(tmp_path, workers=3, trials=2)


@pytest.mark.slow
def test_eight_processes_at_one_sqlite_file_lose_nothing_twenty_times(tmp_path: Path) -> None:
    together(*(tmp_path / str(number) for number in range(20)), workers=8, trials=3)
