"""Sources, splits and checks with something wrong: the message's parts and the exit code; without the fault, all rows are prepared."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finespun.errors import DataError, FinespunError
from tables import Prepared, prepared, texts

COUNT = 90
COLUMNS = {"text": "text", "label": "label"}
Rows = list[dict[str, Any]]


def rows(**columns: Callable[[int], Any]) -> Rows:
    """Good rows; a keyword is a column more, of the row's number."""
    found: Rows = [
        {"text": f"{text} in the shop", "label": ("praise", "complaint")[n // 2 % 2]} for n, text in enumerate(texts(COUNT))
    ]
    return [row | {name: make(number) for name, make in columns.items()} for number, row in enumerate(found)]


def as_csv(given: Rows) -> bytes:
    lines = [",".join(given[0]), *(",".join(map(str, row.values())) for row in given)]
    return ("\n".join(lines) + "\n").encode()


def changed(given: Rows, number: int, **values: Any) -> Rows:
    return [row | (values if place == number else {}) for place, row in enumerate(given)]


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def parts(given: Rows) -> Rows:
    return [row | {"part": ("train", "train", "train", "val", "test")[number % 5]} for number, row in enumerate(given)]


def days(given: Rows) -> Rows:
    return [row | {"day": f"2024-{1 + number // 28:02}-{1 + number % 28:02}"} for number, row in enumerate(given)]


PART = {"columns": {**COLUMNS, "split": "part"}}
DAY = {"columns": {**COLUMNS, "time": "day"}, "split": {"by": "time"}}
STRATIFIED = {"split": {"by": "stratified"}}
ONE = changed(rows(), 7, label="once")
LABELLED = [row | {"text": f"{row['label']}: {row['text']}"} for row in rows()]
# name: (file, bad content, good content, keys of conf/data, parts of the message)
BAD: dict[str, tuple[str, bytes, bytes, dict[str, Any], list[str]]] = {
    "a split that is none": ("m.csv", as_csv(changed(parts(rows()), 4, part="exam")), as_csv(parts(rows())), PART, ["m.csv:6: part 'exam'", "names no split; write one of", "train"]),
    "a split that is empty": ("m.csv", as_csv(changed(parts(rows()), 4, part="")), as_csv(parts(rows())), PART, ["m.csv:6: part ''", "names no split"]),
    "a row in two ready splits": ("m.csv", as_csv([*parts(rows()), parts(rows())[0] | {"part": "test"}]), as_csv(parts(rows())), PART, ["leak: 1 row", "m.csv:2: text", "is in train, and as row 92 in test", "data.checks.leak: drop"]),
    "the column of splits is not there": ("m.csv", as_csv(rows()), as_csv(parts(rows())), PART, ["has no column 'part' (data.columns.split)"]),
    "a date of another kind": ("m.csv", as_csv(changed(days(rows()), 3, day="31.12.2024")), as_csv(days(rows())), DAY, ["m.csv:5: day '31.12.2024'", "write it as 2024-03-31"]),
    "a date that is not there": ("m.csv", as_csv(changed(days(rows()), 3, day="")), as_csv(days(rows())), DAY, ["m.csv:5: day ''", "is no date or time"]),
    "all at one time": ("m.csv", as_csv(rows(day=lambda n: "2024-01-01")), as_csv(days(rows())), DAY, ["leave no row in the split", "train"]),
    "a label too small for the splits": ("m.csv", as_csv(ONE), as_csv(rows()), STRATIFIED, ["some split has no row of: 'once' (1, row 9)", "data.checks.small_label: warn"]),
    "text that gives its label away": ("m.csv", as_csv(LABELLED), as_csv(rows()), {"checks": {"leakage": "error"}}, ["holds the label's own name in 100% of the rows"]),
    "far from balanced": ("m.csv", as_csv([row | {"label": "rare" if n == 5 else "common"} for n, row in enumerate(rows())]), as_csv(rows()), {"checks": {"imbalance": "error", "small_label": "warn", "rare_label": "warn"}, **STRATIFIED}, ["'common' (89, row 2), 'rare' (1, row 7)", "trainer.imbalance"]),
    "characters that nobody sees": ("m.csv", as_csv(changed(rows(), 3, text="the be\u200bll")), as_csv(rows()), {"checks": {"control_character": "error"}}, ["m.csv:5: text", "U+200B"]),
    "a repeated row": ("m.csv", as_csv([*rows(), rows()[0]]), as_csv(rows()), {"checks": {"duplicate": "error"}}, ["m.csv:92: text", "same text and label as row 2"]),
    "nearly the same text": ("m.csv", as_csv([row | {"text": f"this is what all rows have in common but for a number {n}"} for n, row in enumerate(rows())]), as_csv(rows()), {"checks": {"near_duplicate": "error"}}, ["near duplicate", "and nearly the same (9"]),
    "an array that is cut short": ("m.json", json.dumps(rows())[:-30].encode(), json.dumps(rows()).encode(), {}, ["m.json: row 90 is not JSON", "cut short"]),
    "an array of numbers": ("m.json", b"[1, 2]", json.dumps(rows()).encode(), {}, ["row 1 is int, not an object"]),
    "JSON without rows": ("m.json", b'{"about": "mail", "by": "us"}', json.dumps({"rows": rows()}).encode(), {}, ["holds the keys about, by, and no array of rows"]),
    "columns of unequal length": ("m.json", b'{"text": ["a"], "label": ["b", "c"]}', json.dumps({name: [row[name] for row in rows()] for name in COLUMNS}).encode(), {}, ["and no array of rows"]),
    "a packed file that is cut short": ("m.csv.gz", gzip.compress(as_csv(rows()))[:200], gzip.compress(as_csv(rows())), {}, ["m.csv.gz: is damaged or cut short"]),
    "a file that is not packed": ("m.csv.gz", as_csv(rows()), gzip.compress(as_csv(rows())), {}, ["is damaged or cut short", "Not a gzipped file"]),
    "a packed file under another name": ("m.csv", gzip.compress(as_csv(rows())), as_csv(rows()), {}, ["is a gzip file (.gz); call it so, or unpack it"]),
    "an archive of several kinds": ("m.zip", zipped(**{"a.csv": as_csv(rows()), "b.txt": b"x"}), zipped(**{"a.csv": as_csv(rows())}), {}, ["holds a.csv, b.txt; name those that are meant"]),
    "an empty archive": ("m.zip", zipped(), zipped(**{"a.csv": as_csv(rows())}), {}, ["holds no files"]),
    "a damaged archive": ("m.zip", b"PK\x03\x04", zipped(**{"a.csv": as_csv(rows())}), {}, ["m.zip: is damaged"]),
    "an Arrow file that is none": ("m.arrow", b"ARROW1\0\0", b"", {}, ["is no Arrow file"]),
    "a first line that is a row": ("m.csv", as_csv(rows()).partition(b"\n")[2], as_csv(rows()).partition(b"\n")[2], {"header": False, "columns": {"text": "text", "label": "label"}}, ["has no column 'text'", "it has: 1, 2"]),
    "a position that is not there": ("m.csv", as_csv(rows()), b"", {"header": False, "columns": {"text": "1", "label": "7"}}, ["has no column '7'", "it has: 1, 2"]),
    "a row of another width without a header": ("m.csv", as_csv(rows()).partition(b"\n")[2] + b"one\n", b"", {"header": False, "columns": {"text": "1", "label": "2"}}, ["m.csv:91: has 1 fields, the first row has 2"]),
    "an encoding that does not exist": ("m.csv", as_csv(rows()), as_csv(rows()), {"encoding": "utf-9"}, ["data.encoding 'utf-9' does not exist"]),
    "an encoding that it is not": ("m.csv", as_csv(changed(rows(), 3, text="schön")), b"", {"encoding": "ascii"}, ["m.csv:5: byte 0xc3 is not ascii"]),
}  # fmt: skip


def made(folder: Path, tiny_bert: Path, name: str, content: bytes, data: dict[str, Any]) -> Prepared:
    return prepared(folder, tiny_bert, content, name=name, **{"columns": COLUMNS, **data})


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_and_good_rows_are_prepared(tmp_path: Path, tiny_bert: Path, name: str) -> None:
    file, bad, good, data, parts_of_it = BAD[name]
    with pytest.raises(FinespunError) as caught:
        made(tmp_path, tiny_bert, file, bad, data)
    assert caught.value.exit_code == 3
    assert [part for part in parts_of_it if part not in str(caught.value)] == [], str(caught.value)
    assert not (tmp_path / "prepared" / "schema.json").exists()
    if good and good != bad:
        assert len(made(tmp_path, tiny_bert, file, good, data).rows()) == COUNT, "its neighbours are untouched"


DROPPED: dict[str, tuple[Rows, dict[str, Any], set[int]]] = {
    "empty texts": (changed(rows(), 3, text=""), {"checks": {"empty_text": "drop"}}, {5}),
    "unknown labels": (changed(rows(), 3, label="prais"), {"labels": ["praise", "complaint"], "checks": {"unknown_label": "drop"}}, {5}),
    "repeated rows": ([*rows(), rows()[0]], {"checks": {"duplicate": "drop"}}, {92}),
    "conflicting rows": ([*rows(), rows()[0] | {"label": "complaint"}], {"checks": {"conflicting_labels": "drop"}}, {92}),
    "values that are none": (changed(rows(), 3, text="NULL"), {"checks": {"no_value": "drop"}}, {5}),
    "bytes": (changed(rows(), 3, text="b'the bell'"), {"checks": {"bytes_as_text": "drop"}}, {5}),
    "leaks": ([*parts(rows()), parts(rows())[0] | {"part": "test"}], {"checks": {"leak": "drop"}, **PART}, {2}),
    "characters that nobody sees": (changed(rows(), 3, text="the be\u200bll"), {"checks": {"control_character": "drop"}}, {5}),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_drop_leaves_out_those_rows_alone_and_lists_them(tmp_path: Path, tiny_bert: Path, name: str) -> None:
    import pyarrow.parquet as pq

    given, data, gone = DROPPED[name]
    found = made(tmp_path, tiny_bert, "m.csv", as_csv(given), data)
    kept = {row["row"] for row in found.rows()}
    assert kept == {*range(2, len(given) + 2)} - gone
    assert {row["row"] for row in pq.read_table(tmp_path / "prepared" / "dropped.parquet").to_pylist()} == gone


def test_several_files_name_the_one_that_is_wrong(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_bytes(as_csv(rows()[:50]))
    (tmp_path / "data" / "b.csv").write_bytes(as_csv(changed(rows()[50:], 3, text="")))
    with pytest.raises(DataError, match=r"b.csv:5: text '': is empty"):
        made(tmp_path, tiny_bert, "a.csv", as_csv(rows()[:50]), {"path": ["data/a.csv", "data/b.csv"]})
    (tmp_path / "data" / "b.csv").write_bytes(as_csv([*rows()[50:], rows()[0]]))
    with pytest.raises(DataError, match=r"b.csv:42: text .*: same text and label as row 2 of .*a.csv"):
        made(tmp_path, tiny_bert, "a.csv", as_csv(rows()[:50]), {"path": "data/*.csv", "checks": {"duplicate": "error"}})


def test_a_query_that_gives_no_rows(tmp_path: Path, tiny_bert: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE mail (text TEXT, label TEXT)")
    with pytest.raises(DataError, match="holds no rows"):
        made(tmp_path, tiny_bert, "m.csv", b"", {"path": "sqlite:///shop.db", "sql": "SELECT * FROM mail"})
    with connection:
        connection.executemany("INSERT INTO mail VALUES (:text, :label)", rows())
    connection.close()
    found = made(tmp_path, tiny_bert, "m.csv", b"", {"path": "sqlite:///shop.db", "sql": "SELECT * FROM mail"})
    assert len(found.rows()) == COUNT
