"""Tags and entities: read as seqeval reads them, written in any scheme; spans of every make; each mistake is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Tokens

from finespun.tasks.answers import tag_schemes as tagging

TEXT = "Ann Lee met Bo in Rome ."
WORDS = [(0, 3), (4, 7), (8, 11), (12, 14), (15, 17), (18, 22), (23, 24)]
STRICT = {"bio": IOB2, "bioes": IOBES}


def sequences(prefixes: str) -> st.SearchStrategy[list[str]]:
    tags = st.builds("{}-{}".format, st.sampled_from(prefixes), st.sampled_from(["PER", "LOC", "B-cell"]))
    return st.lists(st.one_of(st.just("O"), tags), min_size=1, max_size=12)


@given(sequences("BIES"))
def test_entities_are_those_of_seqeval_however_wrong_the_tags(tags: list[str]) -> None:
    assert tagging.entities(tags) == [(kind, start, end + 1) for kind, start, end in get_entities(tags)]


@pytest.mark.parametrize(("scheme", "prefixes"), [("bio", "BI"), ("bioes", "BIES")])
def test_faultless_entities_are_those_of_its_strict_mode(scheme: str, prefixes: str) -> None:
    @given(sequences(prefixes))
    def holds(tags: list[str]) -> None:
        theirs = [(each.tag, each.start, each.end) for each in Tokens(tags, STRICT[scheme]).entities]
        assert tagging.faultless(tags, scheme) == theirs

    holds()


@given(sequences("BI"), st.sampled_from(["bio", "bioes"]))
def test_what_is_written_is_read_back(tags: list[str], scheme: str) -> None:
    found = tagging.entities(tags)
    written = tagging.tags_of(found, len(tags), scheme)
    assert tagging.entities(written) == tagging.faultless(written, scheme) == found
    assert set(written) <= set(tagging.names({kind for kind, _, _ in found}, scheme))


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC"],
        ["I-PER", "I-PER", "O", "I-PER", "O", "I-LOC"],
        ["B-PER", "E-PER", "O", "S-PER", "O", "S-LOC"],
        ["B-PER", "L-PER", "O", "U-PER", "O", "U-LOC"],
    ],
)
def test_every_scheme_says_the_same(tags: list[str]) -> None:
    found = tagging.entities(tags)
    assert found == [("PER", 0, 2), ("PER", 3, 4), ("LOC", 5, 6)]
    assert tagging.tags_of(found, 6, "bio") == ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC"]
    assert tagging.tags_of(found, 6, "bioes") == ["B-PER", "E-PER", "O", "S-PER", "O", "S-LOC"]
    assert tagging.tags_of(found, 6, "io") == ["I-PER", "I-PER", "O", "I-PER", "O", "I-LOC"]


def test_bare_prefixes_are_entities_without_a_name() -> None:
    assert tagging.entities(["B", "I", "O"]) == [("_", 0, 2)]
    assert tagging.names({"_"}, "bio") == ["O", "B", "I"]
    assert tagging.tags_of([("_", 0, 2)], 3, "bio") == ["B", "I", "O"]


@pytest.mark.parametrize(
    "span",
    [
        {"start": 18, "end": 22, "label": "LOC"},
        {"start_offset": 18, "end_offset": 22, "label": "LOC", "id": 7},  # doccano
        {"start": 18, "end": 22, "text": "Rome", "labels": ["LOC"]},  # Label Studio
        ["18", "22", "LOC"],  # doccano, spaCy; numbers of lists have become text
    ],
)
def test_spans_of_every_make_are_read(span: object) -> None:
    assert tagging.as_span(span) == (18, 22, "LOC")
    assert tagging.in_words([span], WORDS) == [("LOC", 5, 6)]
    assert list(tagging.span_problems(TEXT, [span], WORDS)) == []


def test_whole_words_are_taken_and_the_first_of_two_that_overlap() -> None:
    assert tagging.in_words([[3, 13, "X"], [12, 14, "PER"], [17, 23, "LOC"], "?"], WORDS) == [("X", 1, 4), ("LOC", 5, 6)]
    assert tagging.in_words([[3, 4, "X"]], WORDS) == []


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([[0, 7, "PER"], {"start": 1}], "span 2 ({'start': 1}) is not a span; write"),
        ([{"start": 0, "end": 7, "label": ""}], "span 1 ({'start': 0, 'end': 7, 'label': ''}) is not a span; write"),
        ([[20, 30, "LOC"]], "span 1 (20 to 30, LOC) is not inside the text, whose characters are 0 to 24"),
        ([[5, 5, "LOC"]], "is not inside the text"),
        ([[-1, 3, "PER"]], "is not inside the text"),
        ([[3, 4, "PER"]], "holds no word"),
        ([[0, 7, "PER"], [4, 11, "ORG"]], "span 2 (4 to 11, ORG) overlaps 0 to 7, PER, and a word has one tag"),
        ([[0, 6, "PER"]], "begins or ends inside the word 'Lee'"),
        ([[19, 22, "LOC"]], "begins or ends inside the word 'Rome'"),
    ],
)
def test_what_is_wrong_with_spans_is_named(spans: list[object], said: str) -> None:
    [problem] = tagging.span_problems(TEXT, spans, WORDS)
    assert said in problem


def test_spaces_at_the_ends_of_a_span_and_the_same_span_twice_do_no_harm() -> None:
    assert list(tagging.span_problems(TEXT, [[17, 23, "LOC"], [17, 23, "LOC"]], WORDS)) == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["O", "B_PER"], "word 2 ('b'): tag 'B_PER' is neither O nor B-TYPE or I-TYPE (did you mean 'B-PER'?); correct it"),
        (["O", "b-per"], "(did you mean 'B-PER'?)"),
        (["NOUN", "VERB"], "set task.scheme: plain if the tags are no entities"),
        (["0", "3"], "tag '0' is a number, not the name of a tag; correct"),
        (["", "O"], "tag '' is neither"),
    ],
)
def test_what_is_no_tag_is_named(tags: list[str], said: str) -> None:
    [problem] = tagging.malformed(tags, ["a", "b"])
    assert said in problem


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["O", "I-PER", "B-LOC"], "word 2 ('b'): I-PER follows O: it is read as the beginning of an entity"),
        (["B-PER", "I-LOC", "O"], "I-LOC follows B-PER"),
        (["I-PER", "O", "B-LOC"], "I-PER follows the row's beginning"),
        (["O", "I-PER", "I-PER"], None),  # IO, or IOB1
        (["B-PER", "I-PER", "B-PER"], None),
    ],
)
def test_transitions_that_cannot_be_are_told(tags: list[str], said: str | None) -> None:
    problems = list(tagging.transitions(tags, ["a", "b", "c"]))
    assert len(problems) == (said is not None)
    assert said is None or said in problems[0]
