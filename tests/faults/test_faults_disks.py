"""Places that cannot be written to are found before work begins, with path, reason and what to do."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from finespun.errors import MachineError
from finespun.failures import require_writable


def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    require_writable(tmp_path / "models" / "finetuned")
    assert list((tmp_path / "models" / "finetuned").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "ermission"), (errno.ENOSPC, "full"), (errno.EDQUOT, "quota")],
)
def test_a_place_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(MachineError, match=words) as caught:
        require_writable(tmp_path)
    assert caught.value.exit_code == 5
    assert str(tmp_path) in str(caught.value)


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(MachineError, match="models"):
        require_writable(tmp_path / "models" / "finetuned")
