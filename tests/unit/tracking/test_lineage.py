"""What made a result: digests that see what matters and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from finespun.artifacts import Artifacts
from finespun.errors import DataError
from finespun.tracking import lineage
from finespun.tracking.lineage import input_digests, path_digest, require_unchanged, stage_digest, tags
from finespun.tracking.lineage import lineage as made_of
from helpers import ROOT
from small_run import small_config

PIPELINE = """
stages:
  prepare:
    deps: [data/raw, code.py]
    params: [build/config.yaml: [data, task]]
  finetune:
    deps: [data/prepared/train.arrow, code.py]
    params: [build/config.yaml: [optimizer, seed]]
"""


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    """A project of a few files, with results apart from it as under `finespun run`."""
    made = Artifacts(project=tmp_path / "project", out=tmp_path / "out")
    for path, text in (
        (made.pipeline, PIPELINE),
        (made.project / "code.py", "x = 1\n"),
        (made.project / "data" / "raw" / "reviews.csv", "text\nfine\n"),
        (made.prepared / "train.arrow", "rows"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return made


def folder(path: Path, *names: str, text: str = "same") -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_a_files_digest_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    assert path_digest(tmp_path / "a") == hashlib.sha256(b"bytes").hexdigest()


def test_a_folders_digest_sees_content_and_names(tmp_path: Path) -> None:
    digests = {
        path_digest(folder(tmp_path / "1", "a.py", "b/c.py")),
        path_digest(folder(tmp_path / "2", "a.py", "b/d.py")),
        path_digest(folder(tmp_path / "3", "a.py", "c.py")),
        path_digest(folder(tmp_path / "4", "a.py")),
        path_digest(folder(tmp_path / "5", "a.py", "b/c.py", text="other")),
    }
    assert len(digests) == 5


def test_a_folders_digest_sees_neither_order_nor_place_nor_compiled_files(tmp_path: Path) -> None:
    first = folder(tmp_path / "first", "a.py", "b/c.py", "b.py")
    second = folder(tmp_path / "elsewhere" / "second", "b.py", "b/c.py", "a.py", "b/__pycache__/c.cpython-311.pyc")
    assert path_digest(first) == path_digest(second)


def test_what_is_not_there_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: is not there; `dvc repro` makes it"):
        path_digest(tmp_path / "nowhere")


def test_inputs_are_those_that_dvc_yaml_declares_where_this_run_has_them(artifacts: Artifacts) -> None:
    assert input_digests(artifacts, "prepare").keys() == {"data/raw", "code.py"}
    found = input_digests(artifacts, "finetune")
    assert found["data/prepared/train.arrow"] == hashlib.sha256(b"rows").hexdigest()
    assert found["code.py"] == path_digest(artifacts.project / "code.py")


def test_an_input_that_changes_while_a_stage_runs_is_named(artifacts: Artifacts) -> None:
    before = input_digests(artifacts, "prepare")
    require_unchanged(artifacts, "prepare", before)
    (artifacts.project / "data" / "raw" / "reviews.csv").write_text("text\nworse\n")
    with pytest.raises(DataError, match="^data/raw: changed while prepare was running"):
        require_unchanged(artifacts, "prepare", before)
    require_unchanged(artifacts, "finetune", input_digests(artifacts, "finetune"))


def test_a_stages_digest_changes_with_whatever_the_stage_reads(artifacts: Artifacts) -> None:
    inputs = input_digests(artifacts, "finetune")
    start = stage_digest(artifacts, "finetune", small_config(), inputs, on="32-true")
    assert start == stage_digest(artifacts, "finetune", small_config(), dict(reversed(inputs.items())), on="32-true")
    (artifacts.project / "code.py").write_text("x = 2\n")
    others = [
        stage_digest(artifacts, "finetune", small_config(seed=4), inputs, on="32-true"),
        stage_digest(artifacts, "finetune", small_config(optimizer__lr=2e-3), inputs, on="32-true"),
        stage_digest(artifacts, "finetune", small_config(), input_digests(artifacts, "finetune"), on="32-true"),
        stage_digest(artifacts, "finetune", small_config(), inputs, on="bf16-mixed"),
        stage_digest(artifacts, "prepare", small_config(), inputs, on="32-true"),
    ]
    assert len({start, *others}) == 6


def test_a_stages_digest_changes_with_a_package(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage_digest(artifacts, "finetune", small_config(), {})
    real = lineage.version
    monkeypatch.setattr(lineage, "version", lambda name: "9.9" if name == "torch" else real(name))
    lineage.packages.cache_clear()
    assert stage_digest(artifacts, "finetune", small_config(), {}) != before
    lineage.packages.cache_clear()


def test_a_stages_digest_is_blind_to_sections_that_it_does_not_read(artifacts: Artifacts) -> None:
    before = stage_digest(artifacts, "finetune", small_config(), {})
    for changes in ({"runtime__num_workers": 2}, {"report__confusion_title": "new"}, {"trainer__max_epochs": 9}):
        assert stage_digest(artifacts, "finetune", small_config(**changes), {}) == before


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


SCHEMA = {"name": "reviews", "source": {"path": "reviews.csv", "sha256": "e" * 64}}


def test_lineage_has_the_commit_and_what_was_changed_since(artifacts: Artifacts) -> None:
    shutil.copyfile(ROOT / "dvc.lock", artifacts.project / "dvc.lock")
    git(artifacts.project, "init", "-q")
    git(artifacts.project, "remote", "add", "origin", "https://me:secret@example.org/reviews.git")
    git(artifacts.project, "add", "-A")
    git(artifacts.project, "commit", "-qm", "start")
    clean = made_of(artifacts, {"code.py": "123"}, {"seed": 1})
    assert clean["commit"] == git(artifacts.project, "rev-parse", "HEAD")
    assert clean["repository"] == "https://example.org/reviews.git"
    assert clean["dirty_diff"] == ""
    assert clean["inputs"] == {"code.py": "123"}
    assert clean["dvc"]["data/prepared"].endswith(".dir")
    assert f"torch {lineage.version('torch')}" in clean["packages"]
    assert clean["config"] == hashlib.sha256(json.dumps({"seed": 1}).encode()).hexdigest()
    assert made_of(artifacts, {}, {"seed": 2})["config"] != clean["config"]

    (artifacts.project / "code.py").write_text("x = 2\n")
    dirty = made_of(artifacts, {}, {})
    assert dirty["commit"] == clean["commit"]
    (artifacts.project / "code.py").write_text("x = 3\n")
    assert len({dirty["dirty_diff"], made_of(artifacts, {}, {})["dirty_diff"]}) == 2
    git(artifacts.project, "commit", "-qam", "more")
    assert made_of(artifacts, {}, {})["commit"] != clean["commit"]
    assert made_of(artifacts, {}, {})["dirty_diff"] == ""


def test_tags_are_few_and_those_that_mlflow_has_columns_for(artifacts: Artifacts) -> None:
    git(artifacts.project, "init", "-q", "-b", "trunk")
    git(artifacts.project, "add", "-A")
    git(artifacts.project, "commit", "-qm", "start")
    found = tags(made_of(artifacts, {"weights": "a" * 64}, {}), SCHEMA, command="dvc repro")
    assert found.pop("mlflow.user")
    assert len(found.pop("config")) == 12
    assert found == {
        "mlflow.source.name": "dvc repro", "mlflow.source.type": "LOCAL", "mlflow.source.git.branch": "trunk",
        "mlflow.source.git.commit": git(artifacts.project, "rev-parse", "HEAD"), "data": "reviews eeeeeeeeeeee",
        "weights": "aaaaaaaaaaaa", "changed since commit": "no",
    }  # fmt: skip


def test_a_folder_without_git_or_dvc_has_the_other_tags(artifacts: Artifacts) -> None:
    found = tags(made_of(artifacts, {}, {}), SCHEMA, command="dvc repro")
    assert set(found) - {"mlflow.user"} == {"mlflow.source.name", "mlflow.source.type", "data", "config"}


def test_a_dirty_checkout_is_told_also_by_files_that_git_does_not_know_and_in_any_encoding(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=tmp_path, check=True)

    def told() -> str:
        return str(made_of(Artifacts(project=tmp_path, out=tmp_path), {}, {})["dirty_diff"])

    git("init", "-q")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    git("add", "-A")
    git("commit", "-qm", "one")
    found = [told()]
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9s\n")
    found.append(told())
    (tmp_path / "new.py").write_text("1")
    found.append(told())
    (tmp_path / "new.py").write_text("2")
    found.append(told())
    assert found[0] == ""
    assert len(set(found)) == 4
