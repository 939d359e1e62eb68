"""Writing after a prompt: losses and texts are those of plain transformers, whatever the padding and the chunks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from finespun.config import targets
from finespun.config.sections import Target
from finespun.data.checks import check_rows, problems_of, role_values
from finespun.data.sources.tables import Line
from finespun.errors import ConfigError, DataError, ModelError
from finespun.models.pretrained import load_model
from finespun.tasks.answers import token_losses as chunks
from finespun.tasks.answers.written_text import _best_lead
from finespun.tasks.base import Batch
from small_run import small_config
from writers import GENERATION, TASK, pairs


def build(**changes: Any) -> Any:
    return targets.build("task", Target.model_validate(TASK | changes))


def batch_of(task: Any, folder: Path, rows: list[dict[str, str]]) -> tuple[Any, Batch, pa.Table]:
    encoder = task.encoder(folder)
    table = pa.table(task.encode(rows, encoder, ["target"]))
    inputs, wanted = task.collate({name: table[name].to_pylist() for name in ("input_ids", "target")}, encoder)
    return encoder, Batch(inputs, wanted, torch.arange(len(rows)), torch.ones(len(rows)), len(rows)), table


def model_of(task: Any, folder: Path) -> Any:
    model = load_model(folder, auto_class=task.auto_class, options=task.model_options([]), new_head=True).eval()
    task.equip(model, task.encoder(folder), folder)
    return model


@pytest.fixture
def scattered(tiny_llama: Path) -> Any:
    """A model whose likeliest tokens differ from place to place, as those of a trained one do."""
    model = model_of(build(), tiny_llama)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def test_the_loss_is_that_of_plain_transformers(tiny_llama: Path, scattered: Any) -> None:
    task = build()
    _, batch, table = batch_of(task, tiny_llama, pairs(7))
    losses = task.losses(task.forward(scattered, batch), batch)
    counts = torch.from_numpy(task.counts(table))
    plain = [[*row["input_ids"], *row["target"]] for row in table.to_pylist()]
    labels = [[*[-100] * len(row["input_ids"]), *row["target"]] for row in table.to_pylist()]
    longest = max(map(len, plain))
    padded = [
        torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows]) for rows, fill in ((plain, 0), (labels, -100))
    ]
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in plain])
    theirs = scattered(input_ids=padded[0], attention_mask=mask, labels=padded[1]).loss.detach()
    assert len({len(row) for row in plain}) > 3
    assert float((losses * counts).sum().detach() / counts.sum()) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunks_change_neither_losses_nor_gradients(
    smoothing: float, tiny_llama: Path, scattered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = build(label_smoothing=smoothing)
    _, batch, _ = batch_of(task, tiny_llama, pairs(5))

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        scattered.zero_grad()
        losses = task.losses(task.forward(scattered, batch), batch, training=True)
        losses.sum().backward()
        return losses.detach(), scattered.model.embed_tokens.weight.grad.clone()

    whole, sizes = found(), []
    monkeypatch.setattr(chunks, "MOST", 600 * 4)
    scored = chunks._scored
    monkeypatch.setattr(chunks, "_scored", lambda logits, ids, **how: sizes.append(len(ids)) or scored(logits, ids, **how))
    cut = found()
    assert max(sizes) == 4
    assert len(sizes) > 4
    for ours, theirs in zip(cut, whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def of_plain_operations(weight: Any, hidden: Any, ids: Any, bias: Any = None) -> SimpleNamespace:
    """What Liger's fused layer and loss is documented to return."""
    logits = functional.linear(hidden, weight, bias)
    return SimpleNamespace(loss=functional.cross_entropy(logits, ids, reduction="none"), predicted_tokens=logits.argmax(-1))


