"""A project that was moved, copied or renamed reads and writes its own `mlruns/`, and old runs still open."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from finespun.artifacts import Artifacts
from finespun.tracking.addresses import ADDRESSES, bring_along
from finespun.tracking.client import Run, Tracker
from small_run import small_config

RUNTIME = small_config().runtime


def tracker(project: Path) -> Tracker:
    return Tracker(RUNTIME, Artifacts(project=project, out=project))


def log(project: Path, text: str) -> Run:
    """A run with one file, of a project."""
    folder = project / "reports" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "said.txt").write_text(text)
    with tracker(project).start(text, tags={}, params={}) as run:
        run.log_folder(folder, "test")
    return run


def read(project: Path, run: Run) -> str:
    mlflow.set_tracking_uri(tracker(project).uri)
    assert tracker(project).client
    return Path(mlflow.artifacts.download_artifacts(run_id=run.id, artifact_path="test/said.txt")).read_text()


def addresses(project: Path) -> set[str]:
    """All addresses in the database."""
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as connection:
        found = [connection.execute(f"SELECT {column} FROM {table}") for table, column in ADDRESSES]
        return {place for rows in found for (place,) in rows if place and "://" in place}


@pytest.fixture(scope="module")
def with_one_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A project with one run, a logged model and a registered version of it."""
    project = tmp_path_factory.mktemp("place") / "at first"
    project.mkdir()
    run = log(project, "old")
    client = tracker(project).client
    model = client.create_logged_model(tracker(project).experiment_id, name="model", source_run_id=run.id)
    client.create_registered_model("reviews")
    client.create_model_version("reviews", model.artifact_location, run_id=run.id)
    return project, run


@pytest.fixture
def project(with_one_run: tuple[Path, Run], tmp_path: Path) -> Iterator[Path]:
    """The same at its first place, which is removed or kept as a test says."""
    at_first, _ = with_one_run
    kept = tmp_path / "kept"
    shutil.copytree(at_first, kept)
    yield at_first
    shutil.rmtree(at_first, ignore_errors=True)
    shutil.copytree(kept, at_first)
    mlflow.set_tracking_uri(None)


def test_a_moved_project_opens_its_old_runs_and_writes_new_ones_here(
    with_one_run: tuple[Path, Run], project: Path, tmp_path: Path
) -> None:
    here = tmp_path / "moved %20 & renamed é"
    shutil.move(project, here)
    assert read(here, with_one_run[1]) == "old"
    new = log(here, "new")
    assert read(here, new) == "new"
    assert all(place.startswith(here.as_uri()) for place in addresses(here))
    assert len(addresses(here)) >= 4
    assert not project.exists(), "nothing is written where the project was"


def test_a_copy_leaves_the_original_alone(with_one_run: tuple[Path, Run], project: Path, tmp_path: Path) -> None:
    here = tmp_path / "copy"
    shutil.copytree(project, here)
    before = sorted(project.rglob("*"))
    new = log(here, "new")
    assert (read(here, new), read(here, with_one_run[1])) == ("new", "old")
    assert sorted(project.rglob("*")) == before
    assert all(place.startswith(project.as_uri()) for place in addresses(project))
    assert bring_along(here / "mlruns" / "mlflow.db") == 0, "once is enough"


def test_files_that_are_at_the_old_place_alone_are_still_found(
    with_one_run: tuple[Path, Run], project: Path, tmp_path: Path
) -> None:
    here = tmp_path / "without files"
    (here / "mlruns").mkdir(parents=True)
    shutil.copyfile(project / "mlruns" / "mlflow.db", here / "mlruns" / "mlflow.db")
    assert read(here, with_one_run[1]) == "old"
    assert read(here, log(here, "new")) == "new"
    assert [*here.rglob("said.txt")]


def test_a_link_to_the_project_is_no_other_place(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project)
    assert bring_along(link / "mlruns" / "mlflow.db") == 0


def test_other_peoples_places_are_left_alone(project: Path, tmp_path: Path) -> None:
    database = tmp_path / "mlruns" / "mlflow.db"
    database.parent.mkdir()
    shutil.copyfile(project / "mlruns" / "mlflow.db", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = 's3://bucket/mlruns/artifacts'")
    assert bring_along(database) == 0


def test_no_database_or_an_empty_one_is_nothing_to_do(tmp_path: Path) -> None:
    assert bring_along(tmp_path / "mlflow.db") == 0
    (tmp_path / "mlflow.db").touch()
    assert bring_along(tmp_path / "mlflow.db") == 0
