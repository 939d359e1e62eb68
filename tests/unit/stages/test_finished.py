"""A finished result is kept until `dvc.lock` has it, and taken by whoever is asked for the very same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from finespun.artifacts import Artifacts
from finespun.stages import finished


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """A project whose `finetune` has just ended under DVC, which then removes its outputs."""
    monkeypatch.setenv("DVC_STAGE", "finetune")
    artifacts = Artifacts(project=tmp_path, out=tmp_path)
    artifacts.dvc_lock.write_text("before")
    (artifacts.finetuned / "inner").mkdir(parents=True)
    with (artifacts.finetuned / "model.safetensors").open("wb") as file:
        file.truncate(20_000_000)
    (artifacts.finetuned / "inner" / "run.json").write_text("{}")
    checkpoints = artifacts.state / "checkpoints" / "c"
    checkpoints.mkdir(parents=True)
    finished.keep(artifacts, "finetune", "d", checkpoints="c")
    shutil.rmtree(artifacts.finetuned)
    return artifacts


def names(artifacts: Artifacts) -> list[str]:
    folder = artifacts.finetuned
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_dvc_did_not_record_is_taken_as_often_as_it_is_asked_for(
    here: Artifacts, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert finished.take(here, "finetune", lambda: "d")
        assert names(here) == ["inner/run.json", "model.safetensors"]
        shutil.rmtree(here.finetuned)
    assert not (here.state / "checkpoints" / "c").exists()
    said = capsys.readouterr().out
    assert "finetune: had finished, and DVC ended before it recorded it" in said
    shutil.rmtree(said.splitlines()[0].split("rm -r ")[1])  # the advice
    assert not finished.take(here, "finetune", lambda: "d")


def test_large_files_cost_no_space(here: Artifacts) -> None:
    assert finished.take(here, "finetune", lambda: "d")
    assert (here.finetuned / "model.safetensors").stat().st_nlink == 2


def test_what_dvc_has_recorded_is_removed_by_the_next_stage(here: Artifacts) -> None:
    here.dvc_lock.write_text("after")
    assert not finished.take(here, "evaluate", lambda: "e")
    assert list(here.finished.iterdir()) == []


def test_a_lock_file_that_did_not_exist_and_does_now_is_a_record(here: Artifacts) -> None:
    here.dvc_lock.unlink()
    here.finetuned.mkdir()
    finished.keep(here, "finetune", "d")
    here.dvc_lock.write_text("first")
    assert not finished.take(here, "finetune", lambda: "d")


def test_other_inputs_are_computed(here: Artifacts) -> None:
    assert not finished.take(here, "finetune", lambda: "other")
    assert not finished.take(here, "evaluate", lambda: "d")
    assert finished.take(here, "finetune", lambda: "d")


@pytest.mark.parametrize("damage", ["flip", "cut", "more", "less", "note", "torn note"])
def test_a_damaged_result_is_computed_anew(here: Artifacts, damage: str) -> None:
    kept = here.finished / "finetune-d"
    weights, note = kept / "files" / "model.safetensors", kept / "note.json"
    if damage == "flip":
        with weights.open("r+b") as file:
            file.seek(77)
            file.write(b"\1")
    elif damage == "cut":
        os.truncate(weights, 100)
    elif damage == "more":
        (kept / "files" / "more").touch()
    elif damage == "less":
        weights.unlink()
    elif damage == "note":
        note.write_text("")
    else:
        note.write_text(note.read_text()[:-20])
    assert not finished.take(here, "finetune", lambda: "d")
    assert names(here) == []


def test_only_under_dvc_which_removes_outputs(here: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Artifacts(project=here.project, out=here.project / "outputs" / "1")
    assert not finished.take(trial, "finetune", lambda: "d")
    monkeypatch.delenv("DVC_STAGE")
    assert not finished.take(here, "finetune", lambda: "d")
    finished.keep(here, "finetune", "another")
    assert [path.name for path in here.finished.iterdir()] == ["finetune-d"]


def test_an_experiment_in_another_copy_takes_it_and_copies_that_are_gone_leave_nothing(here: Artifacts) -> None:
    copies = [here.project / ".dvc" / "tmp" / "exps" / name for name in ("tmp1", "tmp2")]
    one, two = (Artifacts(project=copy, out=copy) for copy in copies)
    for copy in (one, two):
        (copy.project / ".dvc").mkdir(parents=True)
        copy.dvc_lock.write_text("before")
    one.finetuned.mkdir(parents=True)
    (one.finetuned / "a").write_text("1")
    finished.keep(one, "finetune", "x")
    assert finished.take(two, "finetune", lambda: "x")
    assert (two.finetuned / "a").read_text() == "1"
    for copy in copies:
        shutil.rmtree(copy)
    assert finished.take(here, "finetune", lambda: "d")
    assert [path.name for path in here.finished.iterdir()] == ["finetune-d"]


def test_a_project_that_was_moved_takes_it_and_a_process_that_is_keeping_is_left_alone(here: Artifacts, tmp_path: Path) -> None:
    filling = here.finished / "finetune-e.123"
    filling.mkdir()
    shutil.move(here.project, tmp_path.parent / f"{tmp_path.name}-moved")
    moved = Artifacts(project=tmp_path.parent / f"{tmp_path.name}-moved", out=tmp_path.parent / f"{tmp_path.name}-moved")
    assert finished.take(moved, "finetune", lambda: "d")
    assert (moved.finished / filling.name).is_dir()
    moved.dvc_lock.write_text("after")
    finished.take(moved, "evaluate", lambda: "e")
    assert [path.name for path in moved.finished.iterdir()] == [filling.name]


def test_a_result_that_cannot_be_kept_is_a_result(here: Artifacts, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(here.finished)
    here.finished.write_text("a file")
    here.finetuned.mkdir()
    finished.keep(here, "finetune", "d")
    assert f"its result is not kept until DVC has recorded it: {here.finished}" in capsys.readouterr().out
    assert not finished.take(here, "finetune", lambda: "d")
