"""Encoder-decoders: losses and texts are those of plain transformers; languages frame both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from finespun.config import targets
from finespun.config.sections import Target
from finespun.errors import ModelError
from finespun.models.pretrained import load_model
from finespun.tasks.answers import token_losses as chunks
from finespun.tasks.base import Batch
from writers import GENERATION, TASK, pairs

SEQ2SEQ = {
    **TASK, "_target_": "finespun.tasks.seq2seq.Seq2Seq", "source_language": None, "target_language": None,
    "prompt": "shorten: {text}", "max_length": 120, "max_target_length": 40,
}  # fmt: skip


def build(**changes: Any) -> Any:
    return targets.build("task", Target.model_validate(SEQ2SEQ | changes))


def model_of(task: Any, folder: Path) -> Any:
    model = load_model(folder, auto_class=task.auto_class, options=task.model_options([]), new_head=True).eval()
    task.equip(model, task.encoder(folder), folder)
    with torch.no_grad():
        for parameter in model.parameters():  # so that places differ, as in a trained model
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def batch_of(task: Any, folder: Path, rows: list[dict[str, str]]) -> tuple[Batch, pa.Table]:
    encoder = task.encoder(folder)
    table = pa.table(task.encode(rows, encoder, ["target"]))
    inputs, wanted = task.collate({name: table[name].to_pylist() for name in ("input_ids", "target")}, encoder)
    return Batch(inputs, wanted, torch.arange(len(rows)), torch.ones(len(rows)), len(rows)), table


@pytest.mark.parametrize("fixture", ["tiny_bart", "tiny_t5"])
def test_losses_and_texts_are_those_of_plain_transformers(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    folder, task, rows = request.getfixturevalue(fixture), build(), pairs(6)
    model, tokenizer = model_of(task, folder), AutoTokenizer.from_pretrained(folder)
    batch, table = batch_of(task, folder, rows)
    counts = torch.from_numpy(task.counts(table))
    given = tokenizer([f"shorten: {row['text']}\n" for row in rows], return_tensors="pt", padding=True)
    labels = tokenizer(text_target=[row["target"] for row in rows], return_tensors="pt", padding=True)["input_ids"]
    assert table["target"].to_pylist() == [[i for i in row if i] for row in labels.tolist()]
    task = build(prompt="shorten: {text}\n")
    batch, _ = batch_of(task, folder, rows)
    assert batch.inputs["input_ids"].tolist() == given["input_ids"].tolist()
    with torch.no_grad():
        theirs = float(model(**given, labels=labels.masked_fill(labels == 0, -100)).loss)
        for most in (chunks.MOST, 600 * 4):
            monkeypatch.setattr(chunks, "MOST", most)
            losses = task.losses(task.forward(model, batch), batch)
            assert float((losses * counts).sum() / counts.sum()) == pytest.approx(theirs, abs=1e-5)
        answers = task.predictions(table, task.predict(model, batch.inputs), [], top_k=1)
        for row, answer in zip(rows, answers, strict=True):
            alone = tokenizer(f"shorten: {row['text']}\n", return_tensors="pt")
            ids = model.generate(**alone, max_new_tokens=12, num_beams=1, do_sample=False)
            assert answer["generated_text"] == tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def test_languages_begin_both_texts_and_what_is_generated(tiny_bart: Path) -> None:
    task = build(prompt="{text}", source_language="<|user|>", target_language="<|assistant|>")
    encoder = task.encoder(tiny_bart)
    columns = task.encode([{"text": "a film", "target": "ein Film"}], encoder, ["target"])
    source, target = columns["input_ids"][0].as_py(), columns["target"][0].as_py()
    assert (source[0], source[-1], target[0], target[-1]) == (4, 2, 5, 2)
    assert encoder.decode(source) == "a film"
    assert 1 not in source + target
    assert model_of(task, tiny_bart).generation_config.forced_bos_token_id == 5
    with pytest.raises(ModelError, match="no language token 'de_DE'"):
        build(source_language="<|user|>", target_language="de_DE").encode([{"text": "a", "target": "b"}], encoder, ["target"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source_language": "en_XX"}, "source_language and target_language belong together"),
        ({"chat": True}, "chat is for causal language models"),
        ({"generation": GENERATION | {"num_beams": 0}}, "greater than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    from finespun.tasks.seq2seq import Seq2Seq

    with pytest.raises(ValidationError, match=said):
        Seq2Seq.model_validate({name: value for name, value in (SEQ2SEQ | changes).items() if name != "_target_"})


def test_models_that_cannot_do_it_are_refused(tiny_bart: Path, tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="has 128 positions"):
        model_of(build(max_length=500), tiny_bart)
    with pytest.raises(ModelError, match="AutoModelForSeq2SeqLM cannot load it"):
        model_of(build(), tiny_llama)


def test_a_saved_model_is_asked_as_it_was_trained(tiny_bart: Path, tmp_path: Path) -> None:
    from finespun.evaluation.predictor import Predictor
    from finespun.models.pretrained import load_processor

    task, rows = build(), pairs(5)
    model = model_of(task, tiny_bart)
    encoder = task.encoder(tiny_bart)
    model.save_pretrained(tmp_path)
    load_processor(task.processor, tiny_bart, task.processor_options(encoder)).save_pretrained(tmp_path)
    record = {"task": SEQ2SEQ, "columns": {"text": "Review", "target": "Words"}, "run_id": "0"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    batch, table = batch_of(task, tiny_bart, rows)
    expected = task.predictions(table, task.predict(model, batch.inputs), [], top_k=1)
    found = Predictor(tmp_path).predict([{"Review": row["text"]} for row in rows] + [{"Review": ""}])
    assert found[:-1] == expected
    assert "is empty" in found[-1]["error"]
