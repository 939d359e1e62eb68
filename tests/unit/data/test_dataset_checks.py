"""Checks of a data set as a whole: what no row shows by itself, each with what to do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import finespun.data.dataset_checks.examine as examine_module
from finespun.config.sections import DataConfig
from finespun.data.dataset_checks.examine import Examined, examine
from finespun.data.sources.tables import Line
from finespun.data.splits import LEFT_OUT, SPLITS
from finespun.tasks.inputs.text import TextEncoder
from finespun.tasks.text_classification import TextClassification

TASK = TextClassification(max_length=16, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")
WORDS = ["wheel", "brake", "frame", "chain", "saddle", "light", "pedal", "tyre", "spoke", "rack", "bell", "lock", "lamp"]
Rows = list[dict[str, Any]]


def sentences(count: int, length: int = 9) -> list[str]:
    draw = random.Random(5)
    return [" ".join(draw.choices(WORDS, k=length)) + f" {number}" for number in range(count)]


def rows(count: int = 200, **columns: Any) -> Rows:
    """Rows of two labels; a keyword is a column, a function of the row's number."""
    found: Rows = [{"text": text, "label": ("good", "bad")[number % 2]} for number, text in enumerate(sentences(count))]
    return [{**row, **{name: make(number) for name, make in columns.items()}} for number, row in enumerate(found)]


class Given:
    """Rows in memory, as a source that can be gone through."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def map(self, function: Callable[[Iterator[Line]], Iterator[Any]], what: str = "") -> Iterator[Any]:
        return function(Line(number, row) for number, row in enumerate(self.rows, 2))

    def place(self, number: int) -> tuple[str, int]:
        return "mail.csv", number


def looked_at(given: Rows, encoder: TextEncoder | None = None, columns: dict[str, str] | None = None, **data: Any) -> Examined:
    config = DataConfig.model_validate(
        {"path": "mail.csv", "columns": {"text": "text", "label": "label", **(columns or {})}, **data}
    )
    return examine(Given(given), config, TASK, encoder)


def said(found: Examined, kind: str) -> list[tuple[str, str]]:
    return [(each.severity, each.remedy) for each in found.report.problems if each.kind == kind]


def split_of_rows(found: Examined) -> dict[int, str]:
    pairs = zip(found.report.kept.numbers, found.codes.tolist(), strict=True)
    return {number: "left out" if code == LEFT_OUT else SPLITS[code] for number, code in pairs}


def test_clean_rows_have_no_findings() -> None:
    assert not looked_at(rows()).report.problems


def test_a_row_in_two_ready_splits_is_an_error_or_leaves_training() -> None:
    given = rows(split=lambda number: ("train", "train", "val", "test")[number % 4])
    given[3] = given[0] | {"split": "test"}
    found = looked_at(given, columns={"split": "split"})
    ((severity, remedy),) = said(found, "leak")
    assert (severity, remedy[:50]) == ("error", "is in train, and as row 5 in test; remove one, or ")
    left = looked_at(given, columns={"split": "split"}, checks={"leak": "drop"})
    assert split_of_rows(left)[2] == "left out"
    assert split_of_rows(left)[5] == "test"
    assert [*left.report.dropped] == [(2, "leak")]
    assert {number: split for number, split in split_of_rows(left).items() if number != 2} == {
        number: row["split"] for number, row in enumerate(given, 2) if number != 2
    }, "the others are where they were said to be"


def test_a_row_that_names_no_split_is_an_error() -> None:
    given = rows(split=lambda number: "trian" if number == 7 else "train")
    found = looked_at(given, columns={"split": "split"})
    assert [(each.line, each.value) for each in found.report.problems if each.kind == "unknown_split"] == [(9, "trian")]


def test_nearly_the_same_text_in_two_splits_is_found() -> None:
    given = rows(400)
    placed = split_of_rows(looked_at(given))
    tested = next(number for number, split in placed.items() if split == "test")
    close = given[tested - 2]["text"]
    copies = [{"text": f"{close}{sign}", "label": given[tested - 2]["label"]} for sign in (" !", " ?", " .", " ;", " -")]
    found = looked_at([*given, *copies])
    near = [each for each in found.report.problems if each.kind == "near_duplicate"]
    assert near
    assert all(each.line == tested or each.line > 401 for each in near)
    assert "nearly the same (9" in near[0].remedy


def test_a_text_that_holds_its_label_and_a_column_that_says_it() -> None:
    given = rows(code=lambda number: number % 2)
    found = looked_at([row | {"text": f"[{row['label']}] {row['text']}"} for row in given])
    severities = dict(said(found, "leakage"))
    assert "warn" in severities
    assert "holds the label's own name in 100% of the rows" in severities["warn"]
    assert "the column 'code' says the label of every row" in severities["note"]
    tagged = looked_at([row | {"text": f"q{number % 2} {row['text']}"} for number, row in enumerate(rows())])
    assert "the first word of 'text' says the label of every row" in dict(said(tagged, "leakage"))["warn"]


def test_labels_far_from_balanced() -> None:
    given = rows(400, label=lambda number: "rare" if number in (5, 30, 31, 32) else "common")
    ((severity, remedy),) = said(looked_at(given, split={"by": "stratified"}), "imbalance")
    assert severity == "warn"
    assert remedy.startswith("labels are far from balanced: 'common' (396, row 2), 'rare' (4, row 7)")
    assert said(looked_at(given, split={"by": "stratified"}, checks={"imbalance": "error"}), "imbalance")[0][0] == "error"


def test_what_the_window_cuts_off_and_what_the_tokenizer_does_not_know(tiny_bert: Path) -> None:
    encoder = TextEncoder.read(tiny_bert)
    long = looked_at([row | {"text": row["text"] * 4} for row in rows()], encoder)
    assert "task.max_length: 16 cuts off" in said(long, "cut_off")[0][1]
    signs = looked_at(
        [row | {"text": f"{row['text'][:9]} 漢字 語"} for row in rows(label=lambda number: "ab"[number % 2])], encoder
    )
    assert "are unknown to the model's tokenizer" in said(signs, "unknown_tokens")[0][1]


def test_control_and_zero_width_characters_are_named() -> None:
    given = rows()
    given[4]["text"] += "\u200b"
    given[5]["text"] += "\x07"
    given[6]["text"] += "\n\tand a joined 👩\u200d🚀"
    found = [each for each in looked_at(given).report.problems if each.kind == "control_character"]
    assert [(each.line, each.severity) for each in found] == [(6, "note"), (7, "note")]
    assert "holds U+200B" in found[0].remedy


@pytest.mark.parametrize("kind", ["leak", "near_duplicate", "imbalance", "leakage", "cut_off", "unknown_tokens", "duplicate"])
def test_each_severity_can_be_set(kind: str) -> None:
    assert getattr(DataConfig.model_validate({"path": "a.csv", "columns": {}, "checks": {kind: "note"}}).checks, kind) == "note"
    with pytest.raises(ValueError, match="Input should be"):
        DataConfig.model_validate({"path": "a.csv", "columns": {}, "checks": {kind: "loud"}})


def test_large_data_are_looked_at_on_both_sides_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_module, "HELD_OUT", 30)
    monkeypatch.setattr(examine_module, "TRAINED", 150)
    given = rows(2_000)
    sampled: list[str] = []
    monkeypatch.setattr(examine_module.leakage, "check", lambda sample, *_: sampled.extend(each.split for each in sample))
    looked_at(given)
    assert Counter(split == "train" for split in sampled) == {True: 150, False: 30}
    assert {"val", "test"} <= {*sampled}
