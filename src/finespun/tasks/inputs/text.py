"""Texts, and pairs of texts, as a task's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import PositiveInt

from finespun.data.cells import is_blank
from finespun.errors import ModelError
from finespun.files import read_json
from finespun.tasks.base import Columns, Defaults, Problem, Role, Values

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from tokenizers import Tokenizer

ROWS_AT_ONCE = 512  # texts whose tokens the tokenizer holds as objects: 20 kB each


@dataclass(frozen=True)
class TextEncoder:
    """A checkpoint's fast tokenizer, and what it pads batches with."""

    tokenizer: Tokenizer
    pad_token_id: int
    token_types: bool = True  # whether the model is given them

    @classmethod
    def read(cls, folder: Path) -> TextEncoder:
        """Reads `tokenizer.json`, without transformers.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        from tokenizers import Tokenizer  # noqa: PLC0415  (configure checks tasks and needs no tokenizer)

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder}: has no tokenizer.json (a fast tokenizer); take a model of texts, or make the file of what is there:"
                f' python -c "from transformers import AutoTokenizer as A; A.from_pretrained({str(folder)!r})'
                f'.save_pretrained({str(folder)!r})"'
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelError(f"{path}: is not a tokenizer that can be read ({error}); restore the file") from error
        settings = folder / "tokenizer_config.json"
        remedy = "restore the file, or save the tokenizer again with save_pretrained"
        said = read_json(settings, error=ModelError, remedy=remedy) if settings.is_file() else {}
        token = said.get("pad_token") or said.get("eos_token")  # without one, that of the end, as everybody does
        token = token.get("content") if isinstance(token, dict) else token
        if not isinstance(token, str | None):
            raise ModelError(f"{settings}: the padding token {token!r} is no text; {remedy}")
        pad = tokenizer.token_to_id(token) or 0 if token else 0  # attention masks hide it: any id will do
        return cls(tokenizer, pad, "token_type_ids" in (said.get("model_input_names") or ["token_type_ids"]))


class TextInput(Defaults):
    """Reads `text`, or `text` and `text_pair`, up to `max_length` tokens."""

    processor: ClassVar[str] = "AutoTokenizer"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    input_roles: ClassVar[Mapping[str, Role]] = {"text": Role(), "text_pair": Role(needed=False)}
    model_columns: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")

    shown: ClassVar[tuple[str, ...]] = ("text", "text_pair")  # columns of prepared data that a person knows a row by
    simple: ClassVar[tuple[str, float]] = ("tfidf", 10.0)

    max_length: PositiveInt

    def content(self, values: Values) -> str:
        return "\n".join(values[role] for role in ("text", "text_pair") if role in values)

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        for role in ("text", "text_pair"):
            if role in values and is_blank(values[role]):
                yield "empty_text", role, "is empty; write the text, or set data.checks.empty_text: drop"
        yield from super().problems(values, labels)

    def encoder(self, folder: Path) -> TextEncoder:
        return TextEncoder.read(folder)

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns the texts and their tokens; token types only for pairs, whose halves they tell apart."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        tokenizer = encoder.tokenizer
        tokenizer.enable_truncation(self.max_length)
        tokenizer.no_padding()
        roles = [role for role in ("text", "text_pair") if role in rows[0]]
        given = [tuple(row[role] for role in roles) for row in rows]
        columns = {role: pa.array([row[role] for row in rows], pa.string()) for role in roles}
        parts = []
        for start in range(0, len(given), ROWS_AT_ONCE):
            texts = [each if len(each) == 2 else each[0] for each in given[start : start + ROWS_AT_ONCE]]
            encodings = tokenizer.encode_batch_fast(texts)
            part = {"input_ids": pa.array([one.ids for one in encodings], pa.list_(pa.int32()))}
            if len(roles) == 2:
                part["token_type_ids"] = pa.array([one.type_ids for one in encodings], pa.list_(pa.int8()))
            part["length"] = pa.array([len(one.ids) for one in encodings], pa.int32())
            part["truncated"] = pa.array([bool(one.overflowing) for one in encodings], pa.bool_())
            parts.append(part)
        columns |= {name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]}
        return columns | super().encode(rows, encoder, labels)

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: TextEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns ids, attention mask and, for pairs, token types: (rows, longest) each."""
        ids, mask = pad(columns["input_ids"], encoder.pad_token_id)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in columns and encoder.token_types:
            inputs["token_type_ids"] = pad(columns["token_type_ids"], 0)[0]
        return inputs, super().collate(columns, encoder)[1]

    def processor_options(self, encoder: TextEncoder) -> dict[str, Any]:
        return {"model_max_length": self.max_length}

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {role: row[role] for role in ("text", "text_pair") if role in row}

    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        """Returns TF-IDF weights of words and pairs of words, fitted on `train`: what simple methods see of both."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  (1.4 s that only reports need)

        given = [table.select([name for name in self.shown if name in table.column_names]) for table in (train, split)]
        texts = [[self.content(row) for row in table.to_pylist()] for table in given]
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        if not any(map(vectorizer.build_analyzer(), texts[0])):  # no word of two letters anywhere
            vectorizer.set_params(analyzer="char")
        return vectorizer.fit_transform(texts[0]), vectorizer.transform(texts[1])


def pad(ids: Sequence[Sequence[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns whole numbers and their mask, (rows, longest) each; a row without any is one of padding."""
    import torch  # noqa: PLC0415  (prepare encodes with these classes and imports no torch)

    lengths = np.array([len(one) for one in ids])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    padded = np.full(mask.shape, value, dtype=np.int64)
    padded[mask] = np.concatenate(ids)
    return torch.from_numpy(padded), torch.from_numpy(mask.astype(np.int64))
