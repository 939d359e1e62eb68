"""What is recorded of a run that was taken up again."""

from __future__ import annotations

from pathlib import Path

from finespun.training.history import History


def test_history_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.cut_back(-1)
    for step in range(1, 6):
        history.add([(step, {"train/loss": 1 / step})], epoch=0)
    with history.path.open("a") as file:
        file.write("6,0,train/lo")  # a kill in mid-write
    history.cut_back(3)
    history.add([(4, {"train/loss": 0.25})], epoch=0)
    assert [(row["step"], float(row["value"])) for row in history.rows()] == [("1", 1.0), ("2", 0.5), ("3", 1 / 3), ("4", 0.25)]
