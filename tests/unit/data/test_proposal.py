"""`finespun init` reads files as somebody who knows them would: 41 unlike ones, made and real."""

# ruff: noqa: E501, RUF001, RUF005  (a table of files, and some are Russian)

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from finespun.data.proposal.columns import columns_of
from finespun.data.proposal.files import look
from finespun.data.proposal.tasks import SURE, Reading, reading_of
from finespun.data.proposal.written import data_file, set_dials
from finespun.data.sources.dialect import dialect_of, encoding_of
from finespun.errors import DataError
from finespun.own_data.init import _bring_files
from helpers import ROOT, write_digits

WORDS = [
    "wheel", "brake", "frame", "chain", "saddle", "light", "pedal", "tyre", "spoke", "rack", "is", "late", "broken", "the", "my",
    "never", "again", "arrived", "today", "good", "poor", "with", "and", "but", "order", "refund", "please", "thanks",
]  # fmt: skip
COUNT = 120
Make = Callable[[random.Random, int], Any]


def sentence(draw: random.Random, number: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(5, 14))).capitalize() + "."


def short(draw: random.Random, number: int) -> str:
    return f"{' '.join(draw.choices(WORDS, k=3))} {number}"


def one_of(*names: Any) -> Make:
    return lambda draw, number: names[draw.randrange(len(names))]


def several(*names: str, sign: str = "") -> Make:
    def make(draw: random.Random, number: int) -> Any:
        found = draw.sample(names, k=draw.randint(1, 3))
        return sign.join(found) if sign else found

    return make


def number_of(low: float, high: float, digits: int = 2) -> Make:
    return lambda draw, number: round(draw.uniform(low, high), digits)


def rows(**columns: Make) -> list[dict[str, Any]]:
    draw = random.Random(3)
    return [{name: make(draw, number) for name, make in columns.items()} for number in range(COUNT)]


def as_csv(
    given: Sequence[dict[str, Any]], delimiter: str = ",", *, header: bool = True, quoting: Any = csv.QUOTE_MINIMAL
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, quotechar=None if quoting == csv.QUOTE_NONE else '"')
    if header:
        writer.writerow(given[0])
    writer.writerows(row.values() for row in given)
    return out.getvalue()


def as_lines(given: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in given)


def tagged(draw: random.Random, number: int) -> tuple[list[str], list[str]]:
    words, tags = ["The", "order", "of"], ["O", "O", "O"]
    words += draw.sample(["Ada", "Grace", "Alan", "Edsger"], 1) + ["Byron", "from"]
    tags += ["B-PER", "I-PER", "O"]
    words += [draw.choice(["Paris", "London", "Rome"]), str(number)]
    return words, [*tags, "B-LOC", "O"]


def conll(delimiter: str = " ", *, middle: Sequence[str] = ()) -> str:
    draw = random.Random(3)
    blocks = []
    for number in range(40):
        words, tags = tagged(draw, number)
        blocks.append("".join(delimiter.join([word, *middle, tag]) + "\n" for word, tag in zip(words, tags, strict=True)))
    return "\n".join(blocks)


def spans(draw: random.Random, number: int) -> list[Any]:
    return [{"start": 0, "end": 3, "label": "PART"}]


def ids(draw: random.Random, number: int) -> int:
    return number


def day(draw: random.Random, number: int) -> str:
    return f"2024-{1 + number % 12:02}-{1 + number % 28:02}"


