"""Models that earlier versions saved are read by this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finespun.errors import ModelError
from finespun.evaluation.record import ADDED, saved_task
from helpers import ROOT

SAVED: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "saved_tasks.yaml").read_text(encoding="utf-8"))
TASKS = sorted(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_read_as_it_was_first_saved(name: str) -> None:
    assert name in SAVED, f"write the task of conf/task/{name}.yaml into tests/data/saved_tasks.yaml"
    task: Any = saved_task({"task": SAVED[name]}, Path("models"))
    came_later = {option for option in ADDED if option in type(task).model_fields and option not in SAVED[name]}
    assert {option: getattr(task, option) for option in came_later} == {option: ADDED[option] for option in came_later}


def test_each_option_that_came_later_is_one_of_a_task_that_was_saved_without_it() -> None:
    kinds = [(saved, type(saved_task({"task": saved}, Path()))) for saved in SAVED.values()]
    for option in ADDED:
        assert any(option in kind.model_fields and option not in saved for saved, kind in kinds)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pooling": None}, r"models/run.json: task.pooling"),
        ({"poling": "mean"}, r"task.poling unknown key.*did you mean 'pooling'"),
    ],
)
def test_a_task_of_another_version_is_named(change: dict[str, Any], said: str) -> None:
    options = {name: value for name, value in (SAVED["text_embedding"] | change).items() if value is not None}
    with pytest.raises(ModelError, match=said + r".*another version of finespun.*dvc repro --force finetune"):
        saved_task({"task": options}, Path("models"))
