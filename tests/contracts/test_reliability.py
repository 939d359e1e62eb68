"""docs/reliability.md names tests that exist, and every file of tests/faults."""

from __future__ import annotations

import re

from helpers import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 15
    assert sorted(name for name in NAMED if not (ROOT / name).is_file()) == []


def test_every_file_of_faults_stands_for_a_promise() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    assert len(files) > 10
    assert files - NAMED == set()


def test_every_promise_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if " | " in line and not line.startswith(("Promise", "---"))]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"`tests/", row.partition(" | ")[2])] == []
