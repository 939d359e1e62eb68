"""Sources: nothing is guessed, nothing shifts, and every error names file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from finespun.data.sources.tables import CHUNK, chunks, format_of, read
from finespun.data.writing import write
from finespun.errors import DataError


def rows_of(path: Path, **options: str) -> list[dict[str, object]]:
    return [line.row for line in read(path, **options)]


def test_csv_values_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n01,NA\n1,None\n1.0,"a, ""b""\nc"\n')
    assert rows_of(path) == [{"id": "01", "text": "NA"}, {"id": "1", "text": "None"}, {"id": "1.0", "text": 'a, "b"\nc'}]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\n"two\nlines"\n\nlast\n')
    assert [line.number for line in read(path)] == [2, 5]


def test_a_byte_order_mark_and_tabs_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbftext\tlabel\nhello, you\tx\n")
    assert rows_of(path) == [{"text": "hello, you", "label": "x"}]


def test_a_cell_may_be_longer_than_pythons_own_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text\n{'x' * 200_000}\n")
    assert [len(str(row["text"])) for row in rows_of(tmp_path / "a.csv")] == [200_000]


def test_empty_lines_between_objects_are_no_rows_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n  \n{"text": "b"}\n')
    assert [line.number for line in read(tmp_path / "a.jsonl")] == [1, 4]


def test_endings_are_known_in_capitals_too(tmp_path: Path) -> None:
    (tmp_path / "A.CSV").write_text("text\nx\n")
    (tmp_path / "A.TSV").write_text("text\tlabel\nx\ty\n")
    assert rows_of(tmp_path / "A.CSV") == [{"text": "x"}]
    assert rows_of(tmp_path / "A.TSV") == [{"text": "x", "label": "y"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\nx,y,z\n", "a.csv:2: has 3 fields, the header has 2; quote fields"),
        ("a.csv", b"text,label\n\nx\n", "a.csv:3: has 1 fields, the header has 2"),
        ("a.csv", b'text\n"x" y\n', "a.csv:2: is not CSV"),
        ("a.csv", b'text\nx\n"open\nx\nx\n', "a.csv:3 to 5: is not CSV (a quote is opened and never closed)"),
        ("a.csv", b"text,text\nx,y\n", "a.csv:1: the header names 'text' twice"),
        ("a.csv", b"text,,,label\nx,,,\n", "a.csv:1: the columns 2, 3 have no name; give each one"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xef\xbb\xbf", "a.csv: is empty; put your rows into it"),
        ("a.csv", b"text\ncaf\xe9\n", "a.csv:2: byte 0xe9 is not utf-8; save the file as UTF-8 or set data.encoding"),
        ("a.jsonl", b'{"text": 1}\n{"text"\n', "a.jsonl:2: is not JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1: holds list, not an object"),
        ("a.jsonl", b'{"text": "\\ud83d\\ude00"}\n{"text": ["\\uD83D"]}\n', "a.jsonl:2: '\\ud83d' is half a character"),
        ("a.parquet", b"nonsense", "is not Parquet"),
        ("a.xlsx", b"x", "the ending '.xlsx' is not one of .arrow, .bio, .conll, .conllu, .csv"),
    ],
)
def test_a_bad_file_is_told_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.conll"])
def test_a_place_in_a_file_is_said_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / name).write_text("a b\nx,y\n")
    for folder, place in ((tmp_path, f"raw/{name}:"), (Path.home(), f"{tmp_path}/raw/{name}:")):
        monkeypatch.chdir(folder)
        with pytest.raises(DataError, match=f"^{place}"):
            rows_of(tmp_path / "raw" / name)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        rows_of(tmp_path / "none.csv")


def test_an_unknown_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match="'utf-9' does not exist"):
        rows_of(tmp_path / "a.csv", encoding="utf-9")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_that_does_not_begin_as_its_encoding_must_is_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match=rf"a.csv: .*is not {encoding}.*; save the file as UTF-8 or set data.encoding"):
        rows_of(tmp_path / "a.csv", encoding=encoding)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    rows = [{"text": f'line {number}\n"quoted", é', "label": "x"} for number in range(10_000)]
    path = tmp_path / "deep" / f"a.{ending}"
    assert write(iter(rows), path) == 10_000
    assert rows_of(path) == rows
    if ending == "parquet":
        assert [line.number for line in read(path)] == list(range(1, 10_001)), "through all chunks"
    else:
        assert "é" in path.read_text(encoding="utf-8"), "as a person reads it"
    assert not list(path.parent.glob("*.partial"))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> object:
        yield {"text": "x"}
        raise DataError("row 2 is bad")

    with pytest.raises(DataError):
        write(failing(), tmp_path / "a.csv")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_chunks_keep_order_and_everything() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_the_format_may_be_given() -> None:
    assert format_of(Path("a.txt"), "csv") == "csv"


def test_no_rows_write_nothing(tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        with pytest.raises(DataError, match="there were no rows"):
            write([], tmp_path / f"a.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_that_make_no_table_are_refused_not_cut(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match=r"row 2 has the column b, which the first has not; write to .jsonl instead"):
        write([{"a": 1}, {"a": 2, "b": 3}], tmp_path / f"x.{ending}")
    assert write([{"a": 1, "b": 2}, {"a": 2}], tmp_path / f"y.{ending}") == 2


def test_a_column_of_two_types_is_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit those before"):
        write([{"a": 1}] * 5000 + [{"a": "x"}], tmp_path / "x.parquet")
    assert write([{"a": 1}, {"b": "x"}], tmp_path / "x.jsonl") == 2


def test_keys_of_later_objects_are_refused_not_cut(tmp_path: Path) -> None:
    rows = [{"a": {"x": 1}}] * CHUNK
    with pytest.raises(DataError, match=r"rows 4097 to 4097 do not fit those before: a holds what no row before had"):
        write([*rows, {"a": {"x": 1, "y": 2}}], tmp_path / "x.parquet")
    assert write([*rows, {"a": {"x": 1, "y": 2}}], tmp_path / "y.parquet", like=[{"a": {"y": 2}}]) == CHUNK + 1
    assert rows_of(tmp_path / "y.parquet")[-1] == {"a": {"x": 1, "y": 2}}
