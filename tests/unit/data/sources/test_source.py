"""Round trips: the same rows come out of every kind of source, and a place is told of each."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from finespun.config.sections import SPLIT_OF_PATH, DataConfig
from finespun.data.sources.source import Source
from finespun.errors import DataError, MachineError

ROWS = [{"text": f"row {number}, with a comma; naïve", "label": "ab"[number % 2]} for number in range(40)]
COLUMNS = {"text": "text", "label": "label"}


def as_csv(rows: list[dict[str, Any]] = ROWS, delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*rows[0]], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_lines(rows: list[dict[str, Any]] = ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict[str, Any]] = ROWS) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_arrow(rows: list[dict[str, Any]] = ROWS, *, stream: bool = False) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue()


def as_zip(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_csv", ".csv"), content)
    return sink.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


FILES: dict[str, bytes] = {
    "mail.csv": as_csv(),
    "mail.tsv": as_csv(delimiter="\t"),
    "semicolons.csv": as_csv(delimiter=";"),
    "wide.csv": as_csv(delimiter="|").decode().encode("utf-16"),
    "windows.csv": as_csv().decode().encode("cp1252"),
    "mail.jsonl": as_lines(),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "lines.json": as_lines(),
    "inside.json": json.dumps({"version": 2, "data": ROWS}).encode(),
    "columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
    "pandas.json": json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}).encode(),
    "mail.parquet": as_parquet(),
    "mail.arrow": as_arrow(),
    "stream.arrow": as_arrow(stream=True),
    "mail.csv.gz": gzip.compress(as_csv()),
    "mail.jsonl.bz2": bz2.compress(as_lines()),
    "mail.csv.xz": lzma.compress(as_csv()),
    "mail.csv.zst": zstd(as_csv()),
    "mail.json.zst": zstd(json.dumps(ROWS).encode()),
    "mail.parquet.gz": gzip.compress(as_parquet()),
    "mail.zip": as_zip(mail_csv=as_csv()),
    "parts.zip": as_zip(a_csv=as_csv(ROWS[:15]), b_csv=as_csv(ROWS[15:])),
}


def source(project: Path, path: Any, columns: dict[str, str] | None = None, **data: Any) -> Source:
    return Source(DataConfig.model_validate({"path": path, "columns": columns or COLUMNS, **data}), project)


def write(folder: Path, **files: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_rows_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: FILES[name]})
    found = source(tmp_path, name)
    assert [line.row for line in found()] == ROWS
    assert [line.row for line in found()] == ROWS, "each time that they are asked for"
    assert len({line.number for line in found()}) == len(ROWS)
    assert found.digest() == source(tmp_path, name).digest()


@pytest.mark.parametrize("name", [name for name in FILES if "." not in name.partition(".")[2] and name != "parts.zip"])
def test_rows_come_from_an_address_too(name: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe(f"/bucket/{name}", FILES[name])
    address = f"zip://*::memory://bucket/{name}" if name.endswith(".zip") else f"memory://bucket/{name}"
    assert [line.row for line in source(tmp_path, address)()] == ROWS


def test_what_was_found_in_a_file_is_stated_and_what_is_declared_wins(tmp_path: Path) -> None:
    write(tmp_path, **FILES)
    found = source(tmp_path, "wide.csv")
    assert (found.data.delimiter, found.data.encoding) == ("|", "utf-16")
    assert [note.partition(" was")[0] for note in found.notes] == ["data.encoding: 'utf-16'", "data.delimiter: '|'"]
    assert source(tmp_path, "mail.csv").notes == []
    (tmp_path / "one.csv").write_text("text;label\nx;y\n")
    declared = source(tmp_path, "one.csv", delimiter=",", columns={"text": "text;label"})
    assert [line.row for line in declared()] == [{"text;label": "x;y"}]


def test_several_files_are_one_and_each_row_has_its_place(tmp_path: Path) -> None:
    write(tmp_path / "raw", **{"b.csv": as_csv(ROWS[10:25]), "a.csv": as_csv(ROWS[:10]), "c.jsonl": as_lines(ROWS[25:])})
    for path in ("raw/*", ["raw/a.csv", "raw/b.csv", "raw/c.jsonl"], ["raw/[ab].csv", "raw/c.jsonl"]):
        found = source(tmp_path, path)
        lines = [*found()]
        assert [line.row for line in lines] == ROWS
        places = [found.place(line.number) for line in lines]
        assert places[:2] == [(str(tmp_path / "raw" / "a.csv"), 2), (str(tmp_path / "raw" / "a.csv"), 3)]
        assert places[10] == (str(tmp_path / "raw" / "b.csv"), 2)
        assert places[-1] == (str(tmp_path / "raw" / "c.jsonl"), 15)
    assert source(tmp_path, "raw/*").declared.name == "raw/*"


def test_files_by_split_say_which_rows_they_have(tmp_path: Path) -> None:
    write(tmp_path, **{"a.csv": as_csv(ROWS[:20]), "b.csv.gz": gzip.compress(as_csv(ROWS[20:30])), "c.csv": as_csv(ROWS[30:])})
    found = source(tmp_path, {"train": ["a.csv"], "val": "b.csv.gz", "test": "c.csv"})
    assert found.data.split_by == "given"
    assert [line.row[SPLIT_OF_PATH] for line in found()] == ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    with pytest.raises(ValidationError, match="path: dev is no split; say train, val, test"):
        source(tmp_path, {"dev": "a.csv"})


def test_folders_of_save_to_disk_are_read_with_names_for_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    numbered = [{**row, "label": "ab".index(row["label"])} for row in ROWS]
    whole = datasets.Dataset.from_list(numbered, features=features)
    whole.save_to_disk(tmp_path / "whole", num_shards=3)
    assert [line.row for line in source(tmp_path, "whole")()] == ROWS
    split = datasets.DatasetDict({"train": whole.select(range(30)), "test": whole.select(range(30, 40))})
    split.save_to_disk(tmp_path / "split")
    found = source(tmp_path, "split", {**COLUMNS, "split": SPLIT_OF_PATH})
    assert [line.row for line in found()] == [
        {**row, SPLIT_OF_PATH: "train" if number < 30 else "test"} for number, row in enumerate(ROWS)
    ]
    whole.to_parquet(tmp_path / "labels.parquet")
    assert [line.row for line in source(tmp_path, "labels.parquet")()] == ROWS
    (tmp_path / "whole" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(DataError, match=r"lacks .*data-00001-of-00003.arrow; save it again with save_to_disk"):
        [*source(tmp_path, "whole")()]


def test_a_folder_in_the_hubs_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "reviews" / "data", **{"train-0.parquet": as_parquet(ROWS[:30]), "test-0.parquet": as_parquet(ROWS[30:])})
    (tmp_path / "reviews" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: data/train-*}\n"
        "  - {split: test, path: data/test-*}\n---\n"
    )
    data = DataConfig.model_validate({"hub": "reviews", "columns": COLUMNS})
    found = Source(data, tmp_path)
    assert [line.row for line in found()] == [
        {**row, SPLIT_OF_PATH: "train" if number < 30 else "test"} for number, row in enumerate(ROWS)
    ]
    assert found.place(33) == ("reviews (test)", 3)
    wrong = DataConfig.model_validate({"hub": "reviews", "hub_config": "french", "columns": COLUMNS})
    with pytest.raises(DataError, match=r"data.hub: reviews: cannot be loaded .*look at its name and data.hub_config"):
        [*Source(wrong, tmp_path)()]


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mail (id INTEGER, text TEXT, label TEXT)")
        connection.executemany("INSERT INTO mail VALUES (?, ?, ?)", [(n, *row.values()) for n, row in enumerate(ROWS)])
    connection.close()


def test_a_query_of_sqlite(tmp_path: Path) -> None:
    database(tmp_path / "shop.db")
    found = source(tmp_path, "sqlite:///shop.db", sql="SELECT text, label FROM mail ORDER BY id")
    assert [line.row for line in found()] == ROWS
    assert found.place(3) == ("sqlite:///shop.db", 3)
    before = found.digest()
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("UPDATE mail SET label = 'c' WHERE id = 3")
    connection.close()
    assert found.digest() != before


@pytest.mark.parametrize(
    ("path", "data", "error", "told"),
    [
        ("sqlite:///shop.db", {"sql": "SELECT body FROM mail"}, DataError, "does not understand it (no such column"),
        ("sqlite:///shop.db", {"sql": "SELEC"}, DataError, "syntax error"),
        ("sqlite:///shop.db", {"sql": "SELECT text, text FROM mail"}, DataError, "two columns called text; rename one with AS"),
        ("sqlite:////nowhere/shop.db", {"sql": "SELECT 1"}, MachineError, "cannot be reached (unable to open database file)"),
        ("nosql://x/shop", {"sql": "SELECT 1"}, MachineError, "its driver is not installed"),
        ("sqlite:///shop.db", {"sql": "SELECT 1", "password": "NOT_SET"}, MachineError, "variable NOT_SET is not set"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_query_is_said(tmp_path: Path, path: str, data: dict[str, Any], error: type, told: str) -> None:
    database(tmp_path / "shop.db")
    with pytest.raises(error) as caught:
        [*source(tmp_path, path, **data)()]
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"path": "postgresql://reader:secret@db/shop", "sql": "SELECT 1"}, "path holds a password, which would be recorded"),
        ({"path": "shop.db", "sql": "SELECT 1"}, "sql needs path, the address of a database"),
        ({"path": "a.csv", "password": "X"}, "password is that of a database"),
        ({"path": "a.csv", "hub": "imdb"}, "say path, or hub; one of them"),
        ({}, "say path, or hub; one of them"),
    ],
)
def test_sources_that_cannot_be(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataConfig.model_validate({"columns": {}, **data})


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "content", "error", "told"),
    [
        ("mail.csv.gz", lambda: cut(gzip.compress(as_csv())), DataError, "mail.csv.gz: is damaged or cut short"),
        ("mail.csv.gz", as_csv, DataError, "is damaged or cut short (Not a gzipped file"),
        ("mail.csv.bz2", lambda: cut(bz2.compress(as_csv())), DataError, "is damaged or cut short"),
        ("mail.csv.xz", lambda: cut(lzma.compress(as_csv())), DataError, "is damaged or cut short"),
        ("mail.csv.zst", lambda: b"not zstd at all", DataError, "is damaged or cut short"),
        ("mail.zip", lambda: b"PK\x03\x04nothing", DataError, "mail.zip: is damaged"),
        ("mail.zip", lambda: as_zip(a_csv=as_csv(), notes=b"x"), DataError, "holds a.csv, notes; name those that are meant"),
        ("mail.arrow", lambda: b"ARROW1 no", DataError, "is no Arrow file"),
        ("mail.csv", lambda: gzip.compress(as_csv()), DataError, "is a gzip file (.gz); call it so, or unpack it"),
        ("a.json", lambda: b'[{"text": "x"}, {"text": ', DataError, "row 2 is not JSON"),
        ("a.json", lambda: b'[{"text": "x"}, 7]', DataError, "row 2 is int, not an object"),
        ("a.json", lambda: b'[{"text": "x"}, [7', DataError, "row 2 is not JSON"),
        ("a.json", lambda: b'{"a": 1, "b": 2}', DataError, "holds the keys a, b, and no array of rows"),
        ("a.json", lambda: b"{", DataError, "a.json:1: is not JSON"),
        ("a.json", lambda: b"  ", DataError, "is empty"),
        ("*.csv", lambda: b"", DataError, "*.csv: no file is called so; correct the pattern in data.path"),
        ("memory://nothing/there.csv", lambda: b"", DataError, "there is no such file or folder"),
        ("memory://nothing/*.csv", lambda: b"", DataError, "no file is called so"),
        ("s4://bucket/a.csv", lambda: b"", DataError, "nothing reads s4://"),
        ("zip://b.csv::mail.zip", lambda: b"", DataError, "there is no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Callable[[], bytes], error: type, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "*" not in name and "://" not in name:
        write(tmp_path, **{name: content()})
    with pytest.raises(error) as caught:
        [*source(tmp_path, name)()]
    assert told in str(caught.value)


def test_an_array_is_read_piece_by_piece(tmp_path: Path) -> None:
    rows = [{"text": "x" * (number % 3000), "label": "[}]"} for number in range(300)]
    write(tmp_path, **{"a.json": json.dumps(rows).encode()})
    assert [line.row for line in source(tmp_path, "a.json")()] == rows


def test_images_by_split_and_label(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        for kind in ("cat", "dog"):
            write(tmp_path / "raw" / "pets" / split / kind, **{"1.png": b"x", "2.png": b"y"})
    path = {"train": "raw/pets/train", "val": "raw/pets/valid", "test": "raw/pets/test"}
    rows = [line.row for line in source(tmp_path, path, {"image": "file", "label": "folder"})()]
    assert len(rows) == 12
    assert rows[4] == {"file": "raw/pets/valid/cat/1.png", "folder": "cat", SPLIT_OF_PATH: "val"}
