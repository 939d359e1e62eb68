"""What a cell says: lists in three notations, numbers, labels that look alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finespun.data.cells import as_text, in_order, is_blank, is_list, label_name, look_alikes, number_problem, read_list


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("['a', 'b']", ["a", "b"]),
        ('["a", "b;c"]', ["a", "b;c"]),
        ("['it\\'s', \"b\"]", ["it's", "b"]),
        ("['a' 'b']", ["a", "b"]),
        ("['a'\n 'b'\n 'c']", ["a", "b", "c"]),
        ("[1 2 3]", [1, 2, 3]),
        ("('a',)", ["a"]),
        ("[]", []),
        ("[1, 2.5]", [1, 2.5]),
        ("[['B-PER', 'O']]", [["B-PER", "O"]]),
        ("[{'start': 0, 'end': 3, 'label': 'PER'}]", [{"start": 0, "end": 3, "label": "PER"}]),
        ("['a', None]", ["a", None]),
    ],
)
def test_lists_in_cells_are_read(text: str, values: list[Any]) -> None:
    assert is_list(text)
    assert read_list(text) == values


@pytest.mark.parametrize("text", ["[PAD]", "[sic] he said", "(good)", "", "[", "a, b", "[a, b]", "(see below)"])
def test_texts_in_brackets_are_texts(text: str) -> None:
    assert not is_list(text)


@pytest.mark.parametrize(
    "text",
    ["['a', __import__('os').system('touch X')]", "['a", "[" * 50 + "'a'" + "]" * 50, "['a', b]", "['a'] * 10**9",
     "['a' for _ in x]"],
)  # fmt: skip
def test_what_is_no_list_of_plain_values_is_refused_and_not_run(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no list|brackets"):
        read_list(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1, "1"), (1.0, "1"), (1.5, "1.5"), (None, ""), (float("nan"), ""), (b"caf\xc3\xa9", "café"),
     ("1.0", "1.0"), (np.int64(3), "3"), (np.bool_(True), "true"), ([1.0, b"x"], ["1", "x"])],
)  # fmt: skip
def test_values_become_text(value: Any, text: Any) -> None:
    assert as_text(value) == text


def test_bytes_that_are_no_text_stay_bytes() -> None:
    assert isinstance(as_text(b"\xff\xfe"), bytes)


@pytest.mark.parametrize("text", ["", "  \t\n", "\u200b\u200b", "\ufeff", "\xa0", "\u2060\u00ad"])
def test_what_cannot_be_seen_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}x")


@pytest.mark.parametrize(
    "text", ["re\u0301clamation", "\ufeffréclamation", "réclamation\u200b", " réclamation ", "r\u00adéclamation"]
)
def test_labels_are_spelt_in_one_way(text: str) -> None:
    assert label_name(text) == "réclamation"


def test_no_break_spaces_and_joiners_inside_words() -> None:
    assert label_name("gelobt\xa0für") == "gelobt für"
    assert label_name("👩\u200d🔬 lab") == "👩\u200d🔬 lab"
    assert label_name("a  b\tc") == "a b c"


def test_what_looks_alike_is_grouped() -> None:
    assert look_alikes(["spam", "Spam", "ham", "1", "1.0", "01", "new york", "newyork", "ﬁne", "fine"]) == [
        ["Spam", "spam"], ["01", "1", "1.0"], ["new york", "newyork"], ["fine", "ﬁne"],
    ]  # fmt: skip
    assert look_alikes(["1", "2", "a", "b"]) == []


def test_numbers_are_in_the_order_of_their_values() -> None:
    assert in_order(["10", "2", "1", "-1", "1.5"]) == ["-1", "1", "1.5", "2", "10"]
    assert in_order(["b", "10", "2"]) == ["10", "2", "b"]


@pytest.mark.parametrize("text", ["1", "-1.5", "+2", ".5", "3.", "1e-3", " 4 "])
def test_plain_numbers(text: str) -> None:
    assert number_problem(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("1_000", "write 1000"), ("1,5", "write 1.5"), ("1,000", "1000 if it groups thousands"), ("1,000,000", "write 1000000"),
     ("1 000", "write 1000"), ("nan", "is not a number"), ("inf", "is not a number"), ("1e999", "too large"),
     ("", "not a number"), ("१", "not a number"), ("0x10", "not a number"), ("5 stars", "not a number"),
     ("1\xa0000", "write 1000")],
)  # fmt: skip
def test_what_python_would_take_for_a_number_and_people_would_not(text: str, words: str) -> None:
    assert words in (number_problem(text) or "")