TEXT = "text_classification"
TABLE: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    # name: content, task, columns, settings
    "tickets.csv": (
        as_csv(rows(id=ids, body=sentence, queue=one_of("billing", "technical", "other"))), TEXT, {"text": "body", "label": "queue"}, {},
    ),
    "sentiment.tsv": (as_csv(rows(sentence=sentence, label=one_of(0, 1)), "\t"), TEXT, {"text": "sentence", "label": "label"}, {}),
    "semicolons.csv": (
        as_csv(rows(Kommentar=sentence, Kategorie=one_of("Lob", "Tadel")), ";"),
        TEXT, {"text": "Kommentar", "label": "Kategorie"}, {"delimiter": ";"},
    ),
    "pipes.txt": (
        as_csv(rows(text=sentence, topic=one_of("a", "b", "c")), "|"), TEXT, {"text": "text", "label": "topic"},
        {"format": "csv", "delimiter": "|"},
    ),
    "no_header.csv": (
        as_csv(rows(label=one_of("__pos__", "__neg__"), text=sentence), header=False), TEXT, {"text": "2", "label": "1"}, {"header": False},
    ),
    "kaggle_spam.csv": (
        as_csv([{**row, "": "", " ": ""} for row in rows(v1=one_of("ham", "spam"), v2=sentence)]), TEXT, {"text": "v2", "label": "v1"}, {},
    ),
    "spam.tsv": (
        as_csv(rows(label=one_of("ham", "ham", "ham", "spam"), text=sentence), "\t", header=False),
        TEXT, {"text": "2", "label": "1"}, {"header": False},
    ),
    "quotes.tsv": (
        as_csv(rows(text=lambda d, n: f'"{sentence(d, n)}' if n % 9 == 0 else sentence(d, n), label=one_of("x", "y")), "\t", quoting=csv.QUOTE_NONE),
        TEXT, {"text": "text", "label": "label"}, {"quoting": "none"},
    ),
    "pairs.jsonl": (
        as_lines(rows(premise=sentence, hypothesis=sentence, gold_label=one_of("entailment", "neutral", "contradiction"))),
        TEXT, {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"}, {},
    ),
    "quora.tsv": (
        as_csv(rows(id=ids, qid1=ids, qid2=ids, question1=sentence, question2=sentence, is_duplicate=one_of(0, 1)), "\t"),
        TEXT, {"text": "question1", "text_pair": "question2", "label": "is_duplicate"}, {},
    ),
    "sts.csv": (
        as_csv(rows(genre=one_of("news", "forum"), score=number_of(0, 5), sentence1=sentence, sentence2=sentence)),
        None, {"text": "sentence1", "text_pair": "sentence2"}, {},
    ),
    "similarity.csv": (
        as_csv(rows(sentence1=sentence, sentence2=sentence, score=number_of(0, 5))),
        "text_regression", {"text": "sentence1", "text_pair": "sentence2", "target": "score"}, {},
    ),
    "prices.csv": (
        as_csv(rows(sku=ids, description=sentence, price=number_of(1, 900))), "text_regression", {"text": "description", "target": "price"}, {},
    ),
    "stars.jsonl": (
        as_lines(rows(review_id=ids, stars=one_of(1, 2, 3, 4, 5), review_body=sentence)), TEXT, {"text": "review_body", "label": "stars"}, {},
    ),
    "toxic.csv": (
        as_csv(rows(id=ids, comment_text=sentence, toxic=one_of(0, 1), obscene=one_of(0, 0, 1), insult=one_of(0, 1))),
        "multi_label", {"text": "comment_text", "labels": ["toxic", "obscene", "insult"]}, {},
    ),
    "genres.csv": (
        as_csv(rows(title=short, plot_summary=sentence, genres=several("drama", "comedy", "crime", "war", sign="|"))),
        "multi_label", {"text": "plot_summary", "labels": "genres"}, {},
    ),
    "topics.jsonl": (
        as_lines(rows(text=sentence, topics=several("tax", "health", "school", "roads"))), "multi_label", {"text": "text", "labels": "topics"}, {},
    ),
    "pandas_lists.csv": (
        as_csv(rows(text=sentence, tags=several("tax", "health", "school", "roads"))), "multi_label", {"text": "text", "labels": "tags"}, {},
    ),
    "ner.conll": (conll(), "token_classification", {"text": "1", "tags": "2"}, {}),
    "conll2003.txt": (conll(middle=("NN", "B-NP")), "token_classification", {"text": "1", "tags": "4"}, {"format": "conll"}),
    "ner.jsonl": (
        as_lines([dict(zip(("tokens", "ner_tags"), tagged(random.Random(n), n), strict=True)) for n in range(40)]),
        "token_classification", {"text": "tokens", "tags": "ner_tags"}, {},
    ),
    "doccano.jsonl": (as_lines(rows(id=ids, text=sentence, entities=spans)), "token_classification", {"text": "text", "tags": "entities"}, {}),
    "spacy.jsonl": (
        as_lines(rows(text=sentence, label=lambda d, n: [[0, 3, "PART"]])), "token_classification", {"text": "text", "tags": "label"}, {},
    ),
    "pos.jsonl": (
        as_lines([
            {"words": (words := ["It", "is", f"word{n}", "."]), "upos": ["PRON", "AUX", "NOUN", "PUNCT"][: len(words)]} for n in range(40)
        ]),
        "part_of_speech", {"text": "words", "tags": "upos"}, {},
    ),
    "splits.csv": (
        as_csv(rows(text=sentence, label=one_of("a", "b"), split=one_of("train", "train", "dev", "test"))),
        TEXT, {"text": "text", "label": "label", "split": "split"}, {},
    ),
    "angebote.csv": (
        as_csv(rows(Nr=ids, Beschreibung=sentence, Preis=lambda d, n: f"{d.randint(1, 900)},{d.randint(10, 99)}"), ";").encode("cp1252"),
        "text_regression", {"text": "Beschreibung", "target": "Preis"}, {"delimiter": ";"},
    ),
    "dollars.csv": (
        as_csv(rows(description=sentence, price=lambda d, n: f"${d.randint(1, 900)}.{d.randint(10, 99)}")),
        "text_regression", {"text": "description", "target": "price"}, {},
    ),
    "amazon.jsonl": (
        as_lines(rows(
            asin=one_of(*[f"B00{n}" for n in range(30)]), helpful=lambda d, n: [d.randint(0, 3), 3], reviewText=sentence,
            overall=one_of(1.0, 2.0, 3.0, 4.0, 5.0), reviewTime=lambda d, n: f"05 {1 + n % 28}, 2014", summary=short,
        )),
        TEXT, {"text": "reviewText", "label": "overall"}, {},
    ),
    "alpaca.json": (
        json.dumps(rows(instruction=sentence, input=one_of(""), output=sentence)), "text_generation", {"text": "instruction", "target": "output"}, {},
    ),
    "translations.tsv": (as_csv(rows(en=sentence, de=sentence), "\t"), "text_generation", {"text": "en", "target": "de"}, {}),
    "intents.csv": (
        as_csv(rows(utterance=short, intent=one_of(*[f"intent_{n}" for n in range(20)]))), TEXT, {"text": "utterance", "label": "intent"}, {},
    ),
    "photos.csv": (
        as_csv(rows(path=lambda d, n: f"img/{n}.jpg", width=number_of(10, 99, 0), species=one_of("cat", "dog"))),
        "image_classification", {"image": "path", "label": "species"}, {},
    ),
    "calls.csv": (
        as_csv(rows(clip=lambda d, n: f"calls/{n}.wav", caller=one_of(*range(9)), reason=one_of("order", "refund"))),
        "audio_classification", {"audio": "clip", "label": "reason"}, {},
    ),
    "voices.tsv": (
        as_csv(rows(client_id=ids, path=lambda d, n: f"clip_{n}.mp3", sentence=sentence, accent=one_of("us", "gb")), "\t"),
        "speech_recognition", {"audio": "path", "target": "sentence"}, {},
    ),
    "sounds.jsonl": (
        as_lines(rows(file=lambda d, n: f"{n}.flac", tags=several("rain", "wind", "car", "dog"))),
        "audio_multi_label", {"audio": "file", "labels": "tags"}, {},
    ),
    "chat.jsonl": (
        as_lines(rows(conversation_id=lambda d, n: f"c{n // 6}", sent_at=day, message=sentence, resolved=one_of("true", "false"))),
        TEXT, {"text": "message", "label": "resolved"}, {},
    ),
    "chinese.csv": (
        as_csv(rows(review=lambda d, n: f"这个自行车很好用我很喜欢第{n}辆", sentiment=one_of("正面", "负面"))),
        TEXT, {"text": "review", "label": "sentiment"}, {},
    ),
    "windows.csv": (
        as_csv(rows(texte=lambda d, n: sentence(d, n) + " déçu à côté", avis=one_of("bon", "mauvais")), ";").encode("cp1252"),
        TEXT, {"text": "texte", "label": "avis"}, {"delimiter": ";", "encoding": "cp1252"},
    ),
    "excel.csv": (
        as_csv(rows(Text=sentence, Label=one_of("ja", "nein")), "\t").encode("utf-16"), TEXT, {"text": "Text", "label": "Label"},
        {"delimiter": "\t", "encoding": "utf-16"},
    ),
}  # fmt: skip


