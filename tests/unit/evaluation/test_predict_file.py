"""Labels for a file: every row in its order, all columns kept, the numbers of plain transformers."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finespun.data import writing
from finespun.data.sources.tables import CHUNK, Line
from finespun.errors import DataError, ModelError
from finespun.evaluation.predict_file import _Job, predict_file
from finespun.evaluation.predictor import Predictor
from helpers import real_rows, write_csv
from small_classifier import write_record
from small_run import LABELS

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def one_by_one(folder: Path) -> Any:
    """Predicts one text with nothing but transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def predict(text: str) -> tuple[str, float]:
        with torch.no_grad():
            chances = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0].softmax(0)
        return model.config.id2label[int(chances.argmax())], float(chances.max())

    return predict


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".csv":
        return write_csv(path, rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path) -> Rows:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list(pq.read_table(path).to_pylist())


def numbered(count: int) -> Rows:
    return [{"id": f"{n:03}", "text": row["text"], "stars": str(n % 5)} for n, row in enumerate(real_rows(count))]


@pytest.mark.parametrize(("source", "target"), [("csv", "csv"), ("jsonl", "jsonl"), ("parquet", "parquet"), ("csv", "parquet")])
def test_every_row_is_answered_as_transformers_would(
    tmp_path: Path, folder: Path, one_by_one: Any, source: str, target: str
) -> None:
    rows = numbered(30)
    output = tmp_path / "new folder" / f"out.{target}"
    count = predict_file(write(tmp_path / f"in.{source}", rows), output, folder=folder, columns={})
    answered = read(output)
    assert count == (len(answered), 0) == (30, 0)
    assert [list(row) for row in answered] == [["id", "text", "stars", "label", "probability", "error"]] * 30
    assert [{name: row[name] for name in rows[0]} for row in answered] == rows
    assert {row["label"] for row in answered} == set(LABELS)
    for row in answered:
        label, probability = one_by_one(row["text"])
        assert row["label"] == label
        assert float(row["probability"]) == pytest.approx(probability, abs=2e-6)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_other_types_and_missing_texts_are_kept(tmp_path: Path, folder: Path, one_by_one: Any) -> None:
    rows = [{"text": "fine", "n": 1, "tags": ["a", "b"], "score": 0.5}, {"text": None, "n": None, "tags": [], "score": None}]
    output = tmp_path / "out.parquet"
    predict_file(write(tmp_path / "in.parquet", rows), output, folder=folder, columns={})
    answered = read(output)
    assert [{name: row[name] for name in rows[0]} for row in answered] == rows
    assert answered[0]["label"] == one_by_one("fine")[0]
    assert (answered[1]["label"], answered[1]["probability"], answered[1]["error"]) == (None, None, "text is empty")


def test_columns_of_the_user_with_our_names_stay(tmp_path: Path, folder: Path) -> None:
    rows = [{"text": row["text"], "label": "mine", "probability": "0.1"} for row in real_rows(5)]
    output = tmp_path / "out.csv"
    predict_file(write_csv(tmp_path / "in.csv", rows), output, folder=folder, columns={})
    answered = read(output)
    assert list(answered[0]) == ["text", "label", "probability", "predicted_label", "predicted_probability", "error"]
    assert all((row["label"], row["probability"]) == ("mine", "0.1") for row in answered)
    assert all(row["predicted_label"] in LABELS and 0.5 <= float(row["predicted_probability"]) <= 1 for row in answered)


def test_the_column_is_the_one_that_was_trained_on_or_the_one_that_is_named(
    tmp_path: Path, folder: Path, one_by_one: Any
) -> None:
    good, bad = (next(row["text"] for row in real_rows(40) if one_by_one(row["text"])[0] == label) for label in LABELS)
    source = write_csv(tmp_path / "in.csv", [{"review": good, "summary": bad}])
    ours = shutil.copytree(folder, tmp_path / "ours")
    write_record(ours, {"text": "review", "label": "label"})
    predict_file(source, tmp_path / "trained.csv", folder=ours, columns={})
    predict_file(source, tmp_path / "named.csv", folder=ours, columns={"text": "summary"})
    assert read(tmp_path / "trained.csv")[0]["label"] == LABELS[0]
    assert read(tmp_path / "named.csv")[0]["label"] == LABELS[1]


