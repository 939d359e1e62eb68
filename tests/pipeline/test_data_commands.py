"""`finespun check` and the ways to split, in a whole project."""

from __future__ import annotations

import csv
import json

from helpers import Project, real_rows, write_csv


def test_check_lists_everything_at_once_and_writes_nothing(project: Project) -> None:
    done = project.run("finespun", "check")
    assert "data/raw/movie_reviews.csv: 200 rows, " in done.stdout
    raw = project.folder / "data" / "raw" / "movie_reviews.csv"
    with raw.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[3]["text"], rows[5]["sentiment"] = "", "postive"
    rows.append(rows[10])
    write_csv(raw, rows)
    done = project.run("finespun", "check", check=False)
    assert done.returncode == 3
    assert (
        "empty text: 1 row (there is nothing to learn from, or to answer)\n  data/raw/movie_reviews.csv:5: text ''"
        in done.stdout
    )
    assert "did you mean 'positive'?" in done.stdout
    assert "warnings\n" in done.stdout
    found = json.loads(project.run("finespun", "check", "--json", check=False).stdout)
    assert found["counts"]["error"] == {"empty_text": 1, "unknown_label": 1}
    assert [(each["kind"], each["line"], each["value"]) for each in found["problems"] if each["severity"] == "error"] == [
        ("empty_text", 5, ""),
        ("unknown_label", 7, "postive"),
    ]
    assert all(each["why"] and each["remedy"] and each["file"] for each in found["problems"])
    assert not (project.folder / "data" / "prepared").exists()
    prepared = project.run("python", "-m", "finespun.stages", "configure", "prepare", check=False)
    assert prepared.returncode == 3
    assert "data/raw/movie_reviews.csv:5: text ''" in prepared.stderr, "prepare stops at the same errors"


def test_a_fold_is_prepared_and_the_test_split_stays(project: Project) -> None:
    rows = [row | {"part": "test" if number % 5 == 0 else "train"} for number, row in enumerate(real_rows(200))]
    write_csv(project.folder / "data" / "raw" / "movie_reviews.csv", rows)
    for number, keys in enumerate([{"split": "{by: stratified}"}, {"columns": "{text: text, label: sentiment, split: part}"}]):
        name = f"way{number}"
        said = {
            "path": "data/raw/movie_reviews.csv",
            "columns": "{text: text, label: sentiment}",
            "fold": 1,
            "folds": 4,
            **keys,
        }
        said["filters"] = "[{column: sentiment, drop: [neutral]}]"
        text = "".join(f"{key}: {value}\n" for key, value in said.items())
        (project.folder / "conf" / "data" / f"{name}.yaml").write_text(text)
        project.edit("params.yaml", data=name)
        project.run("python", "-m", "finespun.stages", "configure", "prepare")
        schema = json.loads((project.folder / "data" / "prepared" / "schema.json").read_text())
        assert abs(schema["rows"]["val"] - (schema["rows"]["val"] + schema["rows"]["train"]) / 4) < (15 if number else 2)
        assert schema["rows"]["test"] == (40 if number else round(0.1 * sum(schema["rows"].values())))
