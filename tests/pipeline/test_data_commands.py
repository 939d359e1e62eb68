"""`finespun check` and the ways to split, in a whole project."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from helpers import Project, real_rows, write_csv, write_digits


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


def tickets(folder: Path, count: int = 150) -> Path:
    queues = ("billing", "technical", "other")
    rows = [{"body": row["text"], "queue": queues[number % 3]} for number, row in enumerate(real_rows(count))]
    return write_csv(folder / "Support tickets (2024).csv", rows)


def test_two_commands_from_a_csv_on_disk_to_prepared_data(project: Project, tmp_path: Path) -> None:
    given = tickets(tmp_path / "elsewhere")
    before = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(f"# mine\n{before.replace('seed: 42', 'seed: 42 # the answer')}")
    done = project.run("finespun", "init", str(given))
    assert "task: text_classification (sure)" in done.stdout
    assert "copied to data/raw/Support tickets (2024).csv" in done.stdout
    assert "wrote conf/data/support_tickets_2024.yaml; set in params.yaml: data: support_tickets_2024" in done.stdout
    assert "150 rows, 0 left out; train 120, val 15, test 15; labels billing 50" in done.stdout
    params = (project.folder / "params.yaml").read_text()
    assert params.startswith("# mine\n")
    assert "seed: 42 # the answer" in params
    project.run("python", "-m", "finespun.stages", "configure", "prepare")
    schema = json.loads((project.folder / "data" / "prepared" / "schema.json").read_text())
    assert (schema["labels"], schema["rows"]) == (["billing", "other", "technical"], {"train": 120, "val": 15, "test": 15})


def test_nothing_is_overwritten_unless_it_is_said(project: Project, tmp_path: Path) -> None:
    given = tickets(tmp_path / "elsewhere")
    project.run("finespun", "init", str(given), "--name", "mail")
    (project.folder / "conf" / "data" / "mail.yaml").write_text("path: mine\n")
    again = project.run("finespun", "init", str(given), "--name", "mail", check=False)
    assert (again.returncode, again.stderr) == (
        3, "finespun init: conf/data/mail.yaml: is there already; say --name for another, or --force to write it anew\n",
    )  # fmt: skip
    other = tickets(tmp_path / "others", count=60)
    copied = project.run("finespun", "init", str(other), "--name", "others", check=False)
    assert copied.returncode == 3
    assert "is there already, and" in copied.stderr
    assert not (project.folder / "conf" / "data" / "others.yaml").exists()
    project.run("finespun", "init", str(given), "--name", "mail", "--force", "--column", "label=body", "--column", "text=queue")
    assert "label: body" in (project.folder / "conf" / "data" / "mail.yaml").read_text()


def test_images_bring_their_model_with_them(project: Project) -> None:
    write_digits(project.folder / "data" / "raw" / "signs", 200)
    done = project.run("finespun", "init", "data/raw/signs")
    assert "set in params.yaml: data: signs, task: image_classification, model: mobilenet_v2" in done.stdout
    assert "data/raw/signs: 200 rows, 0 left out" in done.stdout


def test_it_asks_in_a_terminal_and_says_what_it_needs_elsewhere(project: Project, tmp_path: Path) -> None:
    nothing = project.run("finespun", "init", check=False)
    assert nothing.returncode == 2
    assert "say the PATH of a file or folder; without one, it asks in a terminal" in nothing.stderr
    tickets(project.folder / "data" / "raw")
    answers = ["Support tickets (2024).csv", "", "", "body", "mail"]  # file, task, column of text, of label, name
    code = (
        "import os, pty, sys\n"
        "answers = iter(sys.argv[1:])\n"
        "def master(descriptor):\n"
        "    said = os.read(descriptor, 4096)\n"
        "    if said.rstrip().endswith(b':'):\n"
        "        os.write(descriptor, (next(answers) + '\\n').encode())\n"
        "    return said\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-m', 'finespun', 'init'], master)))\n"
    )
    done = project.run("python", "-c", code, *answers)
    assert "in data/raw: Support tickets (2024).csv, movie_reviews.csv" in done.stdout
    assert "column of label (body, queue) [queue]: body" in done.stdout
    assert "label: body" in (project.folder / "conf" / "data" / "mail.yaml").read_text()


@pytest.mark.slow
def test_dvc_repro_learns_what_init_wrote(project: Project, tmp_path: Path) -> None:
    project.run("finespun", "init", str(tickets(tmp_path)))
    project.run("dvc", "repro")
    assert (project.folder / "reports" / "test" / "metrics.json").is_file()