def test_a_column_that_is_not_there_is_named(tmp_path: Path, folder: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [{"review": "fine", "id": "1"}])
    with pytest.raises(DataError) as caught:
        predict_file(source, tmp_path / "out.csv", folder=folder, columns={"text": "reviews"})
    message = "in.csv:2: has no column 'reviews' (did you mean 'review'?); it has: id, review; set --column text=NAME"
    assert str(caught.value).endswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_row_that_alone_lacks_the_column_is_a_row_with_an_error(tmp_path: Path, folder: Path) -> None:
    source, rows = tmp_path / "in.jsonl", [{"text": "fine"}, {"body": "fine"}, {"text": "dull"}, {"text": None}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict_file(source, tmp_path / "out.jsonl", folder=folder, columns={}) == (4, 2)
    answered = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["error"] for row in answered] == ["", "has no column 'text'", "", "text is empty"]
    assert [row.get("label") in LABELS for row in answered] == [True, False, True, False]
    with pytest.raises(DataError, match=r"in.jsonl:2: has no column 'text'; mend the row, or leave --strict out"):
        predict_file(source, tmp_path / "strict.jsonl", folder=folder, columns={}, strict=True)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: holds no fine-tuned model; run `dvc repro` first, or name one"):
        predict_file(tmp_path / "in.csv", tmp_path / "out.csv", folder=tmp_path / "nowhere", columns={})


@pytest.mark.parametrize(("source", "target"), [("in.csv", "out.xlsx"), ("in.xlsx", "out.csv"), ("in.csv", "out.conll")])
def test_an_ending_that_is_not_known_is_told_before_a_model_is_looked_for(tmp_path: Path, source: str, target: str) -> None:
    with pytest.raises(DataError, match="the ending '.(xlsx|conll)' is not one of"):
        predict_file(tmp_path / source, tmp_path / target, folder=tmp_path / "nowhere", columns={})


def test_a_dozen_labels_keep_their_order(tmp_path: Path, tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    ours, names = shutil.copytree(tiny_bert, tmp_path / "ours"), [f"label {letter}" for letter in "lkjihgfedcba"]
    model = AutoModelForSequenceClassification.from_pretrained(ours, num_labels=12, id2label=dict(enumerate(names)))
    model.save_pretrained(ours)
    write_record(ours, {"text": "text", "label": "label"})
    assert Predictor(ours).labels == names


@pytest.mark.parametrize("target", ["somebodys.nets.Net", "finespun_nets.Net", "finespun.models_of_mine.Net"])
def test_a_class_that_a_model_names_is_imported_only_if_trusted(tmp_path: Path, folder: Path, target: str) -> None:
    named = tmp_path / "named"
    shutil.copytree(folder, named)
    config = json.loads((named / "config.json").read_text())
    (named / "config.json").write_text(json.dumps(config | {"target": target}))
    source = write(tmp_path / "rows.jsonl", numbered(1))
    with pytest.raises(ModelError, match=f"names the class {target}, .*; if you trust it, say --trust-remote-code"):
        predict_file(source, tmp_path / "out.jsonl", folder=named, columns={})
    assert predict_file(source, tmp_path / "out.jsonl", folder=named, columns={}, trust_remote_code=True) == (1, 0)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"in\.csv: there is no such file"):
        predict_file(tmp_path / "in.csv", tmp_path / "out.csv", folder=folder, columns={})


def test_standard_input_is_a_text_a_line_and_standard_output_is_csv(
    folder: Path, one_by_one: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a fine film, with a comma", "", "naïve"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts) + "\n"))
    assert predict_file(Path("-"), Path("-"), folder=folder, columns={}) == (3, 1)
    answered = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["text"] for row in answered] == texts
    assert [row["label"] for row in answered] == [one_by_one(text)[0] if text else "" for text in texts]
    assert [row["error"] for row in answered] == ["", "text is empty", ""]


