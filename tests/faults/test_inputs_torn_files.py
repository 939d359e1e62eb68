"""A file of finespun's or DVC's that is torn, empty or in conflict names itself and the remedy: never "a bug in finespun"."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finespun.artifacts import Artifacts
from finespun.config.compose import declared_sections, read_dials, read_for_stage
from finespun.data.prepared import PreparedData
from finespun.errors import DataError, FinespunError, ModelError
from finespun.evaluation.record import RESTORE, read_record
from finespun.files import read_table
from finespun.tracking.lineage import lineage
from finespun.training.history import COLUMNS, History

TORN: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n \n",
    "zeros": b"\0" * 4096,
    "cut short": b'{"labels": ["a", "b"], "stages',
    "other bytes": b"\x80\x04\x95\xff\xfe",
    "in conflict": b"<<<<<<< HEAD\nstages: {}\n=======\nstages: {}\n>>>>>>> other\n",
    "a list": b"[1, 2]",
    "a number": b"3",
    "too deep": b"[" * 50_000,
}


def run_json(folder: Path) -> None:
    read_record(folder)


def schema(folder: Path) -> None:
    _ = PreparedData(folder).schema


def dvc_lock(folder: Path) -> None:
    lineage(Artifacts(project=folder, out=folder), {}, {})


def dvc_yaml(folder: Path) -> None:
    declared_sections(folder / "dvc.yaml", "prepare")


def params(folder: Path) -> None:
    read_dials(folder / "params.yaml")


def config(folder: Path) -> None:
    (folder / "build").mkdir()
    (folder / "config.yaml").rename(folder / "build" / "config.yaml")
    read_for_stage(Artifacts(project=folder, out=folder), "prepare")


READERS: dict[str, tuple[Callable[[Path], None], int, str]] = {  # file -> its reader, exit code, remedy
    "run.json": (run_json, 4, "`dvc repro --force finetune`"),
    "schema.json": (schema, 3, "`dvc repro --force prepare`"),
    "dvc.lock": (dvc_lock, 5, "`git checkout dvc.lock`"),
    "dvc.yaml": (dvc_yaml, 2, ""),
    "params.yaml": (params, 2, ""),
    "config.yaml": (config, 2, ""),
}


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("name", READERS)
def test_the_file_and_the_remedy_are_named(name: str, torn: str, tmp_path: Path) -> None:
    read, code, remedy = READERS[name]
    (tmp_path / name).write_bytes(TORN[torn])
    with pytest.raises(FinespunError) as raised:
        read(tmp_path)
    assert raised.value.exit_code == code
    assert name in str(raised.value)
    assert remedy in str(raised.value)
    assert len(str(raised.value)) < 3000


@pytest.mark.parametrize("missing", ["task", "columns"])
def test_a_record_that_lacks_something_says_what(missing: str, tmp_path: Path) -> None:
    whole: dict[str, Any] = {"task": {}, "columns": {}}
    (tmp_path / "run.json").write_text(json.dumps({name: value for name, value in whole.items() if name != missing}))
    with pytest.raises(ModelError, match=f"run.json: is damaged: it lacks {missing}; restore"):
        read_record(tmp_path)


def test_a_schema_may_not_be_read_in_its_absence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="schema.json: is not there; run `dvc repro --force prepare`"):
        schema(tmp_path)


def history(path: Path) -> list[dict[str, str]]:
    return read_table(path, COLUMNS, error=ModelError, remedy=RESTORE)


@pytest.mark.parametrize("torn", TORN)
def test_a_history_that_is_torn_is_named(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(TORN[torn])
    with pytest.raises(ModelError, match=r"history.csv: .*`dvc repro --force finetune`"):
        history(path)


def test_a_history_is_read_whole_and_one_cut_short_is_named(tmp_path: Path) -> None:
    kept = History(tmp_path / "history.csv")
    kept.cut_back(-1)
    assert history(kept.path) == []
    kept.add([(1, {"train/loss": 0.5, "train/rate": 1.0})], epoch=0)
    assert history(kept.path) == kept.rows()
    assert len(kept.rows()) == 2
    whole = kept.path.read_text()
    kept.path.write_text(whole[: whole.rindex("train/rate")])
    with pytest.raises(ModelError, match="its last line is cut short"):
        history(kept.path)
