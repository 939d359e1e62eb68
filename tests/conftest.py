"""Fixtures of several tests: a tiny BERT and a whole small project."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import Project, make_project, make_tiny_bert


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers and 32 dimensions made from a config, with a word-piece tokenizer trained on real rows."""
    return make_tiny_bert(tmp_path_factory.mktemp("tiny") / "tiny-bert")


@pytest.fixture
def project(tmp_path: Path, tiny_bert: Path) -> Project:
    """A fresh small project, nothing run yet."""
    return make_project(tmp_path / "project", tiny_bert)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Project:
    """A small project after one `dvc repro`, its results committed; copy it before changing it."""
    made = make_project(tmp_path_factory.mktemp("finished") / "project", tiny_bert)
    made.run("dvc", "repro")
    made.commit("results")
    return made