def test_more_rows_than_a_chunk_come_in_order(tmp_path: Path, folder: Path, one_by_one: Any) -> None:
    texts = [row["text"][:40] for row in real_rows(50)]
    count = CHUNK + 100
    source = write(tmp_path / "in.jsonl", [{"id": n, "text": texts[n * 7 % 50]} for n in range(count)])
    output = tmp_path / "out.jsonl"
    assert predict_file(source, output, folder=folder, columns={}) == (count, 0)
    expected = {text: one_by_one(text)[0] for text in texts}
    answered = read(output)
    assert [row["id"] for row in answered] == list(range(count))
    assert all(row["label"] == expected[row["text"]] for row in answered)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_are_known_though_the_first_chunk_has_no_answer(tmp_path: Path, folder: Path, ending: str) -> None:
    source = write(tmp_path / "in.csv", [{"id": str(n), "text": ""} for n in range(CHUNK)] + [{"id": "last", "text": "fine"}])
    output = tmp_path / f"out.{ending}"
    assert predict_file(source, output, folder=folder, columns={}) == (CHUNK + 1, CHUNK)
    answered = read(output)
    assert [row["id"] for row in answered] == [*map(str, range(CHUNK)), "last"]
    assert [list(row) for row in answered[::CHUNK]] == [["id", "text", "label", "probability", "error"]] * 2
    assert [row["error"] for row in answered[::CHUNK]] == ["text is empty", ""]
    assert answered[-1]["label"] in LABELS


def test_a_table_has_room_for_labels_that_come_late(tmp_path: Path) -> None:
    class Tagger:
        columns, labels, task = {"text": "text"}, ["a", "b"], SimpleNamespace(rows_at_once=1)

        def predict(self, rows: Rows, *, top_k: int) -> Rows:
            return [{"probabilities": dict.fromkeys(self.labels if top_k > 1 else [row["text"]], 0.5)} for row in rows]

    lines = (Line(number, {"text": "a" if number <= CHUNK else "b"}) for number in range(1, CHUNK + 2))
    job = _Job(predictor=Tagger(), name="in.csv", top_k=1, strict=False)  # type: ignore[arg-type]
    assert writing.write(job.answered(lines), tmp_path / "out.parquet", like=job.like) == CHUNK + 1
    assert [row["probabilities"] for row in read(tmp_path / "out.parquet")[-2:]] == [
        {"a": 0.5, "b": None},
        {"a": None, "b": 0.5},
    ]


def test_without_any_answer_the_errors_are_written(tmp_path: Path, folder: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [{"text": ""}, {"text": " "}])
    assert predict_file(source, tmp_path / "out.csv", folder=folder, columns={}) == (2, 2)
    assert read(tmp_path / "out.csv") == [{"text": text, "error": "text is empty"} for text in ("", " ")]


def test_a_list_where_a_text_is_needed_is_said(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "fine"}, {"text": ["a", "b"]}])
    assert predict_file(source, tmp_path / "out.jsonl", folder=folder, columns={}) == (2, 1)
    assert [row["error"] for row in read(tmp_path / "out.jsonl")] == ["", "text is a list, where one text is needed"]


def test_what_comes_first_in_the_task_is_read_from_standard_input(folder: Path, tmp_path: Path) -> None:
    ours = shutil.copytree(folder, tmp_path / "ours")
    write_record(ours, {"text_pair": "summary", "label": "label", "text": "review"})
    assert list(Predictor(ours).columns) == ["text", "text_pair"]


def test_half_of_a_pair_is_not_answered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = shutil.copytree(folder, tmp_path / "ours")
    write_record(ours, {"text": "review", "text_pair": "summary", "label": "label"})
    monkeypatch.setattr("sys.stdin", io.StringIO("a film\n"))
    with pytest.raises(DataError, match="-: this model reads text, text_pair of each row; write them into a table"):
        predict_file(Path("-"), tmp_path / "out.csv", folder=ours, columns={})


