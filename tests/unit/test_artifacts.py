"""One file knows the paths, and dvc.yaml names the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finespun.artifacts import PREPARED, Artifacts, copied_from, find_project
from finespun.errors import MachineError
from helpers import ROOT

HERE = Artifacts(project=ROOT, out=ROOT)
APART = Artifacts(project=Path("/project"), out=Path("/out"))


def test_everything_that_dvc_yaml_makes_lies_where_the_code_writes_it() -> None:
    stages = yaml.safe_load(HERE.pipeline.read_text())["stages"]
    homes = {
        "configure": HERE.config,
        "prepare": HERE.prepared,
        "finetune": HERE.finetuned,
        "evaluate": HERE.report("evaluate"),
        "test": HERE.report("test"),
        "report": HERE.page.parent,
    }
    assert set(homes) == set(stages)
    for name, stage in stages.items():
        outs = [*stage.get("outs", []), *stage.get("metrics", [])]
        paths = [ROOT / (out if isinstance(out, str) else next(iter(out))) for out in outs]
        assert paths
        assert all(path.is_relative_to(homes[name]) for path in paths)


def test_results_go_out_and_the_users_files_stay_in_the_project() -> None:
    assert APART.config == Path("/out/build/config.yaml")
    assert APART.finetuned == Path("/out/models/finetuned")
    assert APART.report("evaluate") == Path("/out/reports/evaluation")
    assert (APART.conf, APART.params, APART.pipeline) == tuple(
        Path("/project", name) for name in ("conf", "params.yaml", "dvc.yaml")
    )
    assert (APART.state, APART.mlruns) == (Path("/project/.finespun"), Path("/project/mlruns"))


@pytest.mark.parametrize(
    ("dependency", "place"),
    [
        ("data/prepared/train.arrow", "/out"),
        (str(PREPARED), "/out"),
        ("models/finetuned", "/out"),
        ("reports/test/metrics.json", "/out"),
        ("data/raw", "/project"),
        ("data/prepared_by_hand", "/project"),
        ("src/finespun/models", "/project"),
        ("conf", "/project"),
    ],
)
def test_a_dependency_is_read_where_this_run_has_it(dependency: str, place: str) -> None:
    assert APART.local(dependency) == Path(place, dependency)


def test_a_project_is_found_from_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "conf" / "model"
    inside.mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(inside)
    assert find_project() == tmp_path


def test_a_folder_that_is_no_project_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()  # without conf/
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MachineError, match=f"{tmp_path}: no finespun project here or above"):
        find_project()


@pytest.mark.parametrize(
    ("copy", "inside"),
    [(".dvc/tmp/exps/tmpab12", "."), (".dvc/tmp/exps/standalone/tmp_9", "."), (".dvc/tmp/exps/tmpab12", "models/reviews")],
)
@pytest.mark.parametrize("names_the_original", [True, False])
def test_what_outlives_a_copy_for_an_experiment_lies_in_the_project_that_was_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: str, inside: str, *, names_the_original: bool
) -> None:
    (tmp_path / copy / ".dvc").mkdir(parents=True)
    project = tmp_path / copy / inside
    monkeypatch.setenv("DVC_ROOT", str(tmp_path) if names_the_original else "")
    artifacts = Artifacts(project=project, out=project)
    assert copied_from(project) == tmp_path / inside
    assert (artifacts.state, artifacts.mlruns) == (tmp_path / inside / ".finespun", tmp_path / inside / "mlruns")
    assert artifacts.raw[1] == tmp_path / inside / ".dvc" / "cache"
    for place in (artifacts.conf, artifacts.params, artifacts.pipeline, artifacts.local("src"), artifacts.finetuned):
        assert place.is_relative_to(project), "code and results are those of the copy"


def test_a_copy_is_known_where_its_folder_is_a_link_to_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, disk = tmp_path / "project", tmp_path / "disk"
    (disk / "exps" / "tmp1" / ".dvc").mkdir(parents=True)
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc" / "tmp").symlink_to(disk)
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert copied_from(disk / "exps" / "tmp1") == project


def test_a_project_that_another_ones_stage_runs_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other", "one/.dvc/cache/inside"):
        (tmp_path / name / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "one"))
    for name in ("one", "other", "one/.dvc/cache/inside"):
        assert copied_from(tmp_path / name) is None
