"""Preparing: what is left out stays out, labels have one order, and the list of problems is that of the last look."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from finespun.artifacts import Artifacts
from finespun.data.prepared import PreparedData
from finespun.errors import DataError
from finespun.kept import file_digest
from finespun.stages.prepare import prepare
from helpers import Project, real_rows, write_csv, write_digits
from small_run import LABELS, small_config

ALL = ("train", "val", "test")


def rows_of_three_labels() -> list[dict[str, str]]:
    return [row | {"sentiment": "neutral"} if number % 5 == 3 else row for number, row in enumerate(real_rows(200))]


def prepared(folder: Path, tiny_bert: Path, rows: list[dict[str, str]], **options: Any) -> PreparedData:
    write_csv(folder / "reviews.csv", rows)
    data = {"path": "reviews.csv", "columns": {"text": "text", "label": "sentiment"}, **options}
    config = small_config(data=data, model={"checkpoint": str(tiny_bert)})
    prepare(config, Artifacts(project=folder, out=folder), folder / "prepared")
    return PreparedData(folder / "prepared")


def test_what_is_left_out_is_in_no_split_and_takes_no_place_of_a_limit(tmp_path: Path, tiny_bert: Path) -> None:
    rows = rows_of_three_labels()
    for row in rows[::20]:
        row["text"] = ""
    out = {line for line, row in enumerate(rows, 2) if not row["text"] or row["sentiment"] == "neutral"}
    found = prepared(
        tmp_path, tiny_bert, rows, labels=LABELS, limit={"rows": 40}, checks={"empty_text": "drop"},
        filters=[{"column": "sentiment", "drop": ["neutral"]}],
    )  # fmt: skip
    kept = [line for split in ALL for line in found.open(split)["row"].to_pylist()]
    assert len(out) == 40 + 10
    assert not out & set(kept)
    assert found.open("train").num_rows == found.schema["rows"]["train"] == 40
    assert found.schema["digests"] == {split: file_digest(found.path(split)) for split in ALL}


def test_labels_that_are_found_are_sorted_and_those_that_are_listed_keep_their_order(tmp_path: Path, tiny_bert: Path) -> None:
    rows = sorted(rows_of_three_labels(), key=lambda row: row["sentiment"], reverse=True)
    assert prepared(tmp_path, tiny_bert, rows).labels == ["negative", "neutral", "positive"]
    listed = ["neutral", "positive", "negative"]
    assert prepared(tmp_path, tiny_bert, rows, labels=listed).labels == listed


def test_the_list_of_problems_goes_when_they_are_mended(tmp_path: Path, tiny_bert: Path) -> None:
    rows = real_rows(100)
    told, text = tmp_path / ".finespun" / "data_problems.csv", rows[7]["text"]
    rows[7]["text"] = ""
    with pytest.raises(DataError, match="rows need mending before training") as caught:
        prepared(tmp_path, tiny_bert, rows)
    assert str(caught.value).endswith(f"all of them: {told}")
    assert [line.split(",")[:4] for line in told.read_text().splitlines()[1:]] == [["reviews.csv", "9", "empty_text", "error"]]
    assert not (tmp_path / "prepared").exists()
    rows[7]["text"] = text
    prepared(tmp_path, tiny_bert, rows)
    assert not told.exists()


def test_a_label_without_rows_in_a_split_is_reported(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = real_rows(100)
    prepared(tmp_path, tiny_bert, rows)
    assert "no row of" not in capsys.readouterr().out
    kept = PreparedData(tmp_path / "prepared").open("train")["row"].to_pylist()
    rows[kept[0] - 2]["sentiment"] = "mixed"
    profile = json.loads((prepared(tmp_path, tiny_bert, rows).folder / "profile.json").read_text())
    assert profile["labels_without_rows"] == {"train": [], "val": ["mixed"], "test": ["mixed"]}
    said = capsys.readouterr().out
    assert all(f"warning: {split}: no row of mixed: scores of this split say nothing of it" in said for split in ALL[1:])
    rows += [row | {"text": f"{row['text']} again {number}", "sentiment": "mixed"} for number, row in enumerate(rows[:60])]
    prepared(tmp_path, tiny_bert, rows)  # as the warning says
    assert "no row of" not in capsys.readouterr().out


def test_columns_for_slices_are_kept_beside_their_rows(tmp_path: Path, tiny_bert: Path) -> None:
    rows = [{**row, "genre": ("drama", "comedy")[number % 2]} for number, row in enumerate(real_rows(100))]
    found = prepared(tmp_path, tiny_bert, rows, slices=["genre"], labels=LABELS, checks={"unknown_label": "drop"})
    for split in ALL:
        table = found.open(split)
        wanted = [("drama", "comedy")[number % 2] for number in table["row"].to_pylist()]
        assert table["slice/genre"].to_pylist() == wanted
    with pytest.raises(DataError, match=r"data.slices: has no column 'genra' \(did you mean 'genre'\?\)"):
        prepared(tmp_path, tiny_bert, rows, slices=["genra"])


def test_every_row_that_is_left_out_is_listed_with_its_reason(tmp_path: Path, tiny_bert: Path) -> None:
    rows = rows_of_three_labels()
    rows[20]["text"] = ""
    rows.append(rows[30])
    prepared(
        tmp_path, tiny_bert, rows, limit={"rows": 60}, checks={"empty_text": "drop", "duplicate": "drop"},
        filters=[{"column": "sentiment", "drop": ["neutral"]}],
    )  # fmt: skip
    left = pq.read_table(tmp_path / "prepared" / "dropped.parquet").to_pylist()
    reasons = Counter(row["reason"] for row in left)
    schema = json.loads((tmp_path / "prepared" / "schema.json").read_text())
    assert reasons["filter sentiment=neutral"] == 40
    assert reasons["limit"] > 50
    assert {(row["row"], row["reason"], row["column"], row["value"]) for row in left} >= {
        (22, "empty_text", "text", ""),
        (202, "duplicate", "text", rows[30]["text"]),
    }
    assert {row["file"] for row in left} == {"reviews.csv"}
    assert len(left) + sum(schema["rows"].values()) == len(rows), "every row is prepared or listed"


def test_a_file_that_is_not_read_costs_a_look_and_changes_nothing(project: Project) -> None:
    stage = ("python", "-m", "finespun.stages", "prepare")
    project.run("python", "-m", "finespun.stages", "configure")
    assert "rows, " in project.run(*stage, DVC_STAGE="prepare").stdout
    folder = project.folder / "data" / "prepared"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (project.folder / "data" / "raw" / "notes.csv").write_text("something,else\n")
    for each in (folder, project.folder / ".finespun" / "finished"):
        shutil.rmtree(each)  # DVC does the first; when it has recorded a result, the second goes
    done = project.run(*stage, DVC_STAGE="prepare")
    assert "prepare: nothing that it reads has changed; what was prepared before is taken" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    raw = project.folder / "data" / "raw" / "movie_reviews.csv"
    raw.write_text(raw.read_text().replace("the", "a"))
    assert "rows, " in project.run(*stage, DVC_STAGE="prepare").stdout, "a file that is read is read again"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} != before
    assert len([*(project.folder / ".finespun" / "last_prepared").iterdir()]) == 1


def test_of_images_only_those_that_rows_name_matter(project: Project, tiny_net: Path) -> None:
    raw, stage = project.folder / "data" / "raw", ("python", "-m", "finespun.stages", "prepare")
    shutil.copytree(tiny_net, project.folder / "data" / "tiny-net")
    (project.folder / "conf" / "model" / "tiny_net.yaml").write_text("checkpoint: data/tiny-net\n")
    write_digits(raw / "digits", 60)
    named = sorted((raw / "digits").rglob("*.png"))
    rows = [{"file": str(path.relative_to(raw)), "digit": f"d{int(path.parent.name) % 2}"} for path in named[:50]]
    write_csv(raw / "table.csv", rows)
    columns = "{image: file, label: digit}"
    (project.folder / "conf" / "data" / "table.yaml").write_text(f"path: data/raw/table.csv\ncolumns: {columns}\n")
    project.edit("params.yaml", data="table", task="image_classification", model="tiny_net")
    project.run("python", "-m", "finespun.stages", "configure")

    def again() -> str:
        for each in (project.folder / "data" / "prepared", project.folder / ".finespun" / "finished"):
            shutil.rmtree(each, ignore_errors=True)
        return project.run(*stage, DVC_STAGE="prepare").stdout

    assert "50 rows, " in again()
    shutil.copy(named[0], raw / "digits" / "new.png")
    shutil.copy(named[0], named[55])
    assert "what was prepared before is taken" in again(), "no row names these two"
    shutil.copy(named[0], named[1])
    assert "50 rows, " in again()


def test_an_interrupted_prepare_leaves_nothing_half_written(project: Project) -> None:
    project.run("python", "-m", "finespun.stages", "configure")
    code = (
        "import os, signal, finespun.stages.prepare as stage; from pathlib import Path\n"
        "from finespun.artifacts import Artifacts\n"
        "def killed(folder):\n"
        "    assert (folder / 'train.arrow').is_file(); os.kill(os.getpid(), getattr(signal, SIGNAL))\n"
        "stage.PreparedData = killed; here = Path.cwd(); stage.run(Artifacts(project=here, out=here))\n"
    )
    for name in ("SIGKILL", "SIGINT"):
        done = project.run("python", "-c", code.replace("SIGNAL", repr(name)), check=False)
        assert done.returncode != 0
        assert not (project.folder / "data" / "prepared").exists()
    project.run("python", "-m", "finespun.stages", "prepare")
    assert not [*(project.folder / "data").glob("*.making-*")]
