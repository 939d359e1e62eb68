"""Files, lines and cells that are not what they seem: each is reported with its place, and what the message advises works."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finespun.errors import ConfigError, DataError
from tables import Prepared, prepared, texts

COLUMNS = {"text": "text", "label": "label"}
KINDS = ["complaint", "praise"]
TEXTS, LABELS = texts(80), [KINDS[number % 2] for number in range(80)]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
COMMA = "}\n{"


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


PARQUET = parquet(text=[text * 50 for text in TEXTS], label=LABELS)
TWO_OF_A_NAME = pa.Table.from_arrays([pa.array(TEXTS), pa.array(LABELS), pa.array(LABELS)], names=["text", "label", "label"])


def two_columns_of_one_name() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TWO_OF_A_NAME, sink)
    return sink.getvalue()


# name of the file, what is in it, what is said, and what the advice makes of it (a content, or keys of conf/data)
FILES: dict[str, tuple[str, str | bytes, str, str | bytes | dict[str, Any] | None]] = {
    "gzip": ("a.csv", gzip.compress(CSV.encode()), "a.csv: is a gzip file .*call it so, or unpack it", CSV),
    "spreadsheet": ("a.csv", b"PK\x03\x04" + bytes(100), "a ZIP archive or a spreadsheet; call it .zip, or save its sheet as CSV", CSV),
    "old spreadsheet": ("a.csv", b"\xd0\xcf\x11\xe0" + bytes(100), "save its sheet as CSV", CSV),
    "Parquet": ("a.csv", PARQUET, "is a Parquet file; set data.format: parquet", {"format": "parquet"}),
    "NUL": ("a.csv", CSV.replace("bell", "be\0ll", 1), "a.csv:5: holds a NUL character, which is no text; remove it", CSV),
    "cut short by a crash": ("a.csv", CSV + "\0\0\0", "a.csv:82: holds a NUL character", CSV),
    "NUL in JSON Lines": ("a.jsonl", JSONL + "\0\0", "a.jsonl:81: holds a NUL", JSONL),
    "empty lines alone": ("a.csv", "\n\n \n", "a.csv: is empty; put your rows into it", CSV),
    "header alone": ("a.csv", "text,label\n", "a.csv: holds no rows", CSV),
    "two files joined": ("a.csv", CSV + CSV.replace("order", "bill"), "a.csv:82: repeats the header, .*remove the line", CSV),
    "columns without names": ("a.csv", CSV.replace(",", ",,,"), "a.csv:1: the columns 2, 3 have no name; .*remove them", CSV),
    "commas in a TSV": ("a.tsv", CSV, "a .tsv is divided by tabs: call it .csv to set data.delimiter", None),
    "no header, short": ("a.csv", CSV.partition("\n")[2], "if the first line is a row already, write a line of column names above", CSV),
    "trailing commas": ("a.jsonl", JSONL.replace(COMMA, "},\n{"), "a.jsonl:1: .*remove the comma at the line's end", JSONL),
    "a key twice": ("a.jsonl", JSONL + '{"text": "a", "label": "b", "label": "c"}', "a.jsonl:81: says the key 'label' twice", JSONL),
    "a huge number": ("a.jsonl", JSONL + '{"text": "a", "label": %s}' % ("1" * 5000), "a.jsonl:81: holds a number of thousands", JSONL),
    "deep": ("a.jsonl", JSONL + "[" * 100_000, "a.jsonl:81: has too many brackets", JSONL),
    "torn": ("a.jsonl", JSONL + '{"text": "a', "a.jsonl:81: is not JSON", JSONL),
    "damaged Parquet": ("a.parquet", PARQUET[:200] + bytes(200) + PARQUET[400:], "a.parquet: row 1 or one after it is damaged .*write it again", PARQUET),
    "Parquet cut short": ("a.parquet", PARQUET[:500], "a.parquet: is not Parquet", PARQUET),
    "Parquet, a name twice": ("a.parquet", two_columns_of_one_name(), "has two columns called 'label'; rename one", PARQUET),
    "images in Parquet": ("a.parquet", parquet(text=[{"bytes": b"\xff", "path": "a"}] * 80, label=LABELS), "is an image inside the table", None),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_what_it_seems(case: str, tmp_path: Path, tiny_bert: Path) -> None:
    name, content, said, mended = FILES[case]
    with pytest.raises(DataError, match=said):
        prepared(tmp_path, tiny_bert, content, name=name, columns=COLUMNS)
    if isinstance(mended, dict):
        assert len(prepared(tmp_path, tiny_bert, content, name=name, columns=COLUMNS, **mended).rows()) == 80
    elif mended is not None:
        assert len(prepared(tmp_path, tiny_bert, mended, name=name, columns=COLUMNS).rows()) == 80


def test_a_tsv_of_commas_is_read_as_csv(tmp_path: Path, tiny_bert: Path) -> None:
    assert len(prepared(tmp_path, tiny_bert, CSV, name="a.csv", columns=COLUMNS).rows()) == 80


@pytest.mark.parametrize("content", [json.dumps(ROWS), json.dumps(ROWS, indent=1)], ids=["a line", "many lines"])
def test_an_array_is_json_as_is_said(content: str, tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="a file of one array is JSON: call it .json, or set data.format: json"):
        prepared(tmp_path, tiny_bert, content, name="a.jsonl", columns=COLUMNS)
    assert len(prepared(tmp_path, tiny_bert, content, name="a.jsonl", columns=COLUMNS, format="json").rows()) == 80
    assert len(prepared(tmp_path, tiny_bert, content, name="a.json", columns=COLUMNS).rows()) == 80


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_an_encoding_is_found_and_what_is_declared_wins(encoding: str, tmp_path: Path, tiny_bert: Path) -> None:
    assert len(prepared(tmp_path, tiny_bert, CSV.encode(encoding), columns=COLUMNS).rows()) == 80
    with pytest.raises(DataError, match=f"set data.encoding: {encoding}"):
        prepared(tmp_path, tiny_bert, CSV.encode(encoding), columns=COLUMNS, encoding="utf-8")


UNDERSTOOD: dict[str, tuple[str, str]] = {
    "empty lines above": ("a.csv", "\n\n" + CSV),
    "two marks": ("a.csv", "\ufeff\ufeff" + CSV),
    "a mark in the middle": ("a.jsonl", JSONL.replace(COMMA, "}\n\ufeff{", 1)),
    "mixed line ends": ("a.csv", CSV.replace("\n", "\r\n", 20)),
    "old line ends": ("a.csv", CSV.replace("\n", "\r")),
    "spaces under no name": ("a.csv", CSV.replace("\n", ", \n")),
    "quoted header": ("a.csv", CSV.replace("text,label", '"text","label"')),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_a_file_that_is_understood(case: str, tmp_path: Path, tiny_bert: Path) -> None:
    name, content = UNDERSTOOD[case]
    made = prepared(tmp_path, tiny_bert, content, name=name, columns=COLUMNS)
    assert (made.labels, [row["text"] for row in made.rows()]) == (KINDS, TEXTS)


@pytest.mark.parametrize("header", ["Text", "text ", "\xa0text", "text\u200b", "\u200btext", "TEXT", "te\u00adxt"])
def test_a_column_that_is_nearly_called_so_is_meant_and_its_name_can_be_copied(
    header: str, tmp_path: Path, tiny_bert: Path
) -> None:
    content = CSV.replace("text,", f"{header},", 1)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, tiny_bert, content, columns=COLUMNS)
    assert f"(did you mean {header!r}?)" in str(caught.value)
    assert str(caught.value).isascii(), "what nobody sees is written as an escape"
    assert len(prepared(tmp_path, tiny_bert, content, columns=COLUMNS | {"text": header}).rows()) == 80


def cells(of: Callable[[int], str], header: str) -> str:
    sink = io.StringIO()
    sink.write(f"text,{header}\n")
    for number, text in enumerate(TEXTS):
        sink.write(f'"{text}","{of(number).replace(chr(34), chr(34) * 2)}"\n')
    return sink.getvalue()


NOTATIONS = [
    "[complaint, praise]", "{'complaint', 'praise'}", "frozenset({'complaint'})", "{complaint,praise}", '{"complaint": 1}',
    "array(['complaint'], dtype=object)", "Index(['complaint'])", "[np.str_('complaint')]", "['complaint', 'pra",
    "['complaint', ..., 'praise']", "['complaint' ... 'praise']", "[['complaint']]", "[{'name': 'complaint'}]",
]  # fmt: skip


@pytest.mark.parametrize("cell", NOTATIONS)
def test_a_list_in_a_notation_that_is_not_read_is_reported_and_json_is_read(cell: str, tmp_path: Path, tiny_bert: Path) -> None:
    given: dict[str, Any] = {"task": "multi_label", "columns": {"text": "text", "labels": "labels"}}
    with pytest.raises(DataError, match=r"unexpected list: 1 row\n  data/mail.csv:2: labels "):
        prepared(tmp_path, tiny_bert, cells(lambda number: LABELS[number] if number else cell, "labels"), **given)
    made = prepared(
        tmp_path, tiny_bert, cells(lambda number: LABELS[number] if number else '["complaint", "praise"]', "labels"), **given
    )
    assert (made.labels, made.rows()[0]["target"]) == (KINDS, [1.0, 1.0])


def test_names_in_brackets_are_names_where_they_are_listed(tmp_path: Path, tiny_bert: Path) -> None:
    names = ["[a, b]", "{c: d}"]
    content = cells(lambda number: names[number % 2], "label")
    with pytest.raises(DataError, match="unexpected list: 80 rows"):
        prepared(tmp_path, tiny_bert, content, columns=COLUMNS)
    assert prepared(tmp_path, tiny_bert, content, columns=COLUMNS, labels=names).labels == names


def test_a_vector_of_0_and_1_in_a_cell_is_no_list_of_names(tmp_path: Path, tiny_bert: Path) -> None:
    given: dict[str, Any] = {"task": "multi_label", "columns": {"text": "text", "labels": "labels"}}
    with pytest.raises(
        DataError, match="is a list of 0 and 1; write the names of those that are 1, or a column for each label"
    ):
        prepared(tmp_path, tiny_bert, cells(lambda number: str([number % 2, 0, 1 - number % 2]), "labels"), **given)


@pytest.mark.parametrize("cell", ["0.7", "-1", "2", "spam", "?"])
def test_a_cell_of_a_column_of_0_and_1_that_says_neither(cell: str, tmp_path: Path, tiny_bert: Path) -> None:
    content = "text,spam,ham\n" + "".join(f"{text},{n % 2 if n else cell},{1 - n % 2}\n" for n, text in enumerate(TEXTS))
    given: dict[str, Any] = {"task": "multi_label", "columns": {"text": "text", "labels": ["spam", "ham"]}}
    with pytest.raises(DataError, match=rf"mail.csv:2: .*column 'spam' says '{cell}'".replace("?", r"\?")):
        prepared(tmp_path, tiny_bert, content, **given)
    assert len(prepared(tmp_path, tiny_bert, content, **given, checks={"bad_target": "drop"}).rows()) == 79
    with pytest.raises(ConfigError, match="bad_target: warn would keep rows"):
        prepared(tmp_path, tiny_bert, content, **given, checks={"bad_target": "warn"})


def test_columns_of_0_and_1_keep_their_order_or_that_of_the_labels_and_all_say_1_somewhere(
    tmp_path: Path, tiny_bert: Path
) -> None:
    content = "text,spam,ham,none\n" + "".join(f"{text},{n % 2},{1 - n % 2},0\n" for n, text in enumerate(TEXTS))
    given: dict[str, Any] = {"task": "multi_label", "columns": {"text": "text", "labels": ["spam", "ham", "none"]}}
    with pytest.raises(DataError, match="no row has the label 'none'.*leave it out of data.columns.labels"):
        prepared(tmp_path, tiny_bert, content, **given)
    given["columns"]["labels"] = ["spam", "ham"]
    assert prepared(tmp_path, tiny_bert, content, **given).labels == ["spam", "ham"]
    assert prepared(tmp_path, tiny_bert, content, **given, labels=["ham", "spam"]).labels == ["ham", "spam"]
    with pytest.raises(ConfigError, match="labels names spam twice"):
        prepared(tmp_path, tiny_bert, content, task="multi_label", columns={"text": "text", "labels": ["spam", "spam"]})


@pytest.mark.parametrize("column", ["text", "label"])
def test_bytes_that_python_wrote_as_text(column: str, tmp_path: Path, tiny_bert: Path) -> None:
    def content(write: Callable[[str], Any]) -> str:
        return "text,label\n" + "".join(
            ",".join(str(write(value)) if name == column else value for name, value in row.items()) + "\n" for row in ROWS
        )

    wrong = content(lambda value: value.encode())
    with pytest.raises(DataError, match=rf"bytes as text: 80 rows .*\n  data/mail.csv:2: {column} .*decode them"):
        prepared(tmp_path, tiny_bert, wrong, columns=COLUMNS)
    assert prepared(tmp_path, tiny_bert, content(lambda value: value.encode().decode()), columns=COLUMNS).labels == KINDS
    assert len(prepared(tmp_path, tiny_bert, wrong, columns=COLUMNS, checks={"bytes_as_text": "warn"}).rows()) == 80


@pytest.mark.parametrize("value", ["nan", "NULL", "#REF!", "N/A", "<NA>", "\\N"])
@pytest.mark.parametrize("column", ["text", "label"])
def test_how_programs_write_that_there_is_no_value(
    column: str, value: str, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    content = CSV + ",".join([value, "praise"] if column == "text" else ["one more text", value]) + "\n"
    given: dict[str, Any] = {"columns": COLUMNS, "split": {"cover_labels": True}}
    assert len(prepared(tmp_path, tiny_bert, content, **given).rows()) == 81
    assert f"data/mail.csv:82: {column} {value!r}: is how programs write" in capsys.readouterr().out
    dropped = prepared(tmp_path, tiny_bert, content, **given, checks={"no_value": "drop"})
    assert (len(dropped.rows()), dropped.labels) == (80, KINDS)


def test_labels_that_differ_only_in_what_nobody_sees_are_named_twice(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="data.labels: names 'réc' twice, in characters that look the same"):
        prepared(tmp_path, tiny_bert, CSV, columns=COLUMNS, labels=["réc", "re\u0301c", "praise"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["1", "true", "0", "false"], "'1' (20, row 2) and 'true' (20, row 3)"),
        (["spam", "sp\u0430m", "ham"], "'spam' (27, row 2) and 'sp\u0430m' (27, row 3)"),
        (["e-mail", "e\u2013mail", "e_mail"], "look alike"),
        (
            ["complaint|praise", "praise", "complaint"],
            "labels that seem to be several, with '|' between them: 'complaint|praise'",
        ),
        (["complaint, delivery", "praise", "delivery"], "with ',' between them: 'complaint, delivery'"),
    ],
)
def test_labels_that_may_not_be_what_is_meant_are_a_warning_with_counts(
    names: list[str], said: str, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    content = cells(lambda number: names[number % len(names)], "label")
    prepared(tmp_path, tiny_bert, content, columns=COLUMNS)
    assert said in capsys.readouterr().out
    prepared(tmp_path, tiny_bert, content, columns=COLUMNS, labels=names)
    assert "look alike" not in (out := capsys.readouterr().out), "they are meant, for they are listed"
    assert "seem to be" not in out


def test_labels_that_mean_what_they_say_are_no_warning(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["C", "C++", "C#", "new york", "new jersey", "sci/med"]
    prepared(
        tmp_path, tiny_bert, cells(lambda number: names[number % 6], "label"), columns=COLUMNS, split={"cover_labels": True}
    )
    assert "look alike" not in (out := capsys.readouterr().out)
    assert "seem to be" not in out


def quoted(lines: list[str], delimiter: str) -> Callable[[Path, Path], Prepared]:
    content = delimiter.join(("text", "label")) + "\n" + "".join(f"{line}\n" for line in lines)
    return lambda folder, bert, **more: prepared(folder, bert, content, columns=COLUMNS, delimiter=delimiter, **more)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("swallowed", [1, 2, 3, 40])
def test_a_quote_that_swallows_a_few_rows(swallowed: int, delimiter: str, tmp_path: Path, tiny_bert: Path) -> None:
    lines = [f"{row['text']}{delimiter}{row['label']}" for row in ROWS]
    lines[10], last = f'"{lines[10]}', 10 + swallowed
    lines[last] = lines[last].replace(delimiter, f'"{delimiter}')
    go = quoted(lines, delimiter)
    with pytest.raises(DataError, match=rf"mail.csv:12 to {last + 2}: one field holds .*set data.quoting: none"):
        go(tmp_path, tiny_bert)
    assert len(go(tmp_path, tiny_bert, quoting="none").rows()) == 80
    assert len(go(tmp_path, tiny_bert, quoting="standard").rows()) == 80 - swallowed


@pytest.mark.parametrize(
    "cell",
    [
        "roses are red,\nviolets are blue,\nsugar is sweet",
        "Main Street 5,Flat 2\nBerlin",
        "Dear all, \nthanks, \nbye",
        "a\n\n\nb",
    ],
)
def test_a_field_of_several_lines_is_a_field(cell: str, tmp_path: Path, tiny_bert: Path) -> None:
    lines = [f'"{row["text"]} {cell}",{row["label"]}' for row in ROWS]
    assert len(quoted(lines, ",")(tmp_path, tiny_bert).rows()) == 80


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ("1.234,5", "write 1234.5, and convert the whole column"), ("0,5", "write 0.5,"), ("1'000", "write 1000"),
        ("1.000.000", "write 1000000"), ("1,234,567.89", "write 1234567.89"), ("1\u202f000", "write 1000"),
        ("1 000,5", "write 1000.5"), ("\uff15", "write 5"), ("\u22125", "write -5"), ("5%", "write 5 alone"),
        ("€ 5", "write 5 alone"), ("1/2", "is not a number"),
        ("1:30", "is not a number"), ("true", "is not a number"), ("½", "is not a number"), ("1,000", "1000 if it groups thousands"),
    ],
)  # fmt: skip
def test_a_number_in_another_notation_is_reported_with_the_number_that_may_be_meant(
    cell: str, remedy: str, tmp_path: Path, tiny_bert: Path
) -> None:  # fmt: skip
    given: dict[str, Any] = {"task": "text_regression", "columns": {"text": "text", "target": "score"}}
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, tiny_bert, cells(lambda number: str(number % 7) if number else cell, "score"), **given)
    assert remedy in str(caught.value)
    if "write " in remedy:
        number = remedy.split("write ")[1].split(",", maxsplit=1)[0].split(maxsplit=1)[0]
        made = prepared(tmp_path, tiny_bert, cells(lambda n: str(n % 7) if n else number, "score"), **given)
        assert made.rows()[0]["target"] == [float(number)]


@pytest.mark.parametrize("tags", ["['NNP', nan]", "['NNP', '']", '["NNP", null]'])
def test_a_word_without_a_tag_is_reported(tags: str, tmp_path: Path, tiny_bert: Path) -> None:
    def rows(first: str) -> str:
        return "words,tags\n" + "".join(
            f"\"['Ada{n}', 'x']\",\"{(first if not n else good).replace(chr(34), chr(34) * 2)}\"\n" for n in range(60)
        )

    good = "['NNP', 'VB']"
    given: dict[str, Any] = {"task": "part_of_speech", "columns": {"text": "words", "tags": "tags"}}
    with pytest.raises(DataError, match=r"mail.csv:2: tags .*word 2 \('x'\) has an empty tag"):
        prepared(tmp_path, tiny_bert, rows(tags), **given)
    assert prepared(tmp_path, tiny_bert, rows(tags), **given, checks={"bad_target": "drop"}).labels == ["NNP", "VB"]
    assert prepared(tmp_path, tiny_bert, rows(good), **given).labels == ["NNP", "VB"]


@pytest.mark.parametrize("spans", ["[(0, 3, 'PER')]", "((0, 3, 'PER'),)", '[[0, 3, "PER"]]', "[[0.0, 3.0, 'PER']]"])
def test_spans_in_the_notation_of_python(spans: str, tmp_path: Path, tiny_bert: Path) -> None:
    content = "words,tags\n" + "".join(f'Ada wrote{n},"{spans.replace(chr(34), chr(34) * 2)}"\n' for n in range(60))
    made = prepared(tmp_path, tiny_bert, content, task="token_classification", columns={"text": "words", "tags": "tags"})
    assert made.labels == ["O", "B-PER", "I-PER"]


def test_labels_in_another_order_or_notation_are_no_conflict(tmp_path: Path, tiny_bert: Path) -> None:
    given: dict[str, Any] = {"task": "multi_label", "columns": {"text": "text", "labels": "labels"}}
    content = cells(lambda number: LABELS[number], "labels") + "same,complaint;praise\nsame,\"['praise', 'complaint']\"\n"
    assert len(prepared(tmp_path, tiny_bert, content, **given).rows()) == 82
    with pytest.raises(DataError, match="conflicting labels: 1 row"):
        prepared(tmp_path, tiny_bert, content + "same,praise\n", **given)


def parts(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / "data" / "shards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


FIRST, SECOND = (parquet(text=TEXTS[part], label=LABELS[part]) for part in (slice(0, 40), slice(40, 80)))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.csv": CSV}, "holds a.csv; a folder is read that holds images alone, or .parquet files alone"),
        ({"a.jsonl": JSONL, "b.jsonl": JSONL}, "holds a.jsonl; .*name one table in data.path"),
        ({"label=a/0.parquet": FIRST, "label=b/1.parquet": SECOND}, "holds label=a/0.parquet; .*no sub-folders"),
        ({"0.parquet": FIRST, "more.csv": CSV}, "holds more.csv; "),
        ({"0.parquet": FIRST, "cat/a.png": b"x"}, "holds cat/a.png; "),
        ({"0.parquet": FIRST, "1.parquet": parquet(txt=TEXTS, label=LABELS)}, "1.parquet: has the columns label, txt, and 0.parquet has label, text"),
        ({"0.parquet": FIRST, "1.parquet": SECOND[:300]}, "1.parquet: is not Parquet"),
        ({"cat/a.png": b"x", "dog/b.png": b"x"}, "it is a folder of images, for task: image_classification"),
    ],
)  # fmt: skip
def test_a_folder_of_mixed_files_is_not_half_read(
    files: dict[str, str | bytes], said: str, tmp_path: Path, tiny_bert: Path
) -> None:  # fmt: skip
    parts(tmp_path, files)
    with pytest.raises(DataError, match=said):
        prepared(tmp_path, tiny_bert, "", path="data/shards", columns=COLUMNS)


def test_shards_that_another_program_marked_are_one_table(tmp_path: Path, tiny_bert: Path) -> None:
    parts(tmp_path, {"0.parquet": FIRST, "1.parquet": SECOND, "_SUCCESS": b"", ".0.parquet.crc": b"x"})
    assert [row["text"] for row in prepared(tmp_path, tiny_bert, "", path="data/shards", columns=COLUMNS).rows()] == TEXTS


def test_a_limit_that_leaves_a_label_untrained_is_reported_even_where_it_has_no_other_row(
    tmp_path: Path, tiny_bert: Path
) -> None:
    content = cells(lambda number: f"rare {number}" if number % 2 else "common", "label")
    given: dict[str, Any] = {"columns": COLUMNS, "split": {"cover_labels": True}}
    with pytest.raises(DataError, match="data.limit leaves no training row of rare .*; raise it, or set per_label"):
        prepared(tmp_path, tiny_bert, content, **given, limit={"rows": 20})
    made = prepared(tmp_path, tiny_bert, content, **given, limit={"per_label": 1})
    assert len(made.profile["labels"]["train"]) == 41


@pytest.mark.parametrize("text", ["\u3164", "\u2800\u2800", "\ufe0f", "\u034f", "\u202e", "\u115f"])
def test_fillers_are_nothing_to_read(text: str, tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="empty text: 1 row"):
        prepared(tmp_path, tiny_bert, CSV + f"{text},praise\n", columns=COLUMNS)


def test_empty_cells_beside_0_are_a_warning_and_can_be_left_out(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def content(no: str, empty: str) -> str:
        return "text,spam,ham\n" + "".join(
            f"{text},{1 if n % 2 else no},{empty if n % 8 == 1 else 1}\n" for n, text in enumerate(TEXTS)
        )

    given: dict[str, Any] = {"task": "multi_label", "columns": {"text": "text", "labels": ["spam", "ham"]}}
    prepared(tmp_path, tiny_bert, content("0", ""), **given)
    assert "empty cells" not in capsys.readouterr().out, "no column has both"
    mixed = content("0", "").replace(",1,1\n", ",1,0\n", 3)
    prepared(tmp_path, tiny_bert, mixed, **given)
    assert "empty cells in columns of 0 and 1: ham (10, and 3 say 0); they are read as 0" in capsys.readouterr().out
    left = prepared(tmp_path, tiny_bert, mixed, **given, filters=[{"column": "ham", "drop": [""]}])
    assert len(left.rows()) == 70
    assert "empty cells" not in capsys.readouterr().out
    prepared(tmp_path, tiny_bert, mixed.replace(",\n", ",0\n"), **given)
    assert "empty cells" not in capsys.readouterr().out
