"""Stores for the tests of tracking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from finespun.artifacts import Artifacts
from finespun.tracking.client import Tracker
from small_run import small_config


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database: making it takes seconds, copying it nothing."""
    folder = tmp_path_factory.mktemp("tracking")
    assert Tracker(small_config().runtime, Artifacts(project=folder, out=folder)).client
    return folder / "mlruns" / "mlflow.db"


@pytest.fixture
def artifacts(tmp_path: Path, database: Path) -> Iterator[Artifacts]:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(database.read_bytes())
    yield Artifacts(project=tmp_path, out=tmp_path)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def tracker(artifacts: Artifacts) -> Tracker:
    return Tracker(small_config().runtime, artifacts)