def test_names_of_files_are_no_texts(folder: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "in.csv", [{"text": "a film"}])
    with pytest.raises(DataError, match=f"{tmp_path}: is a folder, and this model reads text; name a table"):
        predict_file(tmp_path, tmp_path / "out.csv", folder=folder, columns={})


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_standard_input_that_is_no_text_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch, errors: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8", errors=errors))
    with pytest.raises(DataError, match="standard input is not UTF-8"):
        predict_file(Path("-"), Path("-"), folder=folder, columns={})


def test_a_csv_is_read_as_in_training_or_as_is_said(folder: Path, tmp_path: Path, one_by_one: Any) -> None:
    ours = shutil.copytree(folder, tmp_path / "ours")
    record = json.loads((ours / "run.json").read_text()) | {"reading": {"delimiter": ";", "encoding": "latin-1"}}
    (ours / "run.json").write_text(json.dumps(record))
    (tmp_path / "trained.csv").write_text("text;id\nnaïve, but good;1\n", encoding="latin-1")
    (tmp_path / "said.csv").write_text("text|id\nnaïve, but good|1\n", encoding="utf-8")
    predict_file(tmp_path / "trained.csv", tmp_path / "1.csv", folder=ours, columns={})
    said = {"delimiter": "|", "encoding": "utf-8"}
    predict_file(tmp_path / "said.csv", tmp_path / "2.csv", folder=ours, columns={}, reading=said)
    [row] = read(tmp_path / "1.csv")
    assert [row] == read(tmp_path / "2.csv")
    assert (row["text"], row["label"]) == ("naïve, but good", one_by_one("naïve, but good")[0])


def test_nothing_of_the_users_is_written_over(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,label,predicted_label\na film,mine,also mine\n")
    predict_file(path, tmp_path / "out.jsonl", folder=folder, columns={})
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["label"], row["predicted_label"]) == ("mine", "also mine")
    assert row["predicted_predicted_label"] in {"negative", "positive"}


def test_a_pretrained_model_without_a_head_gives_no_answers(tiny_bert: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [{"text": "a film"}])
    plain = shutil.copytree(tiny_bert, tmp_path / "plain")
    with pytest.raises(ModelError, match="holds no fine-tuned model"):
        predict_file(path, tmp_path / "out.csv", folder=plain, columns={})
    write_record(plain, {"text": "text"})
    with pytest.raises(ModelError, match="is no fine-tuned"):
        predict_file(path, tmp_path / "out.csv", folder=plain, columns={})


def test_a_bad_row_is_said_and_does_not_end_the_job_unless_it_is_to(folder: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [{"text": "a film"}, {"text": "  "}, {"text": "another"}])
    assert predict_file(source, tmp_path / "out.csv", folder=folder, columns={}) == (3, 1)
    assert [row["error"] for row in read(tmp_path / "out.csv")] == ["", "text is empty", ""]
    with pytest.raises(DataError, match=r"in.csv:3: text is empty; mend the row"):
        predict_file(source, tmp_path / "strict.csv", folder=folder, columns={}, strict=True)
    assert not (tmp_path / "strict.csv").exists()


def test_several_answers_come_the_likeliest_first(folder: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [{"text": row["text"]} for row in real_rows(5)])
    predict_file(source, tmp_path / "out.csv", folder=folder, columns={}, top_k=5)
    for row in read(tmp_path / "out.csv"):
        assert {row["label"], row["label_2"]} == set(LABELS)
        assert float(row["probability"]) >= float(row["probability_2"])
        assert float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1, abs=2e-6)


def test_a_batch_that_memory_does_not_hold_is_cut(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    whole = Predictor(folder).predict([{"text": row["text"]} for row in real_rows(20)])
    predictor = Predictor(folder)
    forward = predictor._forward

    def small(columns: dict[str, Any]) -> Any:
        if len(columns["input_ids"]) > 3:
            raise torch.OutOfMemoryError
        return forward(columns)

    monkeypatch.setattr(predictor, "_forward", small)
    cut = predictor.predict([{"text": row["text"]} for row in real_rows(20)])
    assert [row["label"] for row in cut] == [row["label"] for row in whole]
    assert [row["probability"] for row in cut] == pytest.approx([row["probability"] for row in whole], abs=1e-5)
