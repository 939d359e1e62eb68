"""Splits cannot leak: properties that hold for any rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finespun.config.sections import DataConfig, Split
from finespun.data.row_table import RowTable
from finespun.data.splits import SPLITS, assign, given_split, hashed, normalise, split_of, time_of

SPLIT = Split(train=0.8, val=0.1, test=0.1, seed=42)
TEXTS = st.text(min_size=1)


@given(TEXTS, st.sampled_from([str.upper, str.lower, str.title, lambda text: f"  {text}\t"]))
def test_texts_that_read_the_same_fall_together(text: str, change: object) -> None:
    assert callable(change)
    if normalise(change(text)) == normalise(text):  # some scripts change with case
        assert split_of(normalise(change(text)), SPLIT) == split_of(normalise(text), SPLIT)


@given(st.text(alphabet="abc XYZ\t", min_size=1))
def test_case_and_spaces_never_matter(text: str) -> None:
    assert normalise(f" {text.upper()}  ") == normalise(text.lower())


@given(st.lists(TEXTS, unique=True), st.lists(TEXTS, unique=True))
def test_adding_rows_moves_none(old: list[str], new: list[str]) -> None:
    before = {text: split_of(text, SPLIT) for text in old}
    after = {text: split_of(text, SPLIT) for text in [*new, *old]}
    assert before.items() <= after.items()


@given(TEXTS, st.floats(0.1, 0.8))
def test_a_smaller_training_share_only_takes_rows_out_of_it(text: str, share: float) -> None:
    smaller = Split(train=share, val=0.1, test=0.9 - share, seed=42)
    if split_of(text, smaller) == "train":
        assert split_of(text, SPLIT) == "train"


def test_shares_are_kept_and_the_seed_matters() -> None:
    texts = [f"text {number}" for number in range(20_000)]
    counts = Counter(split_of(text, SPLIT) for text in texts)
    assert set(counts) == set(SPLITS)
    assert abs(counts["train"] / 20_000 - 0.8) < 0.01
    assert abs(counts["test"] / 20_000 - 0.1) < 0.01
    other = Split(seed=7)
    assert sum(split_of(text, other) != split_of(text, SPLIT) for text in texts) > 4_000


Row = tuple[str, str, str]  # text, label, group or time


def table(rows: list[Row], *, keyed: str = "") -> RowTable:
    """Rows as checking keeps them; `keyed` says what the third value is."""
    made = RowTable()
    for number, (text, label, more) in enumerate(rows, 2):
        made.add(number, content=hashed(normalise(text), 42), target=label, answers=[label])
        if keyed == "group":
            made.keys.append(hashed(more, 42))
        if keyed == "time":
            made.times.append(time_of(more) or 0.0)
        if keyed == "split":
            made.given.append(given_split(more) or 0)
    return made


def splits(rows: list[Row], by: str, **data: Any) -> list[str]:
    columns = {"text": "text", "label": "label"}
    keyed = {"group": "group", "time": "time", "given": "split"}.get(by, "")
    columns |= {keyed: keyed} if keyed else {}
    config = DataConfig.model_validate(
        {"path": "a.csv", "columns": columns, **data, "split": {"by": by, **data.get("split", {})}}
    )
    return [SPLITS[code] for code in assign(table(rows, keyed=keyed), config)]


MANY = [(f"text {number}", "ab"[number % 7 == 0], str(number % 40)) for number in range(4_000)]
ROWS = st.lists(st.tuples(st.text(min_size=1), st.sampled_from("abc"), st.sampled_from("123456789")), min_size=1)
BY = ["hash", "stratified", "group"]


@given(ROWS, st.sampled_from(BY))
def test_duplicates_never_straddle_unless_their_groups_do(rows: list[Row], by: str) -> None:
    key = 2 if by == "group" else 0
    placed: dict[str, set[str]] = {}
    for row, split in zip([*rows, *rows], splits([*rows, *rows], by), strict=True):
        placed.setdefault(normalise(row[key]), set()).add(split)
    assert all(len(each) == 1 for each in placed.values())


@given(ROWS, ROWS, st.sampled_from(["hash", "group"]))
def test_adding_rows_moves_no_row(old: list[Row], new: list[Row], by: str) -> None:
    assert splits([*old, *new], by)[: len(old)] == splits(old, by)


@given(ROWS, st.sampled_from([*BY, "given"]), st.floats(0.05, 0.3))
def test_the_test_split_does_not_change_when_the_share_of_validation_does(rows: list[Row], by: str, val: float) -> None:
    given = [(text, label, ("train", "val", "test")[ord(more) % 3]) for text, label, more in rows] if by == "given" else rows
    one, other = (
        [split == "test" for split in splits(given, by, split={"train": 1 - 0.2 - share, "val": share, "test": 0.2})]
        for share in (0.1, val)
    )
    assert one == other


@pytest.mark.parametrize("by", ["hash", "stratified", "time"])
def test_shares_are_right(by: str) -> None:
    rows = [
        (text, label, f"2024-01-01T{number // 60 % 24:02}:{number % 60:02}") for number, (text, label, _) in enumerate(MANY)
    ]
    counts = Counter(splits(rows[:1440], by))
    for split, share in {"train": 0.8, "val": 0.1, "test": 0.1}.items():
        assert abs(counts[split] / 1440 - share) < 4 * (share * (1 - share) / 1440) ** 0.5


def test_stratified_splits_have_the_share_of_each_label() -> None:
    placed = Counter(zip(splits(MANY, "stratified"), (label for _, label, _ in MANY), strict=True))
    for label in "ab":
        total = sum(placed[split, label] for split in SPLITS)
        assert [placed[split, label] for split in SPLITS] == [total - 2 * round(total * 0.1), *[round(total * 0.1)] * 2]


@given(st.integers(3, 12), st.integers(18, 24))
def test_thirty_rows_have_every_label_in_each_split(rare: int, common: int) -> None:
    rows = [(f"row {number}", "rare" if number < rare else "common", "") for number in range(rare + common)]
    placed = {*zip(splits(rows, "stratified"), (label for _, label, _ in rows), strict=True)}
    assert placed == {(split, label) for split in SPLITS for label in ("rare", "common")}


@given(st.lists(st.integers(0, 50), min_size=10, unique=True).map(lambda days: [*days, *days]))
def test_what_is_tested_is_newer_than_what_is_trained_on(days: list[int]) -> None:
    rows = [(f"text {number}", "a", str(day)) for number, day in enumerate(days)]
    times = {
        split: [int(row[2]) for row, placed in zip(rows, splits(rows, "time"), strict=True) if placed == split]
        for split in SPLITS
    }
    assert times["train"]
    assert max(times["train"]) < min([*times["val"], *times["test"]])
    assert max(times["val"], default=0) < min(times["test"])


@pytest.mark.parametrize(
    ("text", "same"),
    [("2024-03-31", "20240331"), ("2024-03-31T12:00:00Z", "2024-03-31 12:00:00"), (" 7 ", "7.0"), ("1700000000", "1.7e9")],
)
def test_dates_and_numbers_are_times(text: str, same: str) -> None:
    assert time_of(text) == time_of(same) is not None


@pytest.mark.parametrize("text", ["", "31.03.2024", "yesterday", "03/31/2024"])
def test_what_could_be_two_dates_is_no_time(text: str) -> None:
    assert time_of(text) is None


@pytest.mark.parametrize("by", BY)
def test_each_row_but_those_of_the_test_split_validates_in_one_fold(by: str) -> None:
    folds = [splits(MANY, by, fold=fold, folds=4) for fold in range(4)]
    whole = splits(MANY, by)
    for row, split in enumerate(whole):
        placed = Counter(fold[row] for fold in folds)
        assert placed == ({"test": 4} if split == "test" else {"train": 3, "val": 1})
    sizes = [fold.count("val") for fold in folds]
    assert by == "group" or max(sizes) < 1.2 * min(sizes), "groups, of which there are few, are as large as they are"


def test_a_split_that_is_not_given_takes_its_share_of_the_training_rows() -> None:
    rows = [(text, label, "test" if number % 4 == 0 else "train") for number, (text, label, _) in enumerate(MANY)]
    placed = Counter(splits(rows, "given"))
    assert placed["test"] == 1000
    assert abs(placed["val"] / 3000 - 0.1 / 0.9) < 0.02
    dev = [(text, label, "dev" if more == "test" else "Training") for text, label, more in rows]
    assert Counter(splits(dev, "given"))["val"] == 1000


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"split": {"by": "group"}}, "split.by: group needs columns.group"),
        ({"split": {"by": "time"}}, "split.by: time needs columns.time"),
        ({"split": {"by": "given"}}, "split.by: given needs columns.split"),
        ({"fold": 5}, "fold: 5 is none of 5 folds; say one of 0 to 4"),
        ({"fold": 0, "columns": {"time": "day"}, "split": {"by": "time"}}, "fold needs rows in any order"),
        ({"columns": {"time": "day", "group": "who"}, "split": {"by": "time"}}, "columns.group would put one group on both"),
        ({"split": {"by": "chance"}}, "Input should be 'hash', 'stratified', 'group', 'time' or 'given'"),
    ],
)
def test_splits_that_cannot_be(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataConfig.model_validate({"path": "a.csv", "columns": {"text": "text"}, **data})


def test_a_table_of_rows_finds_every_repeated_content() -> None:
    contents = [number % 5_000 for number in range(20_000)]
    made = RowTable()
    for number, content in enumerate(contents):
        assert made.first(content) == (content if number >= 5_000 else None)
        made.add(number, content=content, target="", answers=[])
