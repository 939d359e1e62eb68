"""Tiny models that write, made from configurations, and rows for them: movie reviews and a few words of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import real_rows

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GENERATION = {
    "max_new_tokens": 12, "num_beams": 1, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0,
}  # fmt: skip
TASK: dict[str, Any] = {
    "_target_": "finespun.tasks.text_generation.TextGeneration", "prompt": "{text}\n", "chat": False, "max_length": 48,
    "max_target_length": 16, "label_smoothing": 0.0, "generation": GENERATION, "headline": ["rougeL", "bleu"],
    "monitor": "val/loss", "monitor_mode": "min",
}  # fmt: skip

GGUF_NAMES = {
    "embed_tokens": "token_embd", "layers.": "blk.", "self_attn.o_proj": "attn_output", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def pairs(count: int) -> list[dict[str, str]]:
    """Real texts, and their three longest words in order as what is to be written."""
    rows = []
    for row in real_rows(count):
        words = row["text"].split()
        longest = sorted(sorted(range(len(words)), key=lambda place: -len(words[place]))[:3])
        rows.append({"text": row["text"], "target": " ".join(words[place] for place in longest)})
    return rows


def make_tokenizer(folder: Path, *, around: str | None = None) -> Any:
    """A byte-level BPE of 600 tokens, trained on real rows; `around` is how it frames a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((row["text"] for row in real_rows(300)), trainer)
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def make_tiny_llama(folder: Path) -> Path:
    """A Llama of 2 layers and 32 dimensions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = make_tokenizer(folder, around="<s> $A")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_tiny_bart(folder: Path) -> Path:
    """A BART of one layer and 64 dimensions on each side."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    fast = make_tokenizer(folder, around="<s> $A </s>")
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(fast), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=128, dropout=0.0,
        init_std=0.1,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_tiny_t5(folder: Path) -> Path:
    """A T5 of one layer and 32 dimensions on each side."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    fast = make_tokenizer(folder, around="$A </s>")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(fast), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, dropout_rate=0.0, pad_token_id=0,
        eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_gguf(path: Path, llama: Path) -> Path:
    """A tiny Llama and its tokenizer as a GGUF file in half precision, as llama.cpp's converter writes one."""
    from gguf import GGUFWriter
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama)
    config, writer = model.config, GGUFWriter(path, "llama")
    said = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads, "head_count_kv": config.num_key_value_heads,
        "layer_norm_rms_eps": config.rms_norm_eps, "rope_freq_base": config.rope_parameters["rope_theta"],
        "vocab_size": config.vocab_size, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    for name, value in said.items():
        getattr(writer, f"add_{name}")(value)
    _add_tokenizer(writer, llama)
    for name, tensor in model.model.state_dict().items():
        _add_tensor(writer, name, tensor.numpy(), config.num_attention_heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, llama: Path) -> None:
    import json

    from gguf import TokenType

    said = json.loads((llama / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = sorted(said["model"]["vocab"], key=said["model"]["vocab"].__getitem__)
    special = {token["content"] for token in said["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in said["model"]["merges"]])


def _add_tensor(writer: Any, name: str, values: Any, heads: int) -> None:
    import numpy as np

    for ours, theirs in GGUF_NAMES.items():
        name = name.replace(ours, theirs)
    name = {"norm.weight": "output_norm.weight"}.get(name, name)
    if name.endswith(("attn_q.weight", "attn_k.weight")):  # llama.cpp keeps the halves that rotate together side by side
        values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    writer.add_tensor(name, values if values.ndim == 1 else values.astype(np.float16))
