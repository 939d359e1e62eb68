"""Tables as people export them: understood, or reported with row and remedy; the advice is followed and works."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finespun.errors import DataError
from tables import prepared, texts

COLUMNS = {"text": "text", "label": "label"}
MANY = {"text": "text", "labels": "labels"}
KINDS = ["complaint", "praise"]


def table(*columns: list[Any], header: str = "text,label", delimiter: str = ",") -> str:
    """A CSV of columns of equal length."""
    out = io.StringIO()
    out.write(header.replace(",", delimiter) + "\n")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(zip(*columns, strict=True))
    return out.getvalue()


def labels(count: int, names: list[str] = KINDS) -> list[str]:
    return [names[number % len(names)] for number in range(count)]


LISTS = [["complaint"], ["praise"], ["complaint", "praise"], []]
NOTATIONS = {
    "Python": str,
    "JSON": json.dumps,
    "NumPy": lambda each: "[" + " ".join(map(repr, each)) + "]",
    "delimiter": ";".join,
    "tuple": lambda each: str(tuple(each)),
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_list_in_a_cell_is_a_list(tmp_path: Path, tiny_bert: Path, notation: str) -> None:
    cells = [NOTATIONS[notation](LISTS[number % 4]) for number in range(80)]
    made = prepared(tmp_path, tiny_bert, table(texts(80), cells, header="text,labels"), task="multi_label", columns=MANY)
    assert made.labels == KINDS
    assert [row["target"] for row in made.rows()] == [
        [float(kind in LISTS[number % 4]) for kind in KINDS] for number in range(80)
    ]


def test_a_list_that_cannot_be_read_is_reported_and_json_is_the_way_out(tmp_path: Path, tiny_bert: Path) -> None:
    cells = ["['complaint', praise]", *labels(79)]
    with pytest.raises(DataError, match=r'mail.csv:2: labels .*write it as JSON: \["first", "second"\]'):
        prepared(tmp_path, tiny_bert, table(texts(80), cells, header="text,labels"), task="multi_label", columns=MANY)
    cells[0] = '["complaint", "praise"]'
    made = prepared(tmp_path, tiny_bert, table(texts(80), cells, header="text,labels"), task="multi_label", columns=MANY)
    assert made.rows()[0]["target"] == [1.0, 1.0]


def test_one_label_is_no_list(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="is a list written as text; write one label, or set task: multi_label"):
        prepared(tmp_path, tiny_bert, table(texts(80), [str([each]) for each in labels(80)]), columns=COLUMNS)
    content = table(texts(80), [str([each]) for each in labels(80)], header="text,labels")
    assert prepared(tmp_path, tiny_bert, content, task="multi_label", columns=MANY).labels == KINDS


def test_a_column_of_0_and_1_for_each_label(tmp_path: Path, tiny_bert: Path) -> None:
    yes = {"praise": ["1", "0"], "complaint": ["False", "TRUE"], "urgent": ["1.0", ""]}
    content = table(
        texts(80),
        *[[cells[number % 2] for number in range(80)] for cells in yes.values()],
        header="text,praise,complaint,urgent",
    )
    columns = {"text": "text", "labels": [*yes]}
    made = prepared(tmp_path, tiny_bert, content, task="multi_label", columns=columns)
    assert made.labels == [*yes], "in the order of the columns"
    assert [row["target"] for row in made.rows()[:2]] == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    with pytest.raises(DataError, match="column 'complaint' says 'maybe'; write 1 or 0"):
        prepared(tmp_path, tiny_bert, content.replace("TRUE", "maybe", 1), task="multi_label", columns=columns)


def test_numbers_and_truth_values_as_labels(tmp_path: Path, tiny_bert: Path) -> None:
    given = [1, 1.0, "1", True, "true", False, 10, 2] * 20
    lines = "".join(json.dumps({"text": text, "label": value}) + "\n" for text, value in zip(texts(160), given, strict=True))
    made = prepared(tmp_path, tiny_bert, lines, name="mail.jsonl", columns=COLUMNS)
    assert made.labels == ["1", "10", "2", "false", "true"]
    numbers = table(texts(200), labels(200, ["1", "10", "11", "2"]))
    assert prepared(tmp_path, tiny_bert, numbers, columns=COLUMNS).labels == ["1", "2", "10", "11"]


def test_labels_that_look_alike(tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "réclamation",
        "re\u0301clamation",
        "réclamation\u200b",
        "\ufeffréclamation",
        " réclamation",
        "Réclamation",
        "gelobt\xa0für",
    ]
    made = prepared(tmp_path, tiny_bert, table(texts(210), labels(210, names)), columns=COLUMNS)
    assert made.labels == ["Réclamation", "gelobt für", "réclamation"]
    assert "labels that look alike: 'Réclamation' (30, row 7) and 'réclamation' (150, row 2)" in capsys.readouterr().out
    strict: dict[str, Any] = {"columns": COLUMNS, "checks": {"lookalike_label": "error"}}
    with pytest.raises(DataError, match="write each in one way, or list those that are meant in data.labels"):
        prepared(tmp_path, tiny_bert, table(texts(210), labels(210, names)), **strict)
    prepared(tmp_path, tiny_bert, table(texts(210), labels(210, names)), **strict, labels=made.labels)


def test_bytes_in_parquet_are_texts(tmp_path: Path, tiny_bert: Path) -> None:
    def parquet(first: bytes) -> bytes:
        sink = io.BytesIO()
        cells = {"text": [first, *(each.encode() for each in texts(80)[1:])], "label": [each.encode() for each in labels(80)]}
        pq.write_table(pa.table(cells), sink)
        return sink.getvalue()

    made = prepared(tmp_path, tiny_bert, parquet("schön".encode()), name="mail.parquet", columns=COLUMNS)
    assert (made.labels, made.rows()[0]["text"]) == (KINDS, "schön")
    with pytest.raises(DataError, match="is bytes that are not UTF-8; write text"):
        prepared(tmp_path, tiny_bert, parquet(b"\xff\xfe\x00"), name="mail.parquet", columns=COLUMNS)


def test_parquet_in_shards(tmp_path: Path, tiny_bert: Path) -> None:
    for number in range(2):
        part = slice(40 * number, 40 * number + 40)
        path = tmp_path / "data" / "shards" / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": texts(80)[part], "label": labels(80)[part]}), path)
    made = prepared(tmp_path, tiny_bert, b"", path="data/shards", columns=COLUMNS)
    assert [row["text"] for row in made.rows()] == texts(80)


def test_a_quote_that_swallows_rows(tmp_path: Path, tiny_bert: Path) -> None:
    lines = [f"{text}\t{label}" for text, label in zip(texts(80), labels(80), strict=True)]
    lines[10], lines[50] = f'"{lines[10]}', f'5" {lines[50]}'.replace("\t", '"\t')
    content = "text\tlabel\n" + "\n".join(lines) + "\n"
    with pytest.raises(DataError, match=r"mail.tsv:12 to \d+: .*data.quoting: none"):
        prepared(tmp_path, tiny_bert, content, name="mail.tsv", columns=COLUMNS)
    made = prepared(tmp_path, tiny_bert, content, name="mail.tsv", columns=COLUMNS, quoting="none")
    assert (len(made.rows()), made.rows()[10]["text"][0]) == (80, '"')


def test_a_quoted_field_that_is_closed_after_rows(tmp_path: Path, tiny_bert: Path) -> None:
    lines = [f"{text}\t{label}" for text, label in zip(texts(80), labels(80), strict=True)]
    lines[10], lines[50] = f'"{lines[10]}', lines[50].replace("\t", '"\t')
    content = "text\tlabel\n" + "\n".join(lines) + "\n"
    with pytest.raises(
        DataError,
        match=r"mail.tsv:12 to 52: one field holds 39 whole rows and the ends of two: a quote is opened and not closed",
    ):
        prepared(tmp_path, tiny_bert, content, name="mail.tsv", columns=COLUMNS)
    assert len(prepared(tmp_path, tiny_bert, content, name="mail.tsv", columns=COLUMNS, quoting="none").rows()) == 80
    assert len(prepared(tmp_path, tiny_bert, content, name="mail.tsv", columns=COLUMNS, quoting="standard").rows()) == 40


def test_a_text_of_many_lines_is_no_runaway_quote(tmp_path: Path, tiny_bert: Path) -> None:
    poems = [f"{text}\nroses are red,\nviolets are blue,\nsugar is sweet,\nand so are you" for text in texts(80)]
    assert (
        len(prepared(tmp_path, tiny_bert, table(poems, labels(80), labels(80), header="text,label,c"), columns=COLUMNS).rows())
        == 80
    )


@pytest.mark.parametrize("extra", ["", ";", ";;;"])
@pytest.mark.parametrize("first", ["", "sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_what_excel_exports(tmp_path: Path, tiny_bert: Path, extra: str, first: str) -> None:
    lines = table(texts(80), labels(80), delimiter=";").splitlines()
    content = first + "".join(f"{line}{extra}\r\n" for line in lines)
    made = prepared(tmp_path, tiny_bert, "\ufeff" + content, columns=COLUMNS, **({} if first else {"delimiter": ";"}))
    assert (made.labels, len(made.rows())) == (KINDS, 80)
    assert made.rows()[0]["row"] == (3 if first else 2), "the line of the file"


def test_a_value_under_no_name_is_reported(tmp_path: Path, tiny_bert: Path) -> None:
    content = "text,label,\n" + "".join(f"{text},{label},\n" for text, label in zip(texts(80), labels(80), strict=True))
    assert len(prepared(tmp_path, tiny_bert, content, columns=COLUMNS).rows()) == 80
    with pytest.raises(DataError, match="mail.csv:3: has 3 fields, the header has 2"):
        prepared(tmp_path, tiny_bert, content.replace("praise,\n", "praise,x\n", 1), columns=COLUMNS)


def test_a_file_without_a_header(tmp_path: Path, tiny_bert: Path) -> None:
    rows = table(texts(80), labels(80)).partition("\n")[2]
    with pytest.raises(DataError, match="if the first line is a row already, write a line of column names above it"):
        prepared(
            tmp_path,
            tiny_bert,
            rows.replace("the ", "the very, very long and winding ", 1).replace("very, ", ""),
            columns=COLUMNS,
        )
    assert len(prepared(tmp_path, tiny_bert, "text,label\n" + rows, columns=COLUMNS).rows()) == 80


def test_texts_that_nobody_sees(tmp_path: Path, tiny_bert: Path) -> None:
    blank = ["\u200b\u200b", "\ufeff", "\xa0", " \t "]
    given: dict[str, Any] = {"columns": COLUMNS}
    with pytest.raises(DataError, match=r"empty text: 4 rows(.|\n)*data.checks.empty_text: drop"):
        prepared(tmp_path, tiny_bert, table([*blank, *texts(80)], labels(84)), **given)
    made = prepared(tmp_path, tiny_bert, table([*blank, *texts(80)], labels(84)), **given, checks={"empty_text": "drop"})
    assert len(made.rows()) == 80


def test_rows_that_are_cut_off_are_counted_on_the_console(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [f"{text} " * 8 if number % 4 == 0 else text for number, text in enumerate(texts(80))]
    prepared(tmp_path, tiny_bert, table(long, labels(80)), columns=COLUMNS)
    assert "20 of 80 rows are longer than task.max_length" in capsys.readouterr().out


def test_labels_that_match_nothing(tmp_path: Path, tiny_bert: Path) -> None:
    given: dict[str, Any] = {"columns": COLUMNS, "labels": ["Complaint", "Praise"], "checks": {"unknown_label": "drop"}}
    with pytest.raises(
        DataError, match="none of 80 rows is left: 80 by data.checks.unknown_label: drop; the rows say 'complaint', 'praise'"
    ):
        prepared(tmp_path, tiny_bert, table(texts(80), labels(80)), **given)
    assert len(prepared(tmp_path, tiny_bert, table(texts(80), labels(80)), **given | {"labels": KINDS}).rows()) == 80


def test_a_label_that_no_row_has(tmp_path: Path, tiny_bert: Path) -> None:
    given: dict[str, Any] = {"columns": COLUMNS, "labels": [*KINDS, "complait"]}
    with pytest.raises(DataError, match=r"no row has the label 'complait' \(did you mean 'complaint'\?\).*leave it out there"):
        prepared(tmp_path, tiny_bert, table(texts(80), labels(80)), **given)
    prepared(tmp_path, tiny_bert, table(texts(80), labels(80)), **given | {"labels": KINDS})


@pytest.mark.parametrize(("task", "header"), [("text_classification", "text,label"), ("multi_label", "text,labels")])
def test_a_long_tail_of_labels(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str], task: str, header: str
) -> None:
    role = header.partition(",")[2]
    names = [*labels(200), *[f"rare {number}" for number in range(40)]]
    given: dict[str, Any] = {"task": task, "columns": {"text": "text", role: role}}
    content = table(texts(240), names, header=header)
    with pytest.raises(DataError, match="rows with labels that no training row has: 'rare"):
        prepared(tmp_path, tiny_bert, content, **given)
    dropped = prepared(tmp_path, tiny_bert, content, **given, checks={"rare_label": "drop"})
    lost = 240 - len(dropped.rows())
    assert 0 < lost < 20
    assert len(dropped.labels) == 42 - lost
    assert "left out" in capsys.readouterr().out
    warned = prepared(tmp_path, tiny_bert, content, **given, checks={"rare_label": "warn"})
    assert (len(warned.labels), len(warned.rows())) == (42, 240)
    before = {row["row"] for row in warned.data.open("train").to_pylist()}
    covered = prepared(tmp_path, tiny_bert, content, **given, split={"cover_labels": True})
    assert (len(covered.labels), len(covered.rows())) == (42, 240)
    assert len(covered.profile["labels"]["train"]) == 42
    moved = {row["row"] for row in covered.data.open("train").to_pylist()} ^ before
    assert len(moved) == lost, "no other row moves"


@pytest.mark.parametrize("cell", ["1_000", "5%", "1 000", "nan", "inf", "five"])
def test_numbers_that_are_none(tmp_path: Path, tiny_bert: Path, cell: str) -> None:
    numbers = [cell, *[f"{number % 7}.5" for number in range(79)]]
    given: dict[str, Any] = {"task": "text_regression", "columns": {"text": "text", "target": "score"}}
    with pytest.raises(DataError, match=r"mail.csv:2: score .*set data.checks.bad_target: drop"):
        prepared(tmp_path, tiny_bert, table(texts(80), numbers, header="text,score"), **given)
    made = prepared(tmp_path, tiny_bert, table(texts(80), numbers, header="text,score"), **given, checks={"bad_target": "drop"})
    assert len(made.rows()) == 79


def test_words_tags_and_spans_as_pandas_writes_them(tmp_path: Path, tiny_bert: Path) -> None:
    words, tags = [f"['Ada{n}', 'wrote', 'it']" for n in range(60)], ["['B-PER', 'O', 'O']"] * 60
    given: dict[str, Any] = {"task": "token_classification", "columns": {"text": "words", "tags": "tags"}}
    made = prepared(tmp_path, tiny_bert, table(words, tags, header="words,tags"), **given)
    assert made.labels == ["O", "B-PER", "I-PER"]
    spans = [f"[{{'start': 0, 'end': {3 + len(str(n))}, 'label': 'PER'}}]" for n in range(60)]
    content = table([f"Ada{n} wrote it" for n in range(60)], spans, header="words,tags")
    again = prepared(tmp_path, tiny_bert, content, **given)
    assert [row["tags"] for row in again.rows()] == [row["tags"] for row in made.rows()]
