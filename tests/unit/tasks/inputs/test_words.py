"""Words and windows: found in any script, aligned as transformers aligns them, each answered once and where it is seen best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from finespun.tasks.inputs.words import align, find_words, read
from helpers import real_rows


def document(text: Any) -> Any:
    return read({"text": text})


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann O'Neill (39) paid $10.50!!!", ["Ann", "O", "'", "Neill", "(", "39", ")", "paid", "$", "10", ".", "50", "!!!"]),
        ("naïve café… it«s x_y", ["naïve", "café", "…", "it", "«", "s", "x", "_", "y"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("他在北京。", ["他", "在", "北", "京", "。"]),
        (" \t\x1c\n", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    assert document(text).strings == words == [text[start:end] for start, end in find_words(text)]


def test_given_words_are_a_text_with_spaces() -> None:
    found = document(["New York", "is", "big", "."])
    assert (found.text, found.strings, found.listed) == ("New York is big .", ["New York", "is", "big", "."], True)


def test_first_sub_words_are_those_of_transformers(tokenizer: Tokenizer, tiny_bert: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.no_truncation()
    cut = 0
    for row in real_rows(40):
        words = row["text"].split()
        reference = theirs(words, is_split_into_words=True)
        _, [window] = align(document(words), tokenizer.encode(" ".join(words)), stride=0)
        assert window.ids == reference["input_ids"]
        assert window.places.tolist() == [reference.word_ids().index(number) for number in range(len(words))]
        cut += len(set(window.places.tolist())) < len(reference["input_ids"]) - 2
    assert cut > 20, "some words have several sub-words"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 39), st.integers(16, 40), st.floats(0, 1))
def test_each_word_is_answered_once_where_it_has_most_context(
    tokenizer: Tokenizer, tiny_bert: Path, number: int, max_length: int, share: float
) -> None:
    stride = int(max_length // 3 * share)
    text = " ".join(row["text"] for row in real_rows(40)[number : number + 3])
    tokenizer.enable_truncation(max_length, stride=stride)
    words, windows = align(document(text), tokenizer.encode(text), stride=stride)
    theirs = AutoTokenizer.from_pretrained(tiny_bert)(
        text, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    assert [window.ids for window in windows] == theirs["input_ids"]
    begun = [{start: place for place, (start, end) in list(enumerate(offsets))[::-1] if start < end}
             for offsets in theirs["offset_mapping"]]  # fmt: skip
    last, answered = len(windows) - 1, iter(words)
    for this, window in enumerate(windows):
        for place in window.places.tolist():
            start = next(answered)[0]
            context = {
                which: min(places[start] - 1 if which else 10**6, len(windows[which].ids) - 2 - places[start] if which < last
                           else 10**6)
                for which, places in enumerate(begun) if start in places
            }  # fmt: skip
            assert begun[this][start] == place
            assert context[this] == max(context.values())
    assert next(answered, None) is None


def whole_words(*vocabulary: str) -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["[UNK]", *vocabulary])}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="[UNK] $A", special_tokens=[("[UNK]", 0)])
    return made


def test_words_that_share_a_token_become_one_where_the_row_gave_no_words() -> None:
    text = "他在 北京大学 ok"
    words, [window] = align(document(text), whole_words("ok").encode(text), stride=0)
    assert [text[start:end] for start, end in words] == ["他在", "北京大学", "ok"]
    assert window.places.tolist() == [1, 2, 3]


def test_a_given_word_that_the_tokenizer_leaves_out_has_no_place(tokenizer: Tokenizer) -> None:
    tokenizer.no_truncation()
    given = ["a", "\u200b", "film", "\u200d"]
    words, [window] = align(document(given), tokenizer.encode(" ".join(given)), stride=0)
    assert (len(words), window.places.tolist()) == (4, [1, -1, 2, -1])
    words, [window] = align(document("a \u200b film"), tokenizer.encode("a \u200b film"), stride=0)
    assert (words, window.places.tolist()) == ([(0, 1), (4, 8)], [1, 2])
    words, [window] = align(document("\u200b"), tokenizer.encode("\u200b"), stride=0)
    assert (words, window.places.tolist()) == ([], [])
    words, [window] = align(document(["\u200b"]), tokenizer.encode("\u200b"), stride=0)
    assert window.places.tolist() == [-1]


@pytest.mark.parametrize(
    ("values", "strings", "tags", "spans"),
    [
        ({"text": "Ann sings", "tags": "B-PER O"}, ["Ann", "sings"], ["B-PER", "O"], False),
        ({"text": "Ann sings.", "tags": '["B-PER", "O"]'}, ["Ann", "sings."], ["B-PER", "O"], False),
        ({"text": ["Ann", "sings"], "tags": ["B-PER", "O"]}, ["Ann", "sings"], ["B-PER", "O"], False),
        ({"text": "Ann sings.", "tags": '[[0, 3, "PER"]]'}, ["Ann", "sings", "."], [[0, 3, "PER"]], True),
        ({"text": "Ann sings.", "tags": [{"start": 0}]}, ["Ann", "sings", "."], [{"start": 0}], True),
        ({"text": "It rains.", "tags": ""}, ["It", "rains", "."], [], True),
        ({"text": ["It", "rains"], "tags": []}, ["It", "rains"], [], False),
        ({"text": "It rains."}, ["It", "rains", "."], None, False),
    ],
)
def test_rows_are_read_in_all_their_forms(values: dict[str, Any], strings: list[str], tags: Any, spans: bool) -> None:
    found = read(values)
    assert (found.strings, found.tags, found.spans) == (strings, tags, spans)


def test_offsets_are_characters_not_bytes(tokenizer: Tokenizer) -> None:
    text = "naïve 🙂 café film"
    tokenizer.no_truncation()
    words, [window] = align(document(text), tokenizer.encode(text), stride=0)
    assert [text[start:end] for start, end in words] == ["naïve", "🙂", "café", "film"]
    assert np.all(np.diff(window.places) > 0)
