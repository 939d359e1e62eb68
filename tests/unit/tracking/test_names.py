"""Names that MLflow takes, and stay apart."""

from __future__ import annotations

import mlflow.utils.validation as theirs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from finespun.tracking.names import LONGEST, changed, legal

ODD = [
    ".",
    "..",
    "",
    "a//b",
    "a/../b",
    "../a",
    "/a",
    "a/",
    "f1/.",
    "x" * 300,
    "\U0001f600",
    "C++",
    "C#",
    "a\tb",
    'say "x"',
    "ä, 100%",
    "\udc80",
]


def theirs_takes(name: str) -> bool:
    try:
        theirs._validate_metric_name(name)
        theirs._validate_length_limit("name", theirs.MAX_ENTITY_KEY_LENGTH, name)
    except MlflowException:
        return False
    return True


@pytest.mark.parametrize("name", ODD)
def test_odd_names_become_legal(name: str) -> None:
    assert theirs_takes(legal(name))
    assert legal(name) != name
    assert changed([name, "plain"]) == {name: legal(name)}


@given(st.text(max_size=400))
def test_mlflow_takes_every_name_and_plain_ones_keep_theirs(name: str) -> None:
    assert theirs_takes(legal(name))
    if name and theirs_takes(name) and len(name) <= LONGEST:
        assert legal(name) == name or not name.isascii() or name != name.strip("/")


@given(st.lists(st.text(max_size=20), unique=True, max_size=30))
def test_names_stay_apart(names: list[str]) -> None:
    assert len({legal(name) for name in names}) == len(names)
