"""A `finespun predict` that was killed goes on where it was, and ends in the same bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from finespun.data.sources.tables import Line
from finespun.evaluation import kept_answers
from finespun.evaluation import predict_file as module
from finespun.evaluation.predict_file import predict_file
from finespun.evaluation.predictor import Predictor
from helpers import real_rows, write_csv
from several import together
from writers import GENERATION, TASK


class KilledError(BaseException):
    """Ends a job at once, as a signal would."""


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder as `finetune` leaves it, of a model that writes up to 4 tokens."""
    place = tmp_path_factory.mktemp("writer") / "finetuned"
    shutil.copytree(tiny_llama, place)
    (place / "run.json").write_text(json.dumps({"columns": {"text": "text", "target": "target"}, "task": TASK}))
    settings = {**GENERATION, "max_new_tokens": 4, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    (place / "generation_config.json").write_text(json.dumps(settings))
    return place


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows that the model was asked to predict together; a negative number waiting in it kills the job instead."""
    found: list[int] = []
    predict = Predictor.predict

    def counted(self: Predictor, rows: Any, *, top_k: int = 1) -> Any:
        if found and found[0] < 0 and len(found) > -found[0]:
            raise KilledError
        found.append(len(rows))
        return predict(self, rows, top_k=top_k)

    monkeypatch.setattr(Predictor, "predict", counted)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 8)
    return found


def killed(asked: list[int], after: int, source: Path, output: Path, folder: Path) -> None:
    """Predicts so many chunks (the first row is asked for twice: a table needs to know its columns)."""
    asked[:] = [-after - 1]
    with pytest.raises(KilledError):
        predict_file(source, output, folder=folder, columns={})
    assert not output.exists()
    asked.clear()


def rows_of(path: Path, count: int = 36) -> Path:
    rows = [{"id": str(number), "text": row["text"]} for number, row in enumerate(real_rows(count))]
    rows[11]["text"] = ""
    return write_csv(path, rows)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_texts_are_written_on_from_where_the_job_was_killed(
    tmp_path: Path, writer: Path, asked: list[int], ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = rows_of(tmp_path / "in.csv"), tmp_path / f"out.{ending}"
    assert predict_file(source, tmp_path / f"whole.{ending}", folder=writer, columns={}) == (36, 1)
    assert asked == [8, 1, 8, 8, 8, 4]
    killed(asked, 3, source, output, writer)
    assert predict_file(source, output, folder=writer, columns={}) == (36, 1)
    assert asked == [1, 8, 4]
    assert f"{output}: 24 rows were predicted before; going on after them" in capsys.readouterr().err
    assert output.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", output.name, f"whole.{ending}"}


def test_what_was_written_in_part_or_of_other_rows_is_predicted_anew(tmp_path: Path, folder: Path, asked: list[int]) -> None:
    source, output = rows_of(tmp_path / "in.csv"), tmp_path / "out.jsonl"
    kept = tmp_path / ".out.jsonl.answers"
    killed(asked, 4, source, output, folder)
    kept.write_bytes(kept.read_bytes()[:-20])
    killed(asked, 1, source, output, folder)
    source.write_text(source.read_text().replace("\n20,", "\n20 and more,"))
    predict_file(source, output, folder=folder, columns={})
    assert asked == [1, 8, 8, 4], "the first two chunks are as they were"
    predict_file(source, tmp_path / "whole.jsonl", folder=folder, columns={})
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_another_model_or_other_options_begin_anew(tmp_path: Path, folder: Path, asked: list[int]) -> None:
    source, output = rows_of(tmp_path / "in.csv"), tmp_path / "out.jsonl"
    killed(asked, 3, source, output, folder)
    ours = shutil.copytree(folder, tmp_path / "ours")
    (ours / "run.json").write_text((ours / "run.json").read_text() + "\n")
    killed(asked, 3, source, output, ours)
    predict_file(source, output, folder=ours, columns={}, top_k=2)
    assert asked == [8, 1, 8, 8, 8, 4]


def test_answers_that_json_would_change_are_not_kept(
    tmp_path: Path, folder: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finespun.tasks.text_classification import TextClassification

    def predictions(self: Any, rows: Any, outputs: Any, *_: Any, **__: Any) -> Any:
        return [{"pair": (1, 2)} for _ in outputs]

    monkeypatch.setattr(TextClassification, "predictions", predictions)
    source, output = rows_of(tmp_path / "in.csv"), tmp_path / "out.jsonl"
    killed(asked, 3, source, output, folder)
    predict_file(source, output, folder=folder, columns={})
    assert asked == [8, 1, 8, 8, 8, 4]


def test_standard_output_keeps_nothing(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    predict_file(rows_of(tmp_path / "in.csv"), Path("-"), folder=folder, columns={})
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.slow
def test_one_device_is_killed_by_a_signal_and_two_go_on(tmp_path: Path, writer: Path, asked: list[int]) -> None:
    source, output = rows_of(tmp_path / "in.csv"), tmp_path / "out.csv"

    def dies() -> Any:
        answers, count = Predictor.predict, [0]

        def dying(self: Predictor, rows: Any, *, top_k: int = 1) -> Any:
            count[0] += 1
            if count[0] == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return answers(self, rows, top_k=top_k)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "ROWS_AT_ONCE", 8)
            patch.setattr(Predictor, "predict", dying)
            predict_file(source, output, folder=writer, columns={})

    with pytest.raises(AssertionError, match="ended without a word"):
        together(1, dies)
    assert not output.exists()
    assert len((tmp_path / ".out.csv.answers").read_text().splitlines()) == 3

    def work() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "ROWS_AT_ONCE", 8)
            return predict_file(source, output, folder=writer, columns={})

    assert together(2, work) == [(36, 1), (0, 0)]
    predict_file(source, tmp_path / "whole.csv", folder=writer, columns={})
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_full_disk_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept_answers, "_write", full)
    kept = kept_answers.KeptAnswers(tmp_path / "out.csv", "made by")
    with pytest.raises(OSError, match="No space left"):
        list(kept.shared(iter([[Line(1, {"text": "a"})]]), lambda chunks: ((chunk, [{}]) for chunk in chunks)))
    assert not list(tmp_path.iterdir())
