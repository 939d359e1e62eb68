"""Checkpoints as people bring them: each is made to fit and answers alike through plain transformers, or says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from finespun.config import targets
from finespun.data.encode import encode_splits
from finespun.data.loader import RowReader
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import Line
from finespun.errors import ModelError
from finespun.models.pretrained import load
from finespun.tasks.inputs.text import TextEncoder
from finespun.training.begin import _ready
from helpers import make_tiny_bert, real_rows
from small_run import LABELS, small_config

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "initializer_range": 0.2}
AUTO = t.AutoModelForSequenceClassification


def ready(config: Any, task: Any, folder: Path, prepared: PreparedData) -> Any:
    """Loads a model for the rows, as `begin` does it."""
    return _ready(config, task, task.encoder(folder), folder, prepared, task.model_options(prepared.labels))


@cache
def byte_level(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((row["text"] for row in real_rows(200)), trainer)
    return tokenizer


def gpt2(folder: Path, *, pad: str | None = None, config_pad: int | None = None, positions: int = 64, **more: Any) -> None:
    eos = "<|endoftext|>"
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=byte_level(eos, "<pad>"), eos_token=eos, bos_token=eos, **more)
    if pad:
        tokenizer.pad_token = pad
    torch.manual_seed(0)
    size = {"n_positions": positions, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    config = t.GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, pad_token_id=config_pad, **size)
    t.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def bert(folder: Path, *, added: int = 0, types: int = 2, vocabulary: int = 0) -> None:
    make_tiny_bert(folder)
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens([f"newword{n}" for n in range(added)] + (["movie"] if added else []))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = t.BertConfig(vocab_size=vocabulary or size, max_position_embeddings=64, type_vocab_size=types, **SIZES)
    t.BertModel(config).save_pretrained(folder)


def pair_types(folder: Path) -> None:
    """A generic template gives the second half type 1; RoBERTa has one type."""
    make_tiny_bert(folder)
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    said["post_processor"]["pair"][3]["Sequence"]["type_id"] = said["post_processor"]["pair"][4]["SpecialToken"]["type_id"] = 1
    path.write_text(json.dumps(said))
    size = len(t.AutoTokenizer.from_pretrained(folder))
    torch.manual_seed(0)
    config = t.RobertaConfig(vocab_size=size, max_position_embeddings=66, type_vocab_size=1, pad_token_id=0, **SIZES)
    t.RobertaModel(config).save_pretrained(folder)


def roberta_like(folder: Path, config: type[Any], **more: Any) -> None:
    tokenizer = byte_level("<s>", "<pad>", "</s>", "<unk>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **names).save_pretrained(folder)
    torch.manual_seed(0)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    t.AutoModel.from_config(config(vocab_size=tokenizer.get_vocab_size(), **special, **more)).save_pretrained(folder)


def roberta(folder: Path) -> None:
    roberta_like(folder, t.RobertaConfig, max_position_embeddings=66, type_vocab_size=1, **SIZES)


def bart(folder: Path) -> None:
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             {"layers": 2, "attention_heads": 2, "ffn_dim": 64}.items()}  # fmt: skip
    roberta_like(folder, t.BartConfig, d_model=32, max_position_embeddings=64, decoder_start_token_id=2, **sides)


def with_tiny_tokenizer(folder: Path, config: Callable[[int], Any]) -> None:
    make_tiny_bert(folder)
    torch.manual_seed(0)
    t.AutoModel.from_config(config(len(t.AutoTokenizer.from_pretrained(folder)))).save_pretrained(folder)


def distilbert(folder: Path) -> None:
    size = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64, "initializer_range": 0.2}
    with_tiny_tokenizer(folder, lambda rows: t.DistilBertConfig(vocab_size=rows, **size))


def t5(folder: Path) -> None:
    size = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    with_tiny_tokenizer(
        folder, lambda rows: t.T5Config(vocab_size=rows, pad_token_id=0, eos_token_id=3, decoder_start_token_id=0, **size)
    )


def llama(folder: Path) -> None:
    size = {"max_position_embeddings": 64, "num_key_value_heads": 2, **SIZES}
    with_tiny_tokenizer(folder, lambda rows: t.LlamaConfig(vocab_size=rows, pad_token_id=None, eos_token_id=3, **size))


def xlnet(folder: Path) -> None:
    with_tiny_tokenizer(folder, lambda rows: t.XLNetConfig(vocab_size=rows, d_model=32, n_layer=2, n_head=2, d_inner=64))


CHECKPOINTS: dict[str, tuple[Callable[[Path], None], str]] = {  # what makes them, and what is said of them
    "gpt2 without a padding token": (gpt2, "padding token '<|endoftext|>', for the tokenizer had none"),
    "gpt2 with pad_token = eos_token": (lambda f: gpt2(f, pad="<|endoftext|>"), "pad_token_id 0 in the model's configuration"),
    "gpt2 with both": (lambda f: gpt2(f, pad="<|endoftext|>", config_pad=0), ""),
    "gpt2 with a padding token of its own": (lambda f: gpt2(f, pad="<pad>"), "pad_token_id 1 in the model's configuration"),
    "gpt2 whose configuration has another": (lambda f: gpt2(f, pad="<pad>", config_pad=7), "pad_token_id 1 in the model's"),
    "gpt2 that pads left": (lambda f: gpt2(f, pad="<pad>", config_pad=1, padding_side="left"), ""),
    "bert": (bert, ""),
    "bert with tokens added": (lambda f: bert(f, added=3), "3 new embeddings, drawn by the seed, for tokens that the"),
    "bert with one type": (lambda f: bert(f, types=1), ""),
    "pairs of types that the model has not": (pair_types, ""),
    "roberta": (roberta, ""),
    "bart": (bart, ""),
    "distilbert": (distilbert, ""),
    "t5": (t5, ""),
    "llama": (llama, "pad_token_id 0 in the model's configuration"),
}  # fmt: skip


def prepared_for(folder: Path, out: Path, *, pairs: bool, max_length: int = 48) -> tuple[Any, Any, PreparedData]:
    config = small_config(task__max_length=max_length)
    task = targets.build("task", config.task)
    rows = [row for row in real_rows(60) if row["sentiment"] in LABELS]
    if pairs:
        rows = [{**row, "other": rows[-number]["text"][:60]} for number, row in enumerate(rows, 1)]
        config.data.columns["text_pair"] = "other"
    lines = [Line(number, row) for number, row in enumerate(rows, 2)]
    encode_splits(
        lines, data=config.data, task=task, encoder=task.encoder(folder), labels=LABELS, folder=out, left_out=set()
    )  # fmt: skip
    (out / "schema.json").write_text(json.dumps({"labels": LABELS}))
    return config, task, PreparedData(out)


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_saved_model_answers_alike_through_plain_transformers(name: str, pairs: bool, tmp_path: Path) -> None:
    make, said = CHECKPOINTS[name]
    folder, saved = tmp_path / "model", tmp_path / "saved"
    make(folder)
    config, task, prepared = prepared_for(folder, tmp_path / "prepared", pairs=pairs)
    model, encoder, processor, loaded, _ = ready(config, task, folder, prepared)
    assert said in str(loaded)
    assert "warning" not in str(loaded)
    model.save_pretrained(saved)
    processor.save_pretrained(saved)
    table = prepared.open("val").slice(0, 6)
    texts = [task.for_processor(row) for row in table.to_pylist()]
    theirs, tokenizer = AUTO.from_pretrained(saved).eval(), t.AutoTokenizer.from_pretrained(saved)
    read = TextEncoder.read(saved)
    assert read.pad_token_id == encoder.pad_token_id == tokenizer.pad_token_id
    reader = RowReader(table.select([each for each in task.model_columns if each in table.column_names]))
    with torch.inference_mode():
        ours = theirs(**task.collate(reader.take(torch.arange(len(table)).numpy()), read)[0]).logits
        together = {role: [text[role] for text in texts] for role in texts[0]}
        padded = theirs(**tokenizer(**together, padding=True, truncation=True, return_tensors="pt")).logits
        alone = torch.cat([theirs(**tokenizer(**text, truncation=True, return_tensors="pt")).logits for text in texts])
    assert torch.allclose(ours, alone, atol=1e-5)
    assert torch.allclose(padded, alone, atol=1e-5)
    assert ours.std(dim=0).max() > 1e-3, "rows must differ, or nothing was compared"


def test_new_embeddings_are_drawn_by_the_seed_and_leave_the_others(tmp_path: Path) -> None:
    bert(tmp_path / "model", added=3)
    config, task, prepared = prepared_for(tmp_path / "model", tmp_path / "prepared", pairs=False)
    first, again = (ready(config, task, tmp_path / "model", prepared) for _ in range(2))
    weights = [found[0].get_input_embeddings().weight for found in (first, again)]
    assert torch.equal(*weights)
    old = t.AutoModel.from_pretrained(tmp_path / "model").get_input_embeddings().weight
    assert torch.equal(weights[0][: len(old)], old)
    assert weights[0][len(old) :].std() > 0.005
    assert "bert.embeddings.word_embeddings.weight" in first[4], "kept features depend on what the seed drew"


@pytest.mark.parametrize(
    ("make", "longest"),
    [
        (bert, 64), (lambda f: gpt2(f, positions=24), 24), (roberta, 64), (bart, 64), (distilbert, 64),
    ],
)  # fmt: skip
def test_too_few_positions_say_how_many_there_are_and_that_many_work(
    make: Callable[[Path], None], longest: int, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    make(folder)
    config, task, prepared = prepared_for(folder, tmp_path / "prepared", pairs=False, max_length=longest + 1)
    with pytest.raises(
        ModelError, match=f"task.max_length: {longest + 1} tokens asked for, .* has positions for {longest}; lower"
    ):
        ready(config, task, folder, prepared)
    config, task, prepared = prepared_for(folder, tmp_path / "again", pairs=False, max_length=longest)
    ready(config, task, folder, prepared)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    bert(tmp_path / "model", vocabulary=200)
    config, task, prepared = prepared_for(tmp_path / "model", tmp_path / "prepared", pairs=False)
    with pytest.raises(ModelError, match=r"beyond the 200 rows of the model's embedding table: it is the tokenizer of another"):
        ready(config, task, tmp_path / "model", prepared)


def fnet(folder: Path) -> None:
    size = {name: value for name, value in SIZES.items() if name != "num_attention_heads"}
    with_tiny_tokenizer(folder, lambda rows: t.FNetConfig(vocab_size=rows, max_position_embeddings=64, **size))


@pytest.mark.parametrize("make", [fnet, xlnet], ids=["no attention mask", "reads its last position"])
def test_a_model_whose_rows_depend_on_their_padding_is_warned_about(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "model")
    config, task, prepared = prepared_for(tmp_path / "model", tmp_path / "prepared", pairs=False)
    loaded = ready(config, task, tmp_path / "model", prepared)[3]
    assert "warning: logits of a row in a padded batch differ from those of the row alone" in str(loaded)


ODD = {
    "hidden_size": "32", "num_attention_heads": 0, "hidden_act": "nothing", "pad_token_id": 99999, "id2label": ["a", "b"],
    "model_type": "nothing", "vocab_size": 100,
}  # fmt: skip


@pytest.mark.parametrize("key", ODD)
def test_a_configuration_that_makes_no_sense_is_the_models_error(key: str, tmp_path: Path) -> None:
    path = make_tiny_bert(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: ODD[key]}))
    with pytest.raises(ModelError, match=re.escape(str(tmp_path))):
        load(tmp_path, auto_class="AutoModelForSequenceClassification", options={"num_labels": 2}, new_head=True)


@pytest.mark.parametrize("content", [b"", b"1234567890", b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n"])
def test_weights_that_are_torn_are_the_models_error(content: bytes, tmp_path: Path) -> None:
    (make_tiny_bert(tmp_path) / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot load it: .* fetch its files again"):
        load(tmp_path, auto_class="AutoModelForSequenceClassification", options={"num_labels": 2}, new_head=True)


def test_an_index_that_is_torn_is_the_models_error(tmp_path: Path) -> None:
    (make_tiny_bert(tmp_path) / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(ModelError, match="cannot load it"):
        load(tmp_path, auto_class="AutoModelForSequenceClassification", options={"num_labels": 2}, new_head=True)


@pytest.mark.parametrize("torn", ["", "{", "[]", "<<<<<<< HEAD\n{}", '{"pad_token": 3}'])
def test_a_torn_tokenizer_config_is_named(torn: str, tmp_path: Path) -> None:
    make_tiny_bert(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(torn)
    with pytest.raises(ModelError, match=r"tokenizer_config.json: .*restore the file, or save the tokenizer again"):
        TextEncoder.read(tmp_path)
