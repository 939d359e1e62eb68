"""QLoRA: refused where it cannot be had, and what is asked of transformers where it can."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import yaml

from finespun.config import targets
from finespun.config.sections import Target
from finespun.errors import ConfigError, FinespunError, MachineError, ModelError
from finespun.models import quantized
from finespun.models.pretrained import load_model
from finespun.training import begin as beginning
from helpers import ROOT
from small_run import small_config
from writers import TASK

LORA = yaml.safe_load((ROOT / "conf" / "strategy" / "lora.yaml").read_text())


def four_bit(**changes: Any) -> Any:
    return targets.build("strategy", Target.model_validate({**LORA, "rank": 4, "dropout": 0.0, "four_bit": True, **changes}))


def config_of(*, four_bit: bool, **changes: Any) -> Any:
    data = {
        "path": "pairs.csv", "columns": {"text": "text", "target": "target"},
        "split": {"train": 0.7, "val": 0.2, "test": 0.1, "seed": 1},
    }  # fmt: skip
    return small_config(task=TASK, data=data, strategy={**LORA, "four_bit": four_bit}, **changes)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a GPU that knows bfloat16, and for the packages."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(quantized, "find_spec", lambda _: object())


@pytest.mark.parametrize(
    ("accelerator", "devices", "kind", "message"),
    [
        ("cpu", 1, MachineError, "are for CUDA GPUs, and this run is on cpu; set strategy.four_bit: false, or run it where"),
        ("mps", 1, MachineError, "this run is on mps"),
        ("cuda", 2, ConfigError, "trains on one GPU, and there are 2 processes; set runtime.devices: 1"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_where_it_cannot_be_had_it_is_refused(
    accelerator: str, devices: int, kind: type[FinespunError], message: str
) -> None:  # fmt: skip
    with pytest.raises(kind, match=message):
        quantized.in_four_bits(accelerator, devices=devices)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(MachineError, match=r"strategy\.four_bit: needs bitsandbytes: pip install bitsandbytes"):
        quantized.in_four_bits("cuda", devices=1)


@pytest.mark.usefixtures("gpu")
def test_transformers_is_asked_for_what_the_paper_describes() -> None:
    asked = quantized.in_four_bits("cuda", devices=1)["quantization_config"]
    assert isinstance(asked, transformers.BitsAndBytesConfig)
    assert (asked.load_in_4bit, asked.bnb_4bit_quant_type, asked.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert asked.bnb_4bit_compute_dtype == torch.bfloat16


class AskedError(Exception):
    """Ends training once the model is asked for."""


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("asked", [True, False])
def test_training_asks_for_it_only_if_the_strategy_does(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:  # fmt: skip
    given: dict[str, Any] = {}

    def ask(*_: Any, **options: Any) -> Any:
        given.update(options["options"])
        raise AskedError

    config = config_of(four_bit=asked)
    monkeypatch.setattr(beginning, "choose_accelerator", lambda _: "cuda")
    monkeypatch.setattr(beginning, "load", ask)
    prepared: Any = SimpleNamespace(labels=["target"], open=lambda _: None)
    with pytest.raises(AskedError):
        beginning.begin(config, tiny_llama, prepared)
    assert ("quantization_config" in given) is asked


def test_a_machine_without_a_gpu_says_so_before_the_model_is_loaded(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "load", None)
    config = config_of(four_bit=True, runtime__accelerator="cpu")
    prepared: Any = SimpleNamespace(labels=["target"], open=lambda _: None)
    with pytest.raises(MachineError, match="are for CUDA GPUs"):
        beginning.begin(config, tiny_llama, prepared)


def test_a_head_that_trains_is_refused(tiny_bert: Path) -> None:
    options = {"num_labels": 2}
    model = load_model(tiny_bert, auto_class="AutoModelForSequenceClassification", options=options, new_head=True)
    with pytest.raises(
        ModelError, match="four_bit: is for models that write, and BertForSequenceClassification has a head that trains"
    ):
        four_bit().tune(model)


def test_adapters_are_merged_into_the_weights_that_they_were_trained_on(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantized weights are not those of the checkpoint: here `dequantize` halves them, so that the difference is seen."""
    ours = shutil.copytree(tiny_llama, tmp_path / "ours")
    model = load_model(ours, auto_class="AutoModelForCausalLM", options={}, new_head=True)
    tuning = four_bit().tune(model)
    with torch.no_grad():
        for group in tuning.groups:
            for parameter in group.parameters.values():
                parameter.normal_(std=0.1)

    def halved(self: Any, dtype: torch.dtype) -> Any:
        assert dtype == torch.float32
        with torch.no_grad():
            for layer in self.model.layers:
                layer.self_attn.q_proj.weight.mul_(0.5)
        return self

    monkeypatch.setattr(transformers.PreTrainedModel, "dequantize", halved)
    weight = model.model.layers[0].self_attn.q_proj.base_layer.weight.detach().clone()
    delta = model.model.layers[0].self_attn.q_proj.get_delta_weight("default").detach().clone()
    assert tuning.merge is not None
    merged: Any = tuning.merge(tuning.model, tmp_path / "model")
    assert torch.allclose(merged.model.layers[0].self_attn.q_proj.weight, weight / 2 + delta, atol=1e-6)
    merged.save_pretrained(tmp_path / "model")
    plain = load_model(tmp_path / "model", auto_class="AutoModelForCausalLM", options={})
    ids = torch.randint(5, 500, (2, 9))
    assert torch.allclose(plain.eval()(input_ids=ids).logits, merged.eval()(input_ids=ids).logits, atol=1e-5)
