"""Files that people ask predictions for: every row an answer or an error, and every remedy works when it is followed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from finespun.cli.main import main
from finespun.data.writing import write
from finespun.errors import BusyError
from finespun.report import plots
from helpers import ROOT
from small_run import LABELS, small_config
from tables import prepared, texts

ADDED = ["label", "probability", "error"]
FORMULAS = [
    "=1+1",
    "+cmd",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "'=1",
    "''-1",
    "-inf",
    "- item",
    "+49 170 1",
    "=",
]
PLAIN = ["'quoted'", "a=b", "-5", "+1.5e3", "1-2", "a\rb", "a\nb", 'say "hi"', "x;y", "don't", "", "NA", "007"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A classifier of two labels, as `finetune` leaves it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = tmp_path_factory.mktemp("model") / "finetuned"
    names = dict(enumerate(LABELS))
    AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2, id2label=names).save_pretrained(place)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(place)
    task = small_config().task
    record = {"columns": {"text": "text", "label": "label"}, "task": {"_target_": task.target, **task.options}}
    (place / "run.json").write_text(json.dumps(record))
    return place


@pytest.fixture
def predict(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`finespun predict` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments: object, stdin: str | None = None) -> Result:
        given = ["predict", *map(str, arguments), "--model", str(model)]
        return CliRunner().invoke(main, given, input=stdin, catch_exceptions=False)

    return go


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    path = Path(path)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


UNREADABLE = {
    "not JSON": ("{text: fine}", "line 2: is not JSON ("),
    "cut short": ('{"text": "fi', "line 2: is not JSON ("),
    "a list": ('["fine"]', "line 2: holds list, not an object"),
    "a text": ('"fine"', "line 2: holds str, not an object"),
    "without the key": ('{"body": "fine"}', "has no column 'text'"),
    "null": ('{"text": null}', "text is empty"),
    "an object": ('{"text": {"a": 1}}', "text is an object, where one text is needed"),
    "half a character": ('{"text": "\\ud83d"}', "line 2: '\\ud83d' is half a character"),
    "deep": ("[" * 100_000, "line 2: has too many brackets"),
    "a huge number": ('{"text": ' + "9" * 5000 + "}", "line 2: holds a number of thousands of digits"),
    "a key twice": ('{"text": "a", "text": "b"}', "line 2: says the key 'text' twice"),
}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("first", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_one_bad_line_costs_one_row(predict: Any, kind: str, ending: str, *, first: bool) -> None:
    bad, message = UNREADABLE[kind]
    lines = ['{"id": 1, "text": "fine"}', bad, '{"id": 3, "text": "dull", "more": [1]}']
    message = message.replace("line 2", "line 1") if first else message
    if first:
        lines = [bad, lines[0], lines[2]]
    Path("in.jsonl").write_text("\n".join(lines) + "\n")
    done = predict("in.jsonl", "--output", f"out.{ending}")
    if (kind, ending) == ("an object", "parquet"):  # a column of Parquet has one type
        assert done.exit_code == 3
        assert "write to .jsonl instead" in done.stderr
        return
    assert done.exit_code == 0, done.output
    assert "3 rows -> out." in done.stderr
    assert "1 of them could not be predicted (column error)" in done.stderr
    found = rows_of(f"out.{ending}")
    where = 0 if first else 1
    assert message in found[where]["error"]
    good = [row for row in found if row is not found[where]]
    assert [int(row["id"]) for row in good] == [1, 3], "the others are there, in order"
    assert all(row["label"] in LABELS and row["error"] == "" for row in good)
    assert len({tuple(row) for row in found}) == 1 or ending == "jsonl", "a table"
    strict = predict("in.jsonl", "--output", "strict.jsonl", "--strict")
    assert strict.exit_code == 3
    assert "mend the row, or leave --strict out" in strict.stderr
    assert not Path("strict.jsonl").exists()


@pytest.mark.parametrize("bad", ["only one field", "1,fine,too many,4"])
def test_a_row_of_another_width_costs_one_row(predict: Any, bad: str) -> None:
    Path("in.csv").write_text(f"id,text,stars\n1,fine,3\n{bad}\n3,dull,1\n")
    assert predict("in.csv", "--output", "out.csv").exit_code == 0
    found = rows_of("out.csv")
    assert [row["label"] in LABELS for row in found] == [True, False, True]
    assert re.fullmatch(r"line 3: has \d fields, the header has 3", found[1]["error"])
    assert list(found[0]) == ["id", "text", "stars", *ADDED]


def test_columns_have_one_name_in_all_rows(predict: Any) -> None:
    rows = [{"text": "fine"}, {"text": "dull", "label": "mine", "id": 7}, {"text": "good", "error": "e"}]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for ending in ("jsonl", "csv", "parquet"):
        assert predict("in.jsonl", "-o", f"out.{ending}").exit_code == 0
        found = rows_of(f"out.{ending}")
        assert all(row["predicted_label"] in LABELS and row["predicted_error"] == "" for row in found)
        assert found[1]["label"] == "mine"
        assert [row.get("id") or None for row in found] in ([None, 7, None], [None, "7", None])
        assert found[2]["error"] == "e"


def test_advice_about_columns_and_delimiters_is_followed(predict: Any) -> None:
    Path("names.csv").write_text("id,review\n1,fine\n2,dull\n")
    done = predict("names.csv", "-o", "out.csv")
    assert (done.exit_code, Path("out.csv").exists()) == (3, False)
    assert "has no column 'text'; it has: id, review; set --column text=NAME" in done.stderr
    assert predict("names.csv", "-o", "out.csv", "--column", "text=review").exit_code == 0
    assert len(rows_of("out.csv")) == 2
    for mark in ";|\t":
        Path("marks.csv").write_text(
            f"id{mark}text\n1{mark}fine, and more\n2{mark}dull, too\n"
        )  # two fields by the other delimiter
        done = predict("marks.csv", "-o", "marks.out.csv")
        assert done.exit_code == 3
        assert f"--delimiter {mark!r}" in done.stderr
        assert predict("marks.csv", "-o", "marks.out.csv", "--delimiter", mark).exit_code == 0
        assert [row["text"] for row in rows_of("marks.out.csv")] == ["fine, and more", "dull, too"]


def test_another_ending_is_read_as_is_said(predict: Any) -> None:
    Path("in.log").write_text('{"text": "fine"}\n')
    done = predict("in.log", "-o", "out.csv")
    assert done.exit_code == 3
    assert "save it as one of them, or set data.format (predict --format) if only its name is another" in done.stderr
    assert predict("in.log", "-o", "out.csv", "--format", "jsonl").exit_code == 0
    assert len(rows_of("out.csv")) == 1


def test_rows_without_any_column_are_reported(predict: Any) -> None:
    Path("in.jsonl").write_text("{}\n{}\n")
    done = predict("in.jsonl", "-o", "out.csv")
    assert done.exit_code == 3
    assert "in.jsonl:1: has no column 'text'; it has: none; set --column text=NAME" in done.stderr


@pytest.mark.parametrize(("encoding", "advice"), [("utf-16", "utf-16"), ("latin-1", "predict --encoding")])
def test_advice_about_encodings_is_followed(predict: Any, encoding: str, advice: str) -> None:
    Path("in.csv").write_text("text\nnaïve, says she\n".replace(",", ""), encoding=encoding)
    done = predict("in.csv", "-o", "out.csv")
    assert done.exit_code == 3
    assert advice in done.stderr
    assert predict("in.csv", "-o", "out.csv", "--encoding", encoding).exit_code == 0
    assert rows_of("out.csv")[0]["text"] == "naïve says she"


def test_an_array_is_json_whatever_it_is_called(predict: Any) -> None:
    Path("list.jsonl").write_text(json.dumps([{"text": "fine"}, {"text": "dull"}]))
    assert predict("list.jsonl", "-o", "out.csv", "--strict").exit_code == 3
    assert predict("list.jsonl", "-o", "out.csv", "--format", "json").exit_code == 0
    assert [row["text"] for row in rows_of("out.csv")] == ["fine", "dull"]
    Path("list.jsonl").rename("list.json")
    assert predict("list.json", "-o", "out.csv").exit_code == 0


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet", "-"])
def test_no_rows_are_reported(predict: Any, name: str) -> None:
    Path("in.csv").write_text("text\n")
    Path("in.jsonl").write_text("\n\n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), "in.parquet")
    done = predict(name, "-o", "out.csv", stdin="")
    assert done.exit_code == 3
    assert f"{name}: holds no rows, so nothing is written; put rows into it" in done.stderr
    assert not Path("out.csv").exists()


def test_numbers_nulls_and_lists_of_parquet(predict: Any) -> None:
    table = {"text": [1.0, None, 2.5], "n": [1, None, 3], "when": pd.to_datetime(["2026-01-01", None, "2026-01-02"])}
    pq.write_table(pa.table(table), "in.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        assert predict("in.parquet", "-o", f"out.{ending}").exit_code == 0
        assert [row["error"] for row in rows_of(f"out.{ending}")] == ["", "text is empty", ""]


def test_more_labels_than_there_are(predict: Any) -> None:
    Path("in.csv").write_text("text\nfine\n")
    assert predict("in.csv", "-o", "out.jsonl", "--top-k", 99).exit_code == 0
    [row] = rows_of("out.jsonl")
    assert sorted(each["label"] for each in row["top"]) == sorted(LABELS) if "top" in row else row["label"] in LABELS


PLACES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "the input": (lambda _: None, "in.csv", "is the input itself; name another file"),
    "a link to the input": (lambda here: (here / "out.csv").symlink_to("in.csv"), "out.csv", "is the input itself"),
    "another name of the input": (lambda here: os.link(here / "in.csv", here / "out.csv"), "out.csv", "is the input itself"),
    "a folder": (lambda here: (here / "out").mkdir(), "out", "is a folder; name a file, such as out/predictions.csv"),
    "a folder that ends as a file": (lambda here: (here / "out.csv").mkdir(), "out.csv", "is a folder"),
    "below a file": (lambda _: None, "in.csv/out.csv", "in.csv: is a file, not a folder"),
    "read-only": (lambda here: (here / "locked").mkdir(mode=0o500), "locked/out.csv", "no permission to write there"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_an_output_that_cannot_be_written_is_reported_before_a_model_is_loaded(
    predict: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, output, message = PLACES[kind]
    Path("in.csv").write_text("text\nfine\n")
    make(tmp_path)
    if kind == "read-only":  # also where the tests are run by root
        monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "locked")
    monkeypatch.setattr("finespun.evaluation.predict_file.Predictor", None)
    done = predict("in.csv", "--output", output)
    assert done.exit_code == 3
    assert message in done.stderr
    assert Path("in.csv").read_text() == "text\nfine\n"


def test_a_link_stays_a_link_and_new_folders_are_made(predict: Any) -> None:
    Path("in.csv").write_text("text\nfine\n")
    Path("real").mkdir()
    Path("out.csv").symlink_to("real/kept.csv")
    assert predict("in.csv", "-o", "out.csv").exit_code == 0
    assert Path("out.csv").is_symlink()
    assert len(rows_of("real/kept.csv")) == 1
    assert predict("in.csv", "-o", "new/deep/out.csv").exit_code == 0
    assert [path.name for path in Path("new/deep").iterdir()] == ["out.csv"]


KILLED = """
import os, signal, sys
from pathlib import Path
from finespun.data.writing import write
from finespun.errors import BusyError
def rows():
    for number in range(100_000):
        if number == 50_000: os.kill(os.getpid(), signal.SIGKILL)
        yield {"text": "x" * 50}