def proposed(path: Path) -> tuple[Reading, dict[str, Any]]:
    seen = look(path)
    return reading_of(columns_of(seen.rows), folder=seen.kind in {"images", "recordings"}), seen.settings


def test_a_name_that_only_ends_like_that_of_a_label_is_none() -> None:
    wines = rows(review=sentence, country=one_of("pt", "de", "it"), points=number_of(80, 96, 1), vintage=one_of("2001", "2002"))
    assert reading_of(columns_of(wines)).columns == {"text": "review", "target": "points"}


@pytest.mark.parametrize("name", TABLE)
def test_a_file_is_read_as_it_is_meant(tmp_path: Path, name: str) -> None:
    content, task, columns, settings = TABLE[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found, said = proposed(tmp_path / name)
    assert (found.columns.items() >= columns.items(), said) == (True, settings), (found, said)
    if task:
        assert (found.task, found.columns) == (task, columns), found
    else:
        assert found.certainty != SURE, "two readings are likely, and it says so"
    assert found.reasons


def test_what_is_shipped_is_read_as_conf_says(tmp_path: Path) -> None:
    found, _ = proposed(ROOT / "data" / "raw" / "movie_reviews.csv")
    assert (found.task, found.columns) == (TEXT, {"text": "text", "label": "sentiment"})
    assert any("'rating'" in reason for reason in found.reasons), "the other reading is named"
    found, _ = proposed(ROOT / "tests" / "data" / "entities.conll")
    assert (found.task, found.certainty) == ("token_classification", SURE)
    found, _ = proposed(write_digits(tmp_path / "digits", 40))
    assert (found.task, len(found.labels), found.columns) == ("image_classification", 10, {"image": "file", "label": "folder"})


def test_folders_are_read_as_they_are_meant(tmp_path: Path) -> None:
    content = {name: str(TABLE["tickets.csv"][0]).encode() for name in ("train.csv", "dev.csv", "test.csv")}
    folders: dict[str, tuple[dict[str, bytes], Any]] = {
        "splits": (content, {"test": "test.csv", "train": "train.csv", "val": "dev.csv"}),
        "parts": ({f"part-{n}.jsonl.gz": gzip.compress(str(TABLE["stars.jsonl"][0]).encode()) for n in range(3)}, "*.jsonl.gz"),
        "one": ({"tickets.csv": content["train.csv"], "README.md": b"about"}, "tickets.csv"),
    }
    for name, (files, parts) in folders.items():
        (tmp_path / name).mkdir()
        for file, inside in files.items():
            (tmp_path / name / file).write_bytes(inside)
        seen = look(tmp_path / name)
        found = reading_of(columns_of(seen.rows))
        assert (seen.parts, found.task) == (parts, TEXT)
        plain = yaml.safe_load(data_file(f"data/raw/{name}", seen, found))
        whole = (
            {split: f"data/raw/{name}/{part}" for split, part in parts.items()}
            if isinstance(parts, dict)
            else f"data/raw/{name}/{parts}"
        )
        assert plain["path"] == whole
        assert ("split" in plain) == (name != "splits"), "ready splits are kept"
    for split in ("train", "valid"):
        write_digits(tmp_path / "signs" / split, 20)
    assert look(tmp_path / "signs").parts == {"train": "train", "val": "valid"}
    for label in ("order", "refund", "order"):
        (tmp_path / "calls" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "calls" / label / f"{label}.WAV").touch()
    found, _ = proposed(tmp_path / "calls")
    assert (found.task, found.columns) == ("audio_classification", {"audio": "file", "label": "folder"})
    assert found.labels == {"order": 1, "refund": 1}
    (tmp_path / "one" / "more.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"holds files of several kinds \(.csv, .jsonl\); name one of them"):
        look(tmp_path / "one")


def test_a_folder_of_texts_has_a_sub_folder_for_each_label(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            (tmp_path / "mail" / split / label).mkdir(parents=True)
            for number in range(3):
                (tmp_path / "mail" / split / label / f"{number}.txt").write_text(f"what {label} {number} of {split} says")
    seen = look(tmp_path / "mail")
    found = reading_of(columns_of(seen.rows), folder=seen.kind == "images")
    assert (seen.kind, seen.parts, found.task) == ("texts", {"test": "test", "train": "train"}, TEXT)
    assert found.columns == {"text": "text", "label": "folder", "split": "(split)"}
    (tmp_path / "mail" / "train" / "pos" / "9.txt").write_bytes(b"gr\xfcn")
    with pytest.raises(DataError, match=r"9.txt: byte 0xfc is not utf-8; save it as UTF-8, or set data.encoding"):
        look(tmp_path / "mail")
    (tmp_path / "mail" / "train" / "pos" / "9.txt").rename(tmp_path / "mail" / "train" / "pos" / "9.doc")
    with pytest.raises(DataError, match=r"9.doc: is no text \(.txt\), as the other files of its folder are; remove it"):
        look(tmp_path / "mail")


def test_images_that_a_table_names_are_copied_with_it(tmp_path: Path) -> None:
    table, brought = tmp_path / "from" / "photos.csv", tmp_path / "project" / "photos.csv"
    write_digits(tmp_path / "from" / "images", 4)
    names = sorted(path.relative_to(table.parent).as_posix() for path in table.parent.rglob("*.png"))
    (tmp_path / "outside.png").write_bytes(b"")
    table.write_text("image,kind\n" + "".join(f"{name},a\n" for name in [*names, "../outside.png", "images/none.png"]))
    brought.parent.mkdir()
    _bring_files(table, look(table), Reading(task="image_classification", columns={"image": "image"}), brought)
    assert names
    assert sorted(path.relative_to(brought.parent).as_posix() for path in brought.parent.rglob("*") if path.is_file()) == names


def test_a_sorted_file_shows_all_its_labels(tmp_path: Path) -> None:
    lines = [f"{sentence(random.Random(number), 0)},{'good' if number < 15_000 else 'bad'}\n" for number in range(20_000)]
    (tmp_path / "sorted.csv").write_text("review,label\n" + "".join(lines))
    seen = look(tmp_path / "sorted.csv")
    assert seen.count == 20_000
    assert len(seen.rows) < 8_192
    assert {row["label"] for row in seen.rows} == {"good", "bad"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,n\n1,2\n2,3\n", "no column holds texts, images or recordings"),
        ("clip,seconds\na.wav,1.5\nb.wav,2.25\n", "no column looks like what is to be learnt"),
        ("text,id\nsome words here,1\nother words there,2\n", "no column looks like what is to be learnt"),
        ("text,label\n", "holds no rows"),
        (
            '{"content": {"title": "a", "body": "b c"}, "kind": "x"}',
            r"objects are in content \(title, body\): write each of their fields",
        ),
        ('{"messages": [{"role": "user", "content": "hello"}]}', r"objects are in messages \(role, content\)"),
        (
            "text,label\nsome words here,good\nother words there,good\n",
            r"beside the texts are label \(all 'good'\); say --task",
        ),
    ],
)
def test_what_cannot_be_learnt_is_said(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / ("odd.jsonl" if content.startswith("{") else "odd.csv")
    path.write_text(content)
    with pytest.raises(DataError, match=told):
        proposed(path)


@pytest.mark.parametrize(
    "name", ["tickets.csv", "toxic.csv", "splits.csv", "ner.conll", "chat.jsonl", "no_header.csv", "genres.csv"]
)
def test_the_file_that_is_written_says_what_was_found_with_reasons(tmp_path: Path, name: str) -> None:
    content, _, columns, settings = TABLE[name]
    (tmp_path / name).write_text(str(content))
    seen = look(tmp_path / name)
    found = reading_of(columns_of(seen.rows))
    text = data_file(f"data/raw/{name}", seen, found)
    plain = yaml.safe_load(text)
    given = {role: str(column) if isinstance(column, int) else column for role, column in plain["columns"].items()}
    assert (plain["path"], given) == (f"data/raw/{name}", columns)
    assert settings.items() <= plain.items()
    assert f"# - {found.reasons[0]}" in text
    if name == "chat.jsonl":
        assert "# group: conversation_id" in text
        assert "# time: sent_at" in text
    assert ("stratified" in text) == (name not in {"splits.csv", "ner.conll"})


def test_dials_are_set_and_comments_stay() -> None:
    text = "# The dials\ndata: movie_reviews # what\ntask:   text_classification\nseed: 42\n"
    assert set_dials(text, {"data": "mail", "task": "multi_label", "model": "minilm"}) == (
        "# The dials\ndata: mail # what\ntask: multi_label\nseed: 42\nmodel: minilm\n"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1251"])
def test_encodings(encoding: str) -> None:
    text = "текст,метка\nпривет, как дела,хорошо\n" * 20
    found = encoding_of(text.encode(encoding))
    assert text.encode(encoding).decode(found).removeprefix("\ufeff") == text


def test_one_bad_byte_in_utf_8_is_no_other_encoding() -> None:
    sample = ("schön,gut\n" * 50).encode() + b"k\xe4se,gut\n" + ("grün,gut\n" * 50).encode()
    assert encoding_of(sample) == "utf-8"
    assert encoding_of("schön,gut\n".encode("cp1252") * 50) == "cp1252"
    assert encoding_of(("\N{REPLACEMENT CHARACTER}" * 9 + "ö\n").encode() * 50) == "utf-8"  # it stands there itself


def test_columns_that_are_known_decide_on_the_delimiter() -> None:
    sample = b"a;b,text;label\n1;2,good, fine;x\n3;4,bad;y\n"
    assert dialect_of(sample, columns=["text;label"]).delimiter == ","
    assert dialect_of(sample, columns=["a", "label"]).delimiter == ";"
