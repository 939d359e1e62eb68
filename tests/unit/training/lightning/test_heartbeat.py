"""The watch hears whole sentences only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finespun.training.lightning.heartbeat import Pulse, Watch


def test_a_beat_that_is_being_written_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulse, watch = Pulse(tmp_path, 0), Watch(tmp_path, stall_minutes=1.0)
    heard: list[bool] = []

    def stop_before_the_last_word(partial: Path, text: str, encoding: str) -> int:
        partial.touch()
        watch.require_progress()
        heard.append(bool(watch.heard))
        pulse.ended.set()
        with partial.open("w", encoding=encoding) as file:
            return file.write(text)

    monkeypatch.setattr(Path, "write_text", stop_before_the_last_word)
    pulse.run()
    watch.require_progress()
    assert heard == [False]
    assert {number: each.process for number, each in watch.heard.items()} == {0: os.getpid()}
