"""A text for each text, written by an encoder-decoder: summaries, translations, any rewriting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from finespun.errors import ModelError, did_you_mean
from finespun.tasks.answers import languages
from finespun.tasks.answers.written_text import WrittenText
from finespun.tasks.base import Batch, Values
from finespun.tasks.inputs.prompts import PromptEncoder, PromptInput

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


class Seq2Seq(WrittenText, PromptInput):
    """The encoder reads the prompt (a prefix such as `summarize: {text}`), the decoder writes the target.

    Both are framed as the tokenizer frames a text. Multilingual models (mBART-50, M2M100, NLLB) are given `source_language` and
    `target_language`, tokens of the tokenizer: each text then begins with its own, and generation with the target's.
    """

    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"

    source_language: str | None
    target_language: str | None

    @model_validator(mode="after")
    def _says_both_languages(self) -> Self:
        if (self.source_language is None) != (self.target_language is None):
            raise ValueError("source_language and target_language belong together; say both, or set both to null")
        if self.chat:
            raise ValueError("chat is for causal language models; set it to false, or take task: text_generation")
        return self

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        yield from super().remarks(rows, labels)
        sources, targets = self.sources(rows), rows["reference"].to_pylist()
        yield from languages.remarks(sources, "sources", self.source_language)
        yield from languages.remarks(targets, "targets", self.target_language)
        if self.source_language != self.target_language:
            yield from languages.mixed(sources, targets)

    def framed(self, ids: list[int], encoder: PromptEncoder) -> list[int]:
        return self._in_language(ids, self.source_language, encoder)

    def target_ids(self, values: Values, encoder: PromptEncoder) -> list[int]:
        ids = self._in_language(encoder.ids(values["target"], special=True), self.target_language, encoder)
        return ids if ids and ids[-1] == encoder.end else [*ids, encoder.end]

    def _in_language(self, ids: list[int], language: str | None, encoder: PromptEncoder) -> list[int]:
        """Returns tokens framed by a language and the end; as they are where no language is said."""
        if language is None:
            return ids
        own = {encoder.end, encoder.number("bos_token")}
        kept = [token for token in ids if token not in own and not self._is_language(token, encoder)]
        return [self._number(language, encoder), *kept, encoder.end]

    def _is_language(self, token: int, encoder: PromptEncoder) -> bool:
        return token in {self._number(name, encoder) for name in (self.source_language, self.target_language) if name}

    def _number(self, language: str, encoder: PromptEncoder) -> int:
        found: int | None = encoder.tokenizer.token_to_id(language)
        if found is None:
            special = [token.content for token in encoder.tokenizer.get_added_tokens_decoder().values()]
            raise ModelError(
                f"{encoder.folder}: its tokenizer has no language token {language!r}{did_you_mean(language, special)}; write"
                " the token as the model's documentation does, en_XX or __en__"
            )
        return found

    def for_processor(self, row: Any) -> dict[str, Any]:
        return {"text": self.filled(row, self.reader)}

    def special_tokens(self, model: Any, encoder: PromptEncoder) -> dict[str, Any]:
        found = super().special_tokens(model, encoder)
        if self.target_language is not None:
            found["forced_bos_token_id"] = self._number(self.target_language, encoder)
        return found

    def equip(self, model: Any, encoder: PromptEncoder, folder: Path) -> None:
        if getattr(model.config, "decoder_start_token_id", None) is None:
            raise ModelError(
                f"{folder}: its config.json has no decoder_start_token_id; set the token that the decoder begins with"
            )
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        asked = max(self.max_length, self.max_target_length, self.generation.max_new_tokens)
        if limit and asked > limit:
            raise ModelError(
                f"{folder}: has {limit} positions, and the longest of task.max_length, task.max_target_length and"
                f" task.generation.max_new_tokens is {asked}; lower them"
            )
        super().equip(model, encoder, folder)

    def forward(self, model: Any, batch: Batch) -> Any:
        """Returns the losses of the target's tokens; the decoder is given those before each."""
        from finespun.tasks.answers.token_losses import token_losses  # noqa: PLC0415  (imports torch)

        before = model.prepare_decoder_input_ids_from_labels(labels=batch.targets)
        inputs = batch.inputs | {"decoder_input_ids": before}
        return token_losses(model, inputs, batch.targets, uniform=self.label_smoothing > 0)

    def continuation(self, generated: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return generated[:, 1:]
