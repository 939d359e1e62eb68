"""Histories: a user's events as a text, the latest first, and nothing of what came after the moment that is asked about."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from finespun.artifacts import Artifacts
from finespun.config.sections import HistoriesConfig
from finespun.data.prepared import PreparedData
from finespun.data.related.histories import NOTHING, with_histories
from finespun.data.sources.tables import Line
from finespun.errors import ConfigError, DataError
from finespun.evaluation.predict_file import predict_file
from finespun.stages import finetune
from finespun.stages.prepare import prepare
from helpers import write_csv
from small_run import small_config
from tuned import trained

HISTORIES: dict[str, Any] = {
    "path": "visits.csv", "user": "customer", "of": "id", "says": ["page", "action"], "time": "at", "before": "asked",
}  # fmt: skip
VISITS = [
    {"customer": "1", "page": "help", "action": "opened", "at": "2024-01-02"},
    {"customer": "2", "page": "shop", "action": "left", "at": "2024-01-03"},
    {"customer": "1", "page": "pricing", "action": "read", "at": "2024-01-05"},
    {"customer": "1", "page": "account", "action": "closed", "at": "2024-02-01"},
]


def joined(folder: Path, rows: list[dict[str, Any]], visits: Any = VISITS, **changes: Any) -> list[str]:
    write_csv(folder / "visits.csv", visits)
    config = HistoriesConfig.model_validate(HISTORIES | changes)
    lines = (Line(number, row) for number, row in enumerate(rows, 2))
    return [line.row["history"] for line in with_histories(lines, config, "rows.csv", folder)]


def test_a_history_is_what_was_before_the_latest_first(tmp_path: Path) -> None:
    rows = [{"id": 1, "asked": "2024-02-01"}, {"id": "2", "asked": "2024-01-03"}, {"id": "9", "asked": "2024-01-03"}]
    assert joined(tmp_path, rows) == ["pricing read; help opened", NOTHING, NOTHING]
    assert joined(tmp_path, rows[:1], latest=1) == ["pricing read"]
    assert joined(tmp_path, rows[:1], before=None) == ["account closed; pricing read; help opened"]
    assert joined(tmp_path, [{"history": "as it is"}]) == ["as it is"]


BAD: dict[str, tuple[list[dict[str, Any]], Any, str]] = {
    "a row without its user": ([{"asked": "2024-01-01"}], VISITS, r"rows.csv:2: has no column 'id' \(data.histories\)"),
    "a moment that is none": ([{"id": "1", "asked": "soon"}], VISITS, "asked 'soon' is no date or time"),
    "an event without a user": ([{"id": "1", "asked": "1"}], [{**VISITS[0], "customer": ""}], "customer names no user"),
    "an event without a time": ([{"id": "1", "asked": "1"}], [{**VISITS[0], "at": "once"}], "visits.csv:2: at is no"),
    "another column": ([{"id": "1", "asked": "1"}], [{"customer": "1", "page": "a", "at": "1"}], "has no column 'action'"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "visits", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_joined_is_refused(rows: Any, visits: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        joined(tmp_path, rows, visits)


@pytest.mark.parametrize(("changes", "said"), [({"says": []}, "says names no column"), ({"time": None}, "before needs time")])
def test_a_section_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    columns = {"text": "history", "label": "left"}
    with pytest.raises(ConfigError, match=said):
        small_config(data={"path": "a.csv", "columns": columns, "histories": HISTORIES | changes})


def test_who_will_leave_is_learnt_and_new_rows_are_joined(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    leaves = [draw.random() < 0.5 for _ in range(80)]
    visits = [
        {"customer": user, "page": "bad" if leaves[user] and step else "good", "action": "film", "at": step + 1}
        for user in range(80)
        for step in range(3)
    ]
    write_csv(tmp_path / "visits.csv", visits)
    rows = [{"id": str(user), "asked": "9", "left": "yes" if leaves[user] else "no"} for user in range(80)]
    columns = {"text": "history", "label": "left"}
    plan = {"path": "rows.csv", "columns": columns | {"group": "id"}, "histories": HISTORIES}
    quiet = {"duplicate": "note", "leak": "note", "near_duplicate": "note"}
    write_csv(tmp_path / "rows.csv", rows)
    config = small_config(data=plan | {"checks": quiet}, model={"checkpoint": str(tiny_bert)}, trainer__max_epochs=25)
    prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / "prepared")
    data = PreparedData(tmp_path / "prepared")
    model = trained(tmp_path, config, data)
    record = json.loads((model / "run.json").read_text())
    (model / "run.json").write_text(json.dumps(record | {"histories": finetune._record(config, data)["histories"]}))
    write_csv(tmp_path / "in.csv", [{"id": row["id"], "asked": "9"} for row in rows])
    monkeypatch.chdir(tmp_path)
    assert predict_file(Path("in.csv"), Path("out.jsonl"), folder=model, columns={}) == (80, 0)
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert sum((each["label"] == "yes") == left for each, left in zip(found, leaves, strict=True)) >= 76
    assert found[0]["history"].count("film") == 3
