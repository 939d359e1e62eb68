"""Loading: a new head on a known backbone, and nothing that would train from random numbers unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from finespun.config.targets import build
from finespun.errors import ModelError
from finespun.models.pretrained import load_model, load_processor, require_same_tokens, with_head_dropout
from small_run import small_config

AUTO = "AutoModelForSequenceClassification"


def test_the_backbone_is_loaded_and_the_head_is_a_function_of_the_seed(tiny_bert: Path) -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = load_model(tiny_bert, auto_class=AUTO, options={"num_labels": 3}, new_head=True)
        heads.append(model.classifier.weight)
    kept = load_file(tiny_bert / "model.safetensors")
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, kept["embeddings.word_embeddings.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_backbone_with_missing_tensors_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    tensors = {name: t for name, t in load_file(folder / "model.safetensors").items() if "layer.1" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="training would begin from random numbers"):
        load_model(folder, auto_class=AUTO, options={}, new_head=True)


def test_a_truncated_file_is_named(tmp_path: Path, tiny_bert: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=f"{AUTO} cannot load it"):
        load_model(folder, auto_class=AUTO, options={})


def test_a_pickle_is_not_opened(tmp_path: Path, tiny_bert: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load it"):
        load_model(folder, auto_class=AUTO, options={})


def test_other_tokens_than_transformers_gives_are_refused(tiny_bert: Path) -> None:
    tokenizer = load_processor("AutoTokenizer", tiny_bert, {})
    ids = tokenizer("a good film")["input_ids"]
    task, row = build("task", small_config().task), {"row": [7], "text": ["a good film"]}
    require_same_tokens(tokenizer, task, pa.table({**row, "input_ids": [ids]}), tiny_bert)
    with pytest.raises(ModelError, match=r"tokenizer.json and AutoTokenizer disagree on row 7"):
        require_same_tokens(tokenizer, task, pa.table({**row, "input_ids": [ids[::-1]]}), tiny_bert)
    assert task.encoder(tiny_bert).pad_token_id == tokenizer.pad_token_id == 0


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Tokenizer: none that can be read"):
        load_processor("AutoTokenizer", tmp_path, {})


def test_the_heads_dropout_is_set_where_there_is_one(tmp_path: Path, tiny_bert: Path) -> None:
    options = with_head_dropout(tiny_bert, 0.37)
    model = load_model(tiny_bert, auto_class=AUTO, options=options, new_head=True)
    assert model.dropout.p == 0.37
    assert with_head_dropout(tiny_bert, None) == {}
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match=r"model.head_dropout: vit has no dropout before its head"):
        with_head_dropout(tmp_path, 0.1)


def test_a_model_without_a_trained_head_is_not_used_as_if_it_had_one(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match=r"is no fine-tuned AutoModelForSequenceClassification: it lacks classifier"):
        load_model(tiny_bert, auto_class=AUTO, options={})


REMOTE = """
from transformers import BertConfig, BertForSequenceClassification

open("ran", "w").close()

class MyConfig(BertConfig):
    model_type = "mine"

class Mine(BertForSequenceClassification):
    config_class = MyConfig
"""


def test_code_that_comes_with_a_model_runs_only_with_consent(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "modeling_mine.py").write_text(REMOTE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "modeling_mine.MyConfig", AUTO: "modeling_mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot load it: .*trust_remote_code"):
        load_model(folder, auto_class=AUTO, options={}, new_head=True)
    assert not (tmp_path / "ran").exists()
    load_model(folder, auto_class=AUTO, options={}, new_head=True, trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there_is_no_hub_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models/finetuned: there is no such folder; `dvc repro finetune` makes"):
        load_model(tmp_path / "models" / "finetuned", auto_class=AUTO, options={})
