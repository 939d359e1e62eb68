"""A tag a word: scores equal seqeval's, whatever the form of the rows and however texts are cut; problems are named."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import seqeval.metrics as theirs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from seqeval.scheme import IOB2, IOBES
from sklearn.metrics import f1_score

from finespun.errors import DataError
from finespun.tasks.answers import word_tags
from finespun.tasks.answers.word_tags import IGNORED
from finespun.tasks.inputs.text import TextEncoder
from finespun.tasks.token_classification import TokenClassification
from helpers import real_rows

OPTIONS: dict[str, Any] = {"max_length": 16, "stride": 4, "label_smoothing": 0.0, "monitor": "val/f1", "monitor_mode": "max"}
TASK = TokenClassification(scheme="bio", **OPTIONS)
PLAIN = TokenClassification(scheme="plain", **{**OPTIONS, "monitor": "val/accuracy"})
TYPES = ["LOC", "PER"]
BIO = TASK.label_names(TYPES, {})
TEXT = "Ann Lee met Bo in Rome."
TAGS = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "O"]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> TextEncoder:
    return TextEncoder.read(tiny_bert)


def table(task: TokenClassification, rows: list[dict[str, Any]], encoder: TextEncoder, labels: list[str]) -> pa.Table:
    columns = task.encode(rows, encoder, labels)
    source = columns.pop("source")
    return pa.table({"row": source, **columns})


def drawn(task: TokenClassification, labels: list[str], encoder: TextEncoder, seed: int) -> tuple[pa.Table, list[np.ndarray]]:
    """Real words with random tags, most of them in several windows, and random answers that are often right."""
    random = np.random.Generator(np.random.Philox(seed))
    rows = [
        {"text": words, "tags": [labels[tag] for tag in random.integers(0, len(labels), len(words))]}
        for words in (row["text"].split() for row in real_rows(200)[seed % 190 :][:8])
    ]
    rows[0]["tags"] = ["O" if "O" in labels else labels[0]] * len(rows[0]["tags"])
    found = table(task, rows, encoder, labels)
    outputs = []
    for target in found["target"].to_pylist():
        chances = random.dirichlet(np.ones(len(labels)), len(target) + 2)  # as padded in a batch
        for place, label in enumerate(target):
            if label != IGNORED and random.random() < 0.7:
                chances[place, label] += 1
        outputs.append(chances)
    return found, outputs


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["bio", "bioes"]))
def test_scores_are_those_of_seqeval(encoder: TextEncoder, seed: int, scheme: Any) -> None:
    task = TASK.model_copy(update={"scheme": scheme})
    labels = task.label_names(TYPES, {})
    rows, outputs = drawn(task, labels, encoder, seed)
    judged = task.judge(rows, outputs, labels)
    assert judged.units == 8 < rows.num_rows
    ours = {name: value[0] for name, value in judged.scores(np.ones((1, 8))).items()}
    actual, predicted = (judged.table[name].to_pylist() for name in ("tags", "predicted"))
    assert [len(tags) for tags in predicted] == [len(words) for words in judged.table["words"].to_pylist()]
    strict = {"mode": "strict", "scheme": {"bio": IOB2, "bioes": IOBES}[scheme], "zero_division": 0}
    expected = {"accuracy": theirs.accuracy_score(actual, predicted), "f1_strict": theirs.f1_score(actual, predicted, **strict)}
    for name in ("precision", "recall", "f1"):
        score = getattr(theirs, f"{name}_score")
        expected[name] = score(actual, predicted, zero_division=0)
        expected[f"{name}_macro"] = score(actual, predicted, average="macro", zero_division=0)
        each = score(actual, predicted, average=None, zero_division=0)
        expected |= dict(zip((f"{name}/{kind}" for kind in TYPES), each, strict=True))
    assert ours == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_plain_tags_are_scored_as_by_scikit_learn(encoder: TextEncoder, seed: int) -> None:
    labels = ["ADJ", "NOUN", "O", "VERB"]
    rows, outputs = drawn(PLAIN, labels, encoder, seed)
    judged = PLAIN.judge(rows, outputs, labels)
    ours = judged.scores(np.ones((1, 8)))
    actual, predicted = ([*chain(*judged.table[name].to_pylist())] for name in ("tags", "predicted"))
    assert ours["accuracy"][0] == pytest.approx(np.mean(np.array(actual) == predicted))
    assert ours["f1_macro"][0] == pytest.approx(f1_score(actual, predicted, average="macro"))
    assert ours["f1/NOUN"][0] == pytest.approx(f1_score(actual, predicted, average=None, labels=["NOUN"])[0])
    assert (judged.actual, judged.predicted, judged.classes) == (actual, predicted, labels)


def test_a_type_that_is_neither_there_nor_found_is_in_no_mean(encoder: TextEncoder) -> None:
    rows = table(TASK, [{"text": TEXT, "tags": [[0, 7, "PER"]]}], encoder, BIO)
    judged = TASK.judge(rows, [np.eye(len(BIO))[np.maximum(rows["target"][0].as_py(), 0)]], BIO)
    scores = judged.scores(np.ones((1, 1)))
    assert (scores["f1_macro"][0], scores["f1/LOC"][0]) == (1.0, 0.0)


def test_weights_are_the_same_as_repeating_documents(encoder: TextEncoder) -> None:
    rows, outputs = drawn(TASK, BIO, encoder, 3)
    judged = TASK.judge(rows, outputs, BIO)
    chosen = [0, 2, 2, 5, 5, 5, 7, 7]
    ours = judged.scores(np.bincount(chosen, minlength=8)[None].astype(float))
    actual, predicted = ([judged.table[name].to_pylist()[unit] for unit in chosen] for name in ("tags", "predicted"))
    assert ours["f1"][0] == pytest.approx(theirs.f1_score(actual, predicted))
    assert ours["f1_macro"][0] == pytest.approx(theirs.f1_score(actual, predicted, average="macro"))


def test_validation_metrics_add_up_over_padded_batches_and_ranks(encoder: TextEncoder) -> None:
    task = TASK.model_copy(update={"max_length": 64})  # a document a window: the numbers are those of `judge`
    rows, outputs = drawn(task, BIO, encoder, 5)
    scores = task.judge(rows, outputs, BIO).scores(np.ones((1, 8)))
    metrics = [task.metrics(BIO), task.metrics(BIO)]
    for start in range(0, 8, 2):
        columns = {name: rows[name].to_numpy()[start : start + 2] for name in ("input_ids", "target")}
        _, targets = task.collate(columns, encoder)
        assert targets is not None
        logits = torch.full((2, targets.shape[1], len(BIO)), -9.0)
        for row, output in enumerate(outputs[start : start + 2]):
            logits[row, : len(output)] = torch.tensor(output)[: targets.shape[1]].float()
        metrics[start % 4 // 2].update(logits, targets)
    for name, metric in metrics[0].items():
        other = metrics[1][name]
        assert {reduce.__name__ for reduce in metric._reductions.values()} == {"dim_zero_cat"}, "ranks are put together"
        metric.first, metric.second = metric.first + other.first, metric.second + other.second
        assert metric.compute().item() == pytest.approx(scores[name][0], abs=1e-6)


@pytest.mark.parametrize(
    "row",
    [
        {"text": ["Ann", "Lee", "met", "Bo", "in", "Rome", "."], "tags": TAGS},
        {"text": ["Ann", "Lee", "met", "Bo", "in", "Rome", "."], "tags": ["B-PER", "L-PER", "O", "U-PER", "O", "U-LOC", "O"]},
        {"text": "Ann Lee met Bo in Rome .", "tags": " ".join(TAGS)},
        {"text": TEXT, "tags": [{"start": 18, "end": 22, "label": "LOC"}, [0, 7, "PER"], ["12", "14", "PER"]]},
        {"text": TEXT, "tags": '[[0, 7, "PER"], [12, 15, "PER"], [18, 22, "LOC"]]'},
    ],
    ids=["bio", "bilou", "csv", "spans", "json"],
)
def test_every_form_of_a_row_gives_the_same_targets(encoder: TextEncoder, row: dict[str, Any]) -> None:
    assert list(TASK.problems(row, TYPES)) == []
    assert sorted(TASK.answers(row)) == ["LOC", "PER", "PER"]
    found = table(TASK, [row], encoder, BIO).to_pylist()[0]
    assert [BIO[tag] for tag in found["tags"]] == TAGS
    assert [BIO[found["target"][place]] for place in found["places"]] == TAGS
    assert sum(target == IGNORED for target in found["target"]) == found["length"] - len(TAGS)
    other = TASK.model_copy(update={"scheme": "bioes"})
    labels = other.label_names(TYPES, {})
    tags = [labels[tag] for tag in table(other, [row], encoder, labels).to_pylist()[0]["tags"]]
    assert tags == ["B-PER", "E-PER", "O", "S-PER", "O", "S-LOC", "O"]


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        ({"text": " ", "tags": []}, "empty_text", "is empty; write it, or set data.checks.empty_text: drop"),
        ({"text": ["a", " "], "tags": ["O", "O"]}, "empty_text", "word 2 is empty"),
        ({"text": [], "tags": []}, "empty_text", "is empty"),
        ({"text": ["a", "b"], "tags": ["O"]}, "bad_target", "has 1 tags for 2 words ('a' to 'b'); give each word one"),
        ({"text": ["a", "b"], "tags": ["O", "X_PER"]}, "bad_target", "word 2 ('b'): tag 'X_PER' is neither O nor B-TYPE"),
        ({"text": ["a"], "tags": [{"start": 0}]}, "bad_target", "are spans, which need a text and not a list of words"),
        ({"text": "a b", "tags": [[0, 9, "PER"]]}, "bad_target", "is not inside the text"),
        ({"text": ["a"], "tags": ["B-PERS"]}, "unknown_label", "'PERS' is not one of LOC, PER (did you mean 'PER'?)"),
        ({"text": "a", "tags": [[0, 1, "ORG"]]}, "unknown_label", "'ORG' is not one of LOC, PER; correct the row or add it"),
        ({"text": ["a", "b"], "tags": ["B-LOC", "I-PER"]}, "bad_transition", "word 2 ('b'): I-PER follows B-LOC"),
    ],
)
def test_what_is_wrong_with_a_row_is_named_and_nothing_falls_over(
    encoder: TextEncoder, row: dict[str, Any], kind: str, said: str
) -> None:
    [problem] = TASK.problems(row, TYPES)
    assert problem[:2] == (kind, "text" if kind == "empty_text" else "tags")
    assert said in problem[2]
    TASK.answers(row)
    tags = table(TASK, [row], encoder, BIO)["tags"][0].as_py()  # as with data.checks: warn
    assert kind != "unknown_label" or set(tags) == {0}, "a type that is none of the labels is no entity"


def test_plain_tags_may_be_anything_but_spans(encoder: TextEncoder) -> None:
    row = {"text": ["It", "rains", "hard"], "tags": ["PRON", "VERB", "B-X"]}
    assert list(PLAIN.problems(row, None)) == []
    assert PLAIN.answers(row) == ["PRON", "VERB", "B-X"]
    assert PLAIN.label_names(["VERB", "PRON"], {}) == ["VERB", "PRON"]
    assert "are spans, which plain tags are not" in next(iter(PLAIN.problems({"text": "a", "tags": [[0, 1, "X"]]}, None)))[2]
    assert PLAIN.answers({"text": "a", "tags": [[0, 1, "X"]]}) == []
    rows = table(PLAIN, [row], encoder, ["PRON", "VERB"])
    assert rows["tags"].to_pylist() == [[0, 1, IGNORED]]
    judged = PLAIN.judge(rows, [np.eye(2)[[0] * rows["length"][0].as_py()]], ["PRON", "VERB"])
    assert judged.scores(np.ones((1, 1)))["accuracy"][0] == 0.5, "a tag that is none of the labels counts nowhere"


def test_labels_are_types_and_there_must_be_some() -> None:
    assert BIO == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    with pytest.raises(DataError, match=r"data.labels: names tags \(B-PER, I-PER, O\); name types of entities, such as PER"):
        list(TASK.problems({"text": ["a"], "tags": ["B-PER"]}, ["O", "B-PER", "I-PER"]))
    with pytest.raises(DataError, match="no row has an entity"):
        TASK.label_names([], {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stride": 6}, "at most a third of max_length, here 5"),
        ({"max_length": 8}, "greater than or equal to 16"),
        ({"scheme": "plain"}, "scheme plain has no val/f1; monitor val/ and one of accuracy, f1_macro, loss"),
        ({"scheme": "bilou"}, "'bio', 'bioes', 'io' or 'plain'"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TokenClassification(**{"scheme": "bio", **OPTIONS, **changes})


def test_the_loss_is_the_mean_over_a_rows_words(encoder: TextEncoder) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 5, len(BIO))
    targets = torch.tensor([[IGNORED, 1, 2, 0, IGNORED], [IGNORED, 3, IGNORED, IGNORED, IGNORED], [IGNORED] * 5])
    losses = TASK.loss(logits, targets)
    mean = torch.nn.CrossEntropyLoss()  # skips -100, as transformers' own models do
    assert losses.tolist() == pytest.approx([mean(logits[0], targets[0]).item(), mean(logits[1], targets[1]).item(), 0.0])
    smooth = TASK.model_copy(update={"label_smoothing": 0.2})
    assert smooth.loss(logits, targets).tolist() == losses.tolist()
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(logits[0], targets[0]).item()
    assert smooth.loss(logits, targets, training=True)[0].item() == pytest.approx(expected)


def test_entities_have_the_characters_of_the_text_also_across_windows(encoder: TextEncoder) -> None:
    text = f"{TEXT} " * 6
    spans = [[offset + start, offset + end, kind] for offset in range(0, len(text), len(TEXT) + 1)
             for start, end, kind in ((0, 7, "PER"), (12, 14, "PER"), (18, 22, "LOC"))]  # fmt: skip
    rows = table(TASK, [{"text": text, "tags": spans}, {"text": "Bo", "tags": []}], encoder, BIO)
    assert rows.num_rows > 5
    outputs = [np.eye(len(BIO))[np.maximum(target, 0)] * 0.9 for target in rows["target"].to_pylist()]
    long, short = TASK.predictions(rows, outputs, BIO, top_k=3)
    assert long == {"entities": [
        {"text": text[start:end], "label": kind, "start": start, "end": end, "score": 0.9} for start, end, kind in spans
    ]}  # fmt: skip
    assert short == {"entities": []}
    judged = TASK.judge(rows, outputs, BIO)
    assert judged.scores(np.ones((1, 2)))["f1"][0] == 1.0
    assert judged.actual == judged.predicted == ["PER", "PER", "LOC"] * 6
    assert TASK.given(rows.to_pylist()[0]) == TASK.for_processor(rows.to_pylist()[0]) == {"text": text}


def test_a_word_that_the_tokenizer_leaves_out_is_outside(encoder: TextEncoder) -> None:
    row = {"text": ["Ann", "\u200b", "Lee"], "tags": ["B-PER", "I-PER", "I-PER"]}
    rows = table(TASK, [row], encoder, BIO)
    certain = np.eye(len(BIO))[[BIO.index("B-PER")] * rows["length"][0].as_py()]
    assert TASK.predictions(rows, [certain], BIO, top_k=1)[0]["tags"] == ["B-PER", "O", "B-PER"]
    assert TASK.judge(rows, [certain], BIO).table["tags"].to_pylist() == [row["tags"]]
    told = TASK.baselines(rows, rows, BIO)["usual_tag_of_word"]
    assert TASK.predictions(rows, told, BIO, top_k=1)[0]["tags"] == ["B-PER", "O", "I-PER"]


def test_pictures_show_what_was_missed_and_what_is_not_there(encoder: TextEncoder) -> None:
    rows = table(TASK, [{"text": TEXT, "tags": [[0, 7, "PER"], [12, 14, "PER"]]}], encoder, BIO)
    told = {0: "B-LOC", 1: "I-LOC", 2: "B-PER"}  # the first in another type, the second not at all, `met` instead
    chances = np.eye(len(BIO))[[0] * rows["length"][0].as_py()]
    for word, tag in told.items():
        chances[rows["places"][0].as_py()[word]] = np.eye(len(BIO))[BIO.index(tag)]
    judged = TASK.judge(rows, [chances], BIO)
    pairs = list(zip(judged.actual, judged.predicted, strict=True))
    assert pairs == [("PER", "LOC"), ("(none)", "PER"), ("PER", "(none)")]
    assert judged.classes == ["LOC", "PER", "(none)"]


def test_a_word_without_a_token_takes_no_answer_from_another() -> None:
    rows = pa.table({"places": [[-1, 0]], "length": [1]})  # of a tokenizer that adds no token at the end
    [found] = word_tags._certain([2, 1], rows, 3)
    assert found.tolist() == [[0.0, 1.0, 0.0]]


def test_simple_methods_know_the_most_frequent_tag_and_that_of_each_word(encoder: TextEncoder) -> None:
    rows = [{"text": TEXT, "tags": [[0, 7, "PER"], [18, 22, "LOC"]]}, {"text": f"In Rome {TEXT} " * 4, "tags": [[3, 7, "LOC"]]}]
    train = table(TASK, rows[:1], encoder, BIO)
    split = table(TASK, rows[1:], encoder, BIO)
    found = TASK.baselines(train, split, BIO)
    told = {name: TASK.predictions(split, outputs, BIO, top_k=1)[0]["entities"] for name, outputs in found.items()}
    assert told["most_frequent_tag"] == []
    assert [each["text"] for each in told["usual_tag_of_word"]] == ["Rome", "Ann Lee", "Rome"] * 4
