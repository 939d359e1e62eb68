"""Pairs and triplets of texts as a task's input: each text through the model on its own."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import PositiveInt

from finespun.data.cells import is_blank
from finespun.data.splits import normalise
from finespun.errors import ModelError
from finespun.tasks.base import Columns, Defaults, Problem, Values
from finespun.tasks.inputs.text import TextEncoder, pad

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

SIDES = ("positive", "negative")  # what a query, the role `text`, is compared with
MINED = "mined"  # negatives that the model chose
SCORED = ("cosent", "cosine")  # losses of pairs of which rows say how alike they are
Sides = dict[str, dict[str, "torch.Tensor"]]


class TextPairs(Defaults):
    """Reads `text`, `positive` and `negative`, each up to `max_length` tokens and with its prefix."""

    processor: ClassVar[str] = "AutoTokenizer"
    auto_class: ClassVar[str] = "AutoModel"
    model_columns: ClassVar[tuple[str, ...]] = ("input_ids", "positive_ids", "negative_ids", "negative_number")

    max_length: PositiveInt
    query_prefix: str  # before each `text`, such as "query: " where the checkpoint was trained with one
    item_prefix: str  # before each `positive` and `negative`

    @property
    @abstractmethod
    def unasked(self) -> tuple[str, ...]:
        """The texts that are answers: not there when the model is asked."""

    def content(self, values: Values) -> str:
        return str(values["text"])

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        for role in ("text", *SIDES):
            if role in values and is_blank(values[role]):
                yield "empty_text", role, "is empty; write the text, or set data.checks.empty_text: drop"
        if "negative" in values and normalise(values["negative"]) == normalise(values["positive"]):
            yield "same_text", "negative", "is the positive once more; write a text that is no answer, or leave the row out"
        yield from super().problems(values, labels)

    def encoder(self, folder: Path) -> TextEncoder:
        return TextEncoder.read(folder)

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns the texts and the tokens of each."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        columns: Columns = {}
        lengths, cut = np.zeros(len(rows), dtype=np.int32), np.zeros(len(rows), dtype=bool)
        for role in ("text", *SIDES):
            if role not in rows[0] or (labels is None and role in self.unasked):
                continue
            texts = [str(row[role]) for row in rows]
            columns[role] = pa.array(texts, pa.string())
            name = "input_ids" if role == "text" else f"{role}_ids"
            columns[name], size, over = self.tokens(texts, encoder, self.query_prefix if role == "text" else self.item_prefix)
            lengths, cut = lengths + size, cut | over
        if "negative" in columns:
            columns["negative_number"] = pa.array([number_of(row["negative"]) for row in rows], pa.int64())
        columns["length"], columns["truncated"] = pa.array(lengths, pa.int32()), pa.array(cut, pa.bool_())
        return columns | super().encode(rows, encoder, labels)

    def tokens(self, texts: Sequence[str], encoder: TextEncoder, prefix: str) -> tuple[pa.Array, Any, Any]:
        """Returns tokens of texts behind a prefix, how many they are, and which were cut."""
        import pyarrow as pa  # noqa: PLC0415

        tokenizer = encoder.tokenizer
        tokenizer.enable_truncation(self.max_length)
        tokenizer.no_padding()
        found = tokenizer.encode_batch_fast([prefix + text for text in texts] if prefix else list(texts))
        lengths = np.array([len(one.ids) for one in found], dtype=np.int32)
        return (
            pa.array([one.ids for one in found], pa.list_(pa.int32())),
            lengths,
            np.array([bool(o.overflowing) for o in found]),
        )

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: TextEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns ids and mask of the query and, behind `positive_` and `negative_`, of what it is compared with."""
        import torch  # noqa: PLC0415  (prepare encodes with these classes and imports no torch)

        inputs: dict[str, torch.Tensor] = {}
        for name, prefix in (("input_ids", ""), ("positive_ids", "positive_"), ("negative_ids", "negative_")):
            if name in columns:
                ids, mask = pad(columns[name], encoder.pad_token_id)
                inputs |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
        if "negative_number" in columns:
            inputs["negative_number"] = torch.as_tensor(np.array([*columns["negative_number"]], dtype=np.int64))
        return inputs, super().collate(columns, encoder)[1]

    def processor_options(self, encoder: TextEncoder) -> dict[str, Any]:
        return {"model_max_length": self.max_length}

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return {}

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {role: row[role] for role in ("text", *SIDES) if role in row and role not in self.unasked}

    def equip(self, model: Any, encoder: Any, folder: Path) -> None:
        limit = getattr(model.config, "max_position_embeddings", None)
        rows = model.get_input_embeddings().num_embeddings
        if limit and self.max_length > limit:
            raise ModelError(
                f"task.max_length: {self.max_length} tokens asked for, {type(model).__name__} has positions for {limit};"
                " lower it in conf/task/, or take a model for longer texts"
            )
        if encoder.tokenizer.get_vocab_size() > rows:
            raise ModelError(
                f"{folder}: its tokenizer has {encoder.tokenizer.get_vocab_size():,} tokens and the model's embedding table"
                f" {rows:,} rows: it is the tokenizer of another model; name that of this model in model.tokenizer"
            )


def number_of(text: str) -> int:
    """Returns a number that is the same for the same text, however it is spelt: how a batch knows that two items are one."""
    return int.from_bytes(hashlib.blake2b(normalise(text).encode(), digest_size=8).digest(), "big", signed=True)


def side(inputs: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Returns the model's keyword arguments for the query (no prefix) or what it is compared with."""
    return {name: inputs[prefix + name] for name in ("input_ids", "attention_mask")}
