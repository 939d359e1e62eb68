"""`finespun init` takes files of any name, and refuses what it is told wrong before it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.errors import ConfigError, DataError
from finespun.own_data.init import Wishes, initialise
from helpers import ROOT

ROWS = "body,queue,size\n" + "".join(f"the wheel number {n} is late,{'ab'[n % 2]},{'sml'[n % 3]}\n" for n in range(40))


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "conf", project / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, project)
    return Artifacts(project=project, out=project)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("2024-01-15.csv", "data_2024_01_15"),
        ("Überblick 3.csv", "uberblick_3"),
        ("фильмы 电影.csv", "data"),
        ("null.csv", "data_null"),
        ("on.csv", "data_on"),
    ],
)
def test_a_file_of_any_name_is_one_that_hydra_takes(artifacts: Artifacts, tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text(ROWS)
    initialise(artifacts, tmp_path / file, Wishes(), lambda line: None)
    config, _ = compose(artifacts)
    assert (config.data.path, yaml.safe_load(artifacts.params.read_text())["data"]) == (f"data/raw/{file}", name)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        (Wishes(columns={"labl": "queue"}), r"--column: 'labl' is no role of text_classification \(did you mean 'label'\?\)"),
        (Wishes(task="text_clasification"), r"--task: there is no conf/task/text_clasification.yaml \(did you mean"),
        (Wishes(name="my films"), "--name: 'my films' is no name of a file in conf/: such a name begins with a letter"),
    ],
)
def test_what_is_said_wrong_is_refused_and_nothing_written(
    artifacts: Artifacts, tmp_path: Path, wishes: Wishes, told: str
) -> None:
    (tmp_path / "mail.csv").write_text(ROWS)
    with pytest.raises(ConfigError, match=told):
        initialise(artifacts, tmp_path / "mail.csv", wishes, lambda line: None)
    assert not (artifacts.project / "data").exists()
    assert artifacts.params.read_text() == (ROOT / "params.yaml").read_text()


def test_the_same_file_may_be_given_again_and_another_of_its_name_not(artifacts: Artifacts, tmp_path: Path) -> None:
    given = tmp_path / "mail.csv"
    given.write_text(ROWS.replace("queue", "colour"))
    said: list[str] = []
    initialise(artifacts, given, Wishes(), said.append)
    assert "'size' is to be learnt instead? finespun init --force --task text_classification --column label=size" in "\n".join(
        said
    )
    initialise(artifacts, given, Wishes(name="second"), said.append)
    given.write_text(ROWS)
    with pytest.raises(DataError, match="is there already, and .* is another"):
        initialise(artifacts, given, Wishes(name="third"), said.append)


@pytest.mark.parametrize(
    ("rows", "written"),
    [(40, "{max_epochs: 20, batch_size: 16}"), (540, "{max_epochs: 8, batch_size: 16}"), (4_000, None)],
)
def test_few_rows_are_trained_on_more_often(artifacts: Artifacts, tmp_path: Path, rows: int, written: str | None) -> None:
    lines = (f"the wheel number {number} is late,{'ab'[number % 2]}\n" for number in range(rows))
    (tmp_path / "mail.csv").write_text("body,queue\n" + "".join(lines))
    said: list[str] = []
    initialise(artifacts, tmp_path / "mail.csv", Wishes(), said.append)
    config, _ = compose(artifacts)
    made = artifacts.conf / "experiment" / "mail.yaml"
    if written is None:
        assert (config.trainer.max_epochs, config.trainer.batch_size, made.exists()) == (2, 32, False)
        return
    assert f"{{max_epochs: {config.trainer.max_epochs}, batch_size: {config.trainer.batch_size}}}" == written
    assert f"few rows need more epochs: conf/experiment/mail.yaml has trainer: {written}" in said
    made.write_text("# @package _global_\n# mine\n{}\n")
    initialise(artifacts, tmp_path / "mail.csv", Wishes(name="other"), said.append)
    (artifacts.conf / "data" / "mail.yaml").unlink()
    initialise(artifacts, tmp_path / "mail.csv", Wishes(), said.append)
    assert "# mine" in made.read_text(), "what was written by hand, or promoted, stays"
    assert any(line.startswith("conf/experiment/mail.yaml is there already") for line in said)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("data:", "params.yaml: data: is empty; choose one of: 20240115, cut_outs"),
        (
            "data: {path: data/raw/mail.csv}",
            "params.yaml: data: is to name a file of conf/data/, whose keys are set there, or by",
        ),
        ("data: 2024_01_15", "params.yaml: data: .* there is no conf/data/20240115.yaml|is no name of a file"),
        ("data: фильмы", "params.yaml: data: 'фильмы' is no name of a file in conf/: .* rename conf/data/фильмы.yaml"),
    ],
)
def test_a_dial_that_hydra_cannot_take_is_named(artifacts: Artifacts, line: str, told: str) -> None:
    for name in ("фильмы", "20240115"):
        shutil.copy(artifacts.conf / "data" / "digits.yaml", artifacts.conf / "data" / f"{name}.yaml")
    artifacts.params.write_text(artifacts.params.read_text().replace("data: movie_reviews", line))
    with pytest.raises(ConfigError, match=told):
        compose(artifacts)
