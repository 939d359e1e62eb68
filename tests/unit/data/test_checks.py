"""Checks: all problems of all rows in one report, each with row, column, value and remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from finespun.config.sections import Checks, DataConfig, Filter, Target
from finespun.config.targets import build
from finespun.data import check_report
from finespun.data.check_report import Report
from finespun.data.checks import check_rows, role_values
from finespun.data.dataset_checks.left_out import write_dropped
from finespun.data.sources.tables import Line
from finespun.errors import DataError
from finespun.tasks.text_classification import TextClassification
from helpers import ROOT

TASK = TextClassification(max_length=8, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")
BAD = [("good film", "positive"), ("", "positive"), ("dull", "postive"), ("Good  FILM", "negative"), ("good film ", "positive")]


def config(**options: object) -> DataConfig:
    return DataConfig(
        **{"path": "reviews.csv", "columns": {"text": "text", "label": "label"}, "labels": ("negative", "positive")} | options
    )


def checked(rows: list[tuple[str, str]], **options: object) -> Report:
    lines = [Line(number, {"text": text, "label": label}) for number, (text, label) in enumerate(rows, 2)]
    return check_rows(lines, config(**options), TASK)


def test_every_kind_of_problem_is_reported_at_once() -> None:
    report = checked(BAD)
    assert report.counts("error") == {"empty_text": 1, "unknown_label": 1, "conflicting_labels": 1}
    assert report.counts("warn") == {"duplicate": 1}
    text = report.text("error")
    assert "reviews.csv:3: text '': is empty; write the text" in text
    assert (
        "reviews.csv:4: label 'postive': is not one of negative, positive (did you mean 'positive'?);"
        " correct the row or add it to data.labels" in text
    )
    assert "reviews.csv:5: text 'Good  FILM': same text as row 2 but labelled 'negative', not 'positive'" in text
    assert "reviews.csv:6" in report.text("warn")


def test_spaces_around_a_label_make_no_other_label() -> None:
    rows = [("good film", "positive "), ("good film", "positive"), ("dull", " negative")]
    report = checked(rows, labels=None)
    assert report.counts("error") == {}
    assert report.counts("warn") == {"duplicate": 1}
    assert report.answers == {"positive": 2, "negative": 1}
    assert checked(rows).counts("error") == {}, "nor where labels are listed"


def test_a_terminal_is_not_flooded() -> None:
    text = checked([("", "positive")] * 100).text("error")
    assert "empty text: 100 rows" in text
    assert "... and 95 more" in text
    assert len(text.splitlines()) < 10


def test_dropping_leaves_rows_out_and_counts_them() -> None:
    drop = Checks(empty_text="drop", unknown_label="drop", duplicate="drop", conflicting_labels="drop")
    report = checked(BAD, checks=drop)
    assert report.left_out == {3, 4, 5, 6}
    assert report.answers == {"positive": 1}


def test_a_filter_is_declared_and_counted() -> None:
    report = checked([("a", "neutral"), ("b", "positive")], filters=(Filter(column="label", drop=("neutral",)),))
    assert report.filtered == {"label=neutral": 1}
    assert not report.problems
    assert report.left_out == {2}


def test_a_filter_sees_numbers_as_texts_and_needs_its_column_in_every_row() -> None:
    rows = [{"text": "a", "label": "positive", "year": 1999}, {"text": "b", "label": "positive", "year": 2001}]
    rows += [{"text": "c", "label": "negative"}]
    data = config(filters=(Filter(column="year", drop=("1999",)),))
    report = check_rows([Line(number, row) for number, row in enumerate(rows, 1)], data, TASK)
    assert (report.filtered, report.left_out) == ({"year=1999": 1}, {1})
    assert report.counts("error") == {"missing_column": 1}
    assert "reviews.csv:3: year '': is not in this row" in report.text("error")


def test_a_header_that_nothing_divides_is_told_of_the_delimiter() -> None:
    with pytest.raises(
        DataError, match="has no column 'text' .*; it has: text;label; correct data.columns.text or data.delimiter"
    ):
        check_rows([Line(2, {"text;label": "good;positive"})], config(), TASK)


def test_missing_columns_are_all_named() -> None:
    data = DataConfig(path="r.csv", columns={"text": "body", "label": "lable"}, filters=(Filter(column="lang", drop=("fr",)),))
    with pytest.raises(DataError) as caught:
        check_rows([Line(2, {"text": "x", "label": "y"})], data, TASK)
    message = str(caught.value)
    assert "r.csv: has no column 'body' (data.columns.text); it has: label, text" in message
    assert "no column 'lable' (data.columns.label) (did you mean 'label'?)" in message
    assert "no column 'lang' (data.filters)" in message


def test_an_empty_label_is_told_also_where_labels_are_not_listed() -> None:
    data = DataConfig(path="r.csv", columns={"text": "text", "label": "label"})
    report = check_rows([Line(2, {"text": "x", "label": "any"}), Line(3, {"text": "y", "label": " "})], data, TASK)
    assert report.counts("error") == {"unknown_label": 1}
    assert "r.csv:3: label '': is empty; write the label" in report.text("error")
    assert report.answers == {"any": 1}


def test_a_header_alone_is_no_data() -> None:
    with pytest.raises(DataError, match="holds no rows"):
        check_rows([], config(), TASK)


def test_a_row_without_a_column_is_named_with_its_line() -> None:
    rows = [{"text": "a", "label": "positive"}, {"text": "b"}, {"label": "negative"}]
    data = config(filters=(Filter(column="label", drop=("neutral",)),))
    report = check_rows([Line(number, row) for number, row in enumerate(rows, 1)], data, TASK)
    assert report.counts("error") == {"missing_column": 2}
    text = report.text("error")
    assert "reviews.csv:2: label '': is not in this row, which has: text; write it, as null where there is nothing" in text
    assert "reviews.csv:3: text '': is not in this row, which has: label; write it" in text


@pytest.mark.parametrize("row", [{"text": ["a", "b"], "label": "positive"}, {"text": "a", "label": ["positive"]}])
def test_a_list_where_a_text_is_needed_is_named_with_its_line(row: dict[str, object]) -> None:
    report = check_rows([Line(1, {"text": "good", "label": "positive"}), Line(2, row)], config(), TASK)
    [problem] = report.problems
    assert (problem.kind, problem.severity, problem.line) == ("unexpected_list", "error", 2)
    assert "is a list, where one text is needed; write one, or name one column in data.columns" in str(problem)


@pytest.mark.parametrize("row", [{"text": {"en": "a"}, "label": "positive"}, {"text": "a", "label": {"name": "positive"}}])
def test_an_object_where_a_text_is_needed_is_no_text(row: dict[str, object]) -> None:
    [problem] = check_rows([Line(1, row)], config(), TASK).problems
    assert "is an object, where one text is needed" in str(problem)


def test_several_columns_where_a_text_is_needed_are_named() -> None:
    data = DataConfig(path="r.csv", columns={"text": ["title", "body"], "label": "label"})
    report = check_rows([Line(2, {"title": "a", "body": "b", "label": "x"})], data, TASK)
    assert report.text("error").splitlines()[1].startswith("  r.csv:2: title, body 'a, b': is a list")


def test_words_and_their_tags_are_lists() -> None:
    task = build("task", Target(**yaml.safe_load((ROOT / "conf" / "task" / "token_classification.yaml").read_text())))
    data = DataConfig(path="r.jsonl", columns={"text": "words", "tags": "tags"})
    row = {"words": ["Ada", "wrote"], "tags": ["B-PER", "O"]}
    assert not check_rows([Line(1, row)], data, task).problems


def test_a_row_with_a_mere_warning_is_compared_with_the_others() -> None:
    rows = [("", "positive"), ("", "positive"), ("", "negative")]
    report = checked(rows, checks=Checks(empty_text="warn"))
    assert report.counts("warn") == {"empty_text": 3, "duplicate": 1}
    assert report.counts("error") == {"conflicting_labels": 1}


@pytest.mark.parametrize("value", [None, float("nan"), np.float64("nan"), pd.NA, pd.NaT])
def test_a_missing_value_is_the_empty_text(value: object) -> None:
    assert role_values({"text": value, "more": [value, "nan"]}, {"text": "text", "text_pair": "more"}, TASK) == {
        "text": "",
        "text_pair": ["", "nan"],
    }


def test_very_many_problems_are_all_reported_and_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("" if number % 3 else f"text {number // 6}", "positive") for number in range(60)]
    checks = Checks(empty_text="drop", duplicate="drop")
    in_memory = checked(rows, checks=checks)
    monkeypatch.setattr(check_report, "IN_MEMORY", 5)
    report = checked(rows, checks=checks)
    assert report.problems._more is not None
    assert [*report.problems] == [*in_memory.problems]
    assert report.text("drop") == in_memory.text("drop")
    assert len(report.problems) == 40 + 10
    write_dropped(report, tmp_path / "dropped.parquet")
    dropped = pq.read_table(tmp_path / "dropped.parquet").to_pylist()
    assert [(each["row"], each["reason"], each["value"]) for each in dropped] == [
        (number, "duplicate" if text else "empty_text", text)
        for number, (text, _) in enumerate(rows, 2)
        if not text or (number - 2) % 6
    ]
