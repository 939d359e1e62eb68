"""Checks: all problems of all rows in one report, each with row, column, value and remedy."""

from __future__ import annotations

import pytest

from finespun.config.sections import Checks, DataConfig, Filter
from finespun.data.checks import Report, check_rows
from finespun.data.sources import Line
from finespun.errors import DataError
from finespun.tasks.text_classification import TextClassification

TASK = TextClassification(max_length=8, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")
BAD = [("good film", "positive"), ("", "positive"), ("dull", "postive"), ("Good  FILM", "negative"), ("good film ", "positive")]


def config(**options: object) -> DataConfig:
    return DataConfig(
        path="reviews.csv", columns={"text": "text", "label": "label"}, labels=("negative", "positive"), **options
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


def test_missing_columns_are_all_named() -> None:
    data = DataConfig(path="r.csv", columns={"text": "body", "label": "lable"}, filters=(Filter(column="lang", drop=("fr",)),))
    with pytest.raises(DataError) as caught:
        check_rows([Line(2, {"text": "x", "label": "y"})], data, TASK)
    message = str(caught.value)
    assert "r.csv: has no column 'body' (data.columns.text); it has: label, text" in message
    assert "no column 'lable' (data.columns.label) (did you mean 'label'?)" in message
    assert "no column 'lang' (data.filters)" in message


def test_a_header_alone_is_no_data() -> None:
    with pytest.raises(DataError, match="holds a header but no rows"):
        check_rows([], config(), TASK)