@pytest.mark.parametrize("kernel", ["liger", "plain operations"])
@pytest.mark.parametrize("places", [True, False])
def test_a_fused_layer_changes_neither_losses_nor_gradients(
    kernel: str, places: bool, tiny_llama: Path, scattered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "liger":
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("TRITON_INTERPRET=1 runs Liger's own kernels on a CPU: pip install liger-kernel")
        pytest.importorskip("liger_kernel")
    _, batch, _ = batch_of(build(), tiny_llama, pairs(3))
    targets = torch.where(batch.inputs["attention_mask"].bool(), batch.inputs["input_ids"], chunks.IGNORED)
    targets[:, : targets.shape[1] // 2] = chunks.IGNORED
    where = torch.arange(targets.shape[1]).expand_as(targets) if places else None

    def found() -> list[torch.Tensor]:
        scattered.zero_grad()
        made = chunks.token_losses(scattered, batch.inputs, targets, where)
        (made["losses"] * torch.arange(1, 1 + targets.shape[1])).sum().backward()
        return [made["losses"].detach(), made["right"], *(each.grad.clone() for each in scattered.parameters())]

    whole, calls = found(), []
    loss = chunks._kernel() if kernel == "liger" else of_plain_operations
    monkeypatch.setattr(chunks, "FUSED_ON", {"cpu"})
    monkeypatch.setattr(chunks, "_kernel", lambda: lambda *given: calls.append(len(given[1])) or loss(*given))
    fused = found()
    assert calls == [int((targets != chunks.IGNORED).sum())]
    for ours, theirs in zip(fused, whole, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    chunks.token_losses(scattered, batch.inputs, targets, where, uniform=True)
    assert len(calls) == 1, "label smoothing needs the whole vocabulary's losses"


def test_no_logits_are_made_of_a_prompt(tiny_llama: Path, scattered: Any) -> None:
    _, batch, table = batch_of(build(), tiny_llama, pairs(5))
    seen: list[int] = []
    handle = scattered.get_output_embeddings().register_forward_hook(
        lambda _layer, given, _: seen.append(given[0].shape[:-1].numel())
    )
    build().forward(scattered, batch)
    handle.remove()
    targets = sum(map(len, table["target"].to_pylist()))
    assert sum(seen) == targets + 2 * 5  # one position a row tells whether the model does more to logits
    assert targets + 2 * 5 < sum(table["length"].to_pylist()) / 2


def test_a_model_that_changes_its_logits_is_left_to_do_so(
    tiny_llama: Path, scattered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = build()
    _, batch, _ = batch_of(task, tiny_llama, pairs(5))
    handle = scattered.register_forward_hook(lambda _model, _given, found: setattr(found, "logits", found.logits / 2))
    with torch.no_grad():
        whole = task.losses(task.forward(scattered, batch), batch)
        monkeypatch.setattr(chunks, "MOST", 600 * 4)
        assert torch.allclose(task.losses(task.forward(scattered, batch), batch), whole)
    handle.remove()


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_is_what_generate_writes_of_each_row_alone(beams: int, tiny_llama: Path, scattered: Any) -> None:
    from transformers import AutoTokenizer

    task = build(generation=GENERATION | {"num_beams": beams}, max_length=112)
    task.equip(scattered, task.encoder(tiny_llama), tiny_llama)
    _, batch, table = batch_of(task, tiny_llama, pairs(6))
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    ours = task.predictions(table, task.predict(scattered, batch.inputs), [], top_k=1)
    for row, answer in zip(table.to_pylist(), ours, strict=True):
        given = tokenizer(row["text"] + "\n", return_tensors="pt")
        assert given["input_ids"][0].tolist() == row["input_ids"]
        theirs = scattered.generate(**given, max_new_tokens=12, num_beams=beams, do_sample=False)
        assert (
            answer["generated_text"]
            == tokenizer.decode(theirs[0, given["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        )
    assert len({answer["generated_text"] for answer in ours}) > 3


def test_long_prompts_lose_the_end_of_their_longest_value_and_keep_the_template(tiny_llama: Path) -> None:
    task = build(prompt="Title: {title}\nText: {text}\nHeadline:", max_length=48)
    encoder = task.encoder(tiny_llama)
    columns = task.encode(
        [{"title": "short", "text": "a long text about films " * 30}, {"title": "a", "text": "b"}], encoder, None
    )
    whole = encoder.decode(columns["input_ids"][0].as_py())
    assert whole.startswith("Title: short\nText: a long text")
    assert whole.endswith("\nHeadline:")
    assert columns["truncated"].to_pylist() == [True, False]
    assert 40 < columns["length"][0].as_py() <= 48
    with pytest.raises(DataError, match=r"the prompt alone is \d+ tokens long, 5 are allowed"):
        build(max_length=5, prompt="a prompt of many words {text}").encode([{"text": "x"}], encoder, None)


def test_a_chat_is_written_in_the_templates_words(tiny_llama: Path) -> None:
    from transformers import AutoTokenizer

    task = build(chat=True, prompt="{text}")
    encoder = task.encoder(tiny_llama)
    row = task.encode([{"text": "was it good?", "target": "yes"}], encoder, ["target"])
    ids = row["input_ids"][0].as_py()
    theirs = AutoTokenizer.from_pretrained(tiny_llama)
    asked = [{"role": "user", "content": "was it good?"}]
    assert ids == theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    both = theirs.apply_chat_template([*asked, {"role": "assistant", "content": "yes"}], return_dict=False)
    assert ids + row["target"][0].as_py() == both
    assert task.special_tokens(model_of(task, tiny_llama), encoder)["eos_token_id"] == [2, 3]


def test_cut_and_copied_targets_are_reported(tiny_llama: Path) -> None:
    task = build(max_target_length=4, generation=GENERATION | {"max_new_tokens": 3})
    rows = [{"text": "the same", "target": "The  same"}, {"text": "a", "target": "many words of a long target"}]
    _, _, table = batch_of(task, tiny_llama, rows)
    assert [len(ids) for ids in table["target"].to_pylist()][1] == 4
    assert table["target"].to_pylist()[1][-1] == 2
    said = "\n".join(task.remarks(table, ["target"]))
    assert "1 of 2 targets (50.0%) are copies of their source" in said
    assert (
        "targets (100.0%) are longer than task.max_target_length (4 tokens)" in said
        or "(50.0%) are longer than task.max_target" in said
    )
    assert "task.generation.max_new_tokens (3)" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "Write a headline:"}, "names no column"),
        ({"prompt": "{text!r}"}, "is no name of a role"),
        ({"prompt": "{0}"}, "is no name of a role"),
        ({"prompt": "{text"}, "write a brace that is meant as one twice"),
        ({"prompt": "{target}"}, "choose another name"),
        ({"generation": GENERATION | {"length_penalty": 2.0}}, "length_penalty is for beams"),
        ({"generation": GENERATION | {"max_new_tokens": 0}}, "greater than 0"),
        ({"headline": ["rouge"]}, "rouge1"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    from finespun.tasks.text_generation import TextGeneration

    with pytest.raises(ValidationError, match=said):
        TextGeneration.model_validate({k: v for k, v in (TASK | changes).items() if k != "_target_"})


def test_more_positions_than_the_model_has_are_refused(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="has 128 positions"):
        model_of(build(max_length=120), tiny_llama)


def test_scores_are_of_what_was_written_and_baselines_have_no_perplexity(tiny_llama: Path, scattered: Any) -> None:
    task = build()
    _, batch, table = batch_of(task, tiny_llama, pairs(8))
    with torch.inference_mode():
        outputs = task.evaluate(scattered, batch)
    judged = task.judge(table, outputs, [])
    found = judged.scores(np.ones((1, 8)))
    losses = task.losses(task.forward(scattered, batch), batch).detach() * torch.from_numpy(task.counts(table))
    assert found["perplexity"][0] == pytest.approx(float(torch.exp(losses.sum() / task.counts(table).sum())), rel=1e-4)
    simple = task.baselines(table, table, [])
    assert {"lead", "source", "nearest_training_row"} == set(simple)
    nearest = task.judge(table, simple["nearest_training_row"], [])
    assert nearest.scores(np.ones((1, 8)))["exact_match"][0] == 1
    assert "perplexity" not in nearest.scores(np.ones((1, 8)))


def test_a_lead_is_as_long_as_suits_the_training_rows() -> None:
    sources = [f"filler{n} more{n} this is what {n} was about and so on for a while yet" for n in range(20)]
    assert _best_lead(sources, [f"was this what {n}" for n in range(20)]) == 6
    assert _best_lead(sources, [" ".join(text.split()[:4]) for text in sources]) == 4


def test_texts_that_are_to_be_written_stay_as_they_are() -> None:
    task, columns = build(prompt="{text}"), {"text": "text", "target": "target"}
    for target in ('{"a": [1, 2]}', "['a' 'b']", "first line\n  second line", "[music]"):
        values = role_values({"text": "x", "target": target}, columns, task)
        assert values["target"] == target
        assert not [*problems_of(values, task, None)]
    empty = role_values({"text": "x", "target": " \n"}, columns, task)
    assert [(kind, role) for kind, role, _ in problems_of(empty, task, None)] == [("empty_text", "target")]


@pytest.mark.parametrize(
    ("task", "columns", "said"),
    [
        ({"prompt": "{title}: {text}"}, {"text": "a", "target": "b"}, "data.columns.title: is missing; .* target, text, title"),
        ({"prompt": "{text}"}, {"text": "a", "title": "c", "target": "b"}, "data.columns.title: unknown role"),
        ({"prompt": "{text}"}, {"text": "a"}, "data.columns.target: is missing"),
        ({"prompt": "no role"}, {"text": "a", "target": "b"}, "names no column"),
        ({"generation": GENERATION | {"temperature": 1.0}}, {"text": "a", "target": "b"}, "temperature"),
        ({"monitor": "val/accuracy"}, {"text": "a", "target": "b"}, "val/token_accuracy"),
    ],
)
def test_templates_and_columns_that_do_not_fit_are_reported_together(
    task: dict[str, Any], columns: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        small_config(task=TASK | task, data={"path": "pairs.csv", "columns": columns})


def test_one_source_with_two_targets_is_an_error() -> None:
    config = small_config(task=TASK, data={"path": "pairs.csv", "columns": {"text": "text", "target": "target"}})
    lines = [Line(number, {"text": "same", "target": target}) for number, target in ((2, "one"), (3, "two"), (4, "one"))]
    report = check_rows(lines, config.data, build())
    assert [(each.kind, each.line, each.severity) for each in report.problems] == [
        ("conflicting_labels", 3, "error"), ("duplicate", 4, "warn"),
    ]  # fmt: skip
