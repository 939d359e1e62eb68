"""What makes a folder of transformers' one of sentence-transformers': its modules, pooling and prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

KINDS = ("Transformer", "Pooling", "Normalize")
POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


def write(folder: Path, *, pooling: str, max_length: int, prompts: Mapping[str, str]) -> None:
    """Writes the files; `prompts` are what stands before a text, by its part."""
    modules = [
        {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else "",
         "type": f"sentence_transformers.models.{kind}"}
        for place, kind in enumerate(KINDS)
    ]  # fmt: skip
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": width} | {key: how == pooling for how, key in POOLINGS.items()},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine",
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