write(rows(), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_killed_job_leaves_no_half_file(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"out.{ending}"
    write([{"text": "old"}], output)
    before = output.read_bytes()
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", KILLED, str(output)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert output.read_bytes() == before
    visible = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert visible == [output.name]
    assert write([{"text": "new"}], output) == 1
    assert [path.name for path in tmp_path.iterdir()] == [output.name], "what the killed one left is gone"


def test_two_jobs_do_not_write_one_file(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"

    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "first"}
        with pytest.raises(BusyError, match="another process is writing it; wait for its end, or name another file"):
            write([{"text": "second"}], output)
        write([{"text": "second"}], tmp_path / "other.csv")

    assert write(rows(), output) == 1
    assert rows_of(output) == [{"text": "first"}]


def test_no_cell_starts_a_formula_and_pandas_reads_every_text_back(predict: Any) -> None:
    given = [*FORMULAS, *PLAIN]
    Path("in.jsonl").write_text("".join(json.dumps({"=id": text, "text": "fine"}) + "\n" for text in given))
    assert predict("in.jsonl", "-o", "out.csv").exit_code == 0
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        header, *cells = csv.reader(file)
    assert header[0] == "'=id"
    assert len(cells) == len(given)
    for row in cells:
        for cell in row:
            assert cell[:1] not in {*"=+-@\t\r\n\uff1d"} or re.fullmatch(r"[+-]?[\d.e]+", cell), cell
    [snippet] = re.findall(r"```python\nframe = (.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    told: dict[str, Any] = {"pd": pd}
    exec("frame = " + snippet.replace("predictions.csv", "out.csv"), told)
    assert told["frame"]["'=id"].tolist() == given


def test_other_tables_for_people_start_no_formula_either(tmp_path: Path, tiny_bert: Path) -> None:
    out = io.StringIO()
    csv.writer(out).writerows(
        [("text", "label"), *zip(texts(40), ["a", "b"] * 20, strict=True), ("=1+1", "=2"), ("=1+1", "=2")]
    )
    prepared(tmp_path, tiny_bert, out.getvalue(), columns={"text": "text", "label": "label"}, checks={"rare_label": "drop"})
    problems = rows_of(tmp_path / ".finespun" / "data_problems.csv")
    assert problems
    assert {row["value"] for row in problems} <= {"'=1+1", "'=2"}
    plots.confusion(["=2", "a"], ["a", "-b"], ["=2", "a", "-b"], folder=tmp_path, title="=t")
    assert rows_of(tmp_path / "confusion.csv") == [{"actual": "'=2", "predicted": "a"}, {"actual": "a", "predicted": "'-b"}]


def test_standard_input_and_output_are_the_same(predict: Any) -> None:
    done = predict("-", stdin="=1+1\nfine\n\n")
    assert done.exit_code == 0
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["text"] for row in found] == ["'=1+1", "fine", ""]
    assert found[2]["error"] == "text is empty"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, tiny_net: Path) -> Path:
    """A classifier of images, as `finetune` leaves it."""
    place = tmp_path_factory.mktemp("net") / "finetuned"
    shutil.copytree(tiny_net, place)
    task = yaml.safe_load((ROOT / "conf" / "task" / "image_classification.yaml").read_text())
    (place / "run.json").write_text(json.dumps({"columns": {"image": "file", "label": "folder"}, "task": task}))
    return place


def test_images_are_read_where_the_table_lies_or_where_that_is_allowed(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    for name in ("work/in/a.png", "elsewhere/o.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4000, 1), "red").save(tmp_path / name)
    (tmp_path / "work" / "here.png").symlink_to(tmp_path / "elsewhere" / "o.png")
    (tmp_path / "work" / "in" / "link.png").symlink_to("/etc/passwd")
    monkeypatch.chdir(tmp_path / "work")
    names = ["a.png", "in/a.png", "../../elsewhere/o.png", str(tmp_path / "elsewhere" / "o.png"), "here.png", "/etc/passwd"]
    Path("in/in.csv").write_text("file\n" + "".join(f"{name}\n" for name in names))

    def predict(*arguments: str, stdin: str = "") -> list[bool]:
        done = CliRunner().invoke(main, ["predict", *arguments, "-o", "out.csv", "--model", str(net)], input=stdin)
        assert done.exit_code == 0, done.output
        errors = [row["error"] for row in rows_of("out.csv")]
        assert all("lies outside" in each or "is no image" in each for each in errors if each)
        assert all("(predict --allow-outside) is not set" in each for each in errors if "lies outside" in each)
        return [not error for error in errors]

    assert predict("in/in.csv") == [True, True, False, False, False, False]
    assert predict("in/in.csv", "--allow-outside") == [True, True, True, True, True, False]
    assert predict("-", stdin="\n".join(names[1:]) + "\n") == [True, False, False, False, False]
    assert predict("in") == [True, False, False], "a.png; in.csv is no image, the link leads elsewhere"
