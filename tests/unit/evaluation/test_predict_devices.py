"""Several devices answer a file as one does: the same numbers, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finespun.errors import DataError, FinespunError
from finespun.evaluation import predict_file as module
from finespun.evaluation.devices import help_rank_zero, release, shared
from finespun.evaluation.predict_devices import predict_on
from finespun.evaluation.predict_file import predict_file
from finespun.training.lightning.launching import rank
from helpers import real_rows, write_csv
from several import together


def write(path: Path, count: int) -> Path:
    rows = [{"id": str(number), "text": row["text"]} for number, row in enumerate(real_rows(count))]
    rows[5]["text"] = ""
    return write_csv(path, rows)


@pytest.mark.parametrize("devices", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_devices_answer_as_one(tmp_path: Path, folder: Path, devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in.csv", 70)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 16)
    one = predict_file(source, tmp_path / "one.csv", folder=folder, columns={})

    def work() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "ROWS_AT_ONCE", 16)
            return predict_file(source, tmp_path / "many.csv", folder=folder, columns={})

    many = together(devices, work)
    assert many == [one, *[(0, 0)] * (devices - 1)]
    assert one == (70, 1)
    assert (tmp_path / "many.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_chunks_are_dealt_out_in_turn() -> None:
    def work() -> Any:
        def answer(chunk: list[int]) -> list[dict[str, Any]]:
            return [{"answer": 10 * number, "by": rank()} for number in chunk]

        if rank():
            help_rank_zero(answer)
            return None
        found = list(shared(([number] for number in range(5)), answer))
        release()
        return found

    found = together(2, work)[0]
    assert found == [([number], [{"answer": 10 * number, "by": number % 2}]) for number in range(5)]


def test_a_failure_anywhere_ends_all(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / "in.csv", 70)

    def work() -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "ROWS_AT_ONCE", 16)
            try:
                predict_file(source, tmp_path / "out.csv", folder=folder, columns={}, strict=True)
            except DataError as error:
                return str(error)
        return "helped"

    found = together(2, work)
    assert "in.csv:7: text is empty; mend the row, or leave --strict out" in found[0]
    assert found[1] == "helped"
    assert not (tmp_path / "out.csv").exists()


def test_through_the_launcher(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / "in.csv", 40)
    options = {"folder": folder, "columns": {}, "strict": False}
    assert predict_on(2, source, tmp_path / "two.csv", **options) == (40, 1)
    assert predict_on(1, source, tmp_path / "one.csv", **options) == (40, 1)
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()


@pytest.mark.slow
def test_the_exit_code_of_a_mistake_comes_through(tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.csv", 40)
    with pytest.raises(FinespunError, match="2 processes ended with exit code 3") as failed:
        predict_on(2, source, tmp_path / "no.csv", folder=folder, columns={"text": "txet"})
    assert failed.value.exit_code == 3
    assert "has no column 'txet' (did you mean 'text'?)" in capfd.readouterr().err
