"""What `finespun plan` reads of `dvc.lock`."""

from __future__ import annotations

from pathlib import Path

from finespun.lineage.plan import _locked


def test_numbers_of_dvcs_lock_are_numbers(tmp_path: Path) -> None:
    """DVC writes `5e-05`, which YAML 1.1 takes for a text: a rate that nobody changed would look changed."""
    path = tmp_path / "dvc.lock"
    path.write_text(
        "schema: '2.0'\nstages:\n  finetune:\n    cmd: x\n    lr: 5e-05\n    name: e5\n    date: 2e\n    count: 12\n"
    )
    read = _locked(path)["finetune"]
    assert (read["lr"], read["name"], read["date"], read["count"]) == (5e-05, "e5", "2e", 12)
    assert _locked(tmp_path / "none.lock") == {}
