"""What is said in a recording, written by a model that hears and writes: Whisper and its like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from finespun.errors import ModelError
from finespun.tasks.answers import languages
from finespun.tasks.answers.written_text import IGNORED, WrittenText
from finespun.tasks.base import Batch, Judgement, Outputs, Problem, Role, Values
from finespun.tasks.inputs.prompts import PromptEncoder
from finespun.tasks.sound.audio import AudioEncoder, AudioInput
from finespun.tasks.sound.transcripts import transcript_scores, transcripts

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

Rate = Literal["wer", "cer", "exact_match"]
START, SILENT_ABOUT_TIMES = "<|startoftranscript|>", "<|notimestamps|>"


@dataclass(frozen=True)
class SpeechEncoder(PromptEncoder):
    """A checkpoint's tokenizer, and its feature extractor."""

    audio: AudioEncoder


class SpeechRecognition(WrittenText, AudioInput):
    """The encoder hears a window, the decoder writes what is said in it. Targets are those of Whisper, without times.

    A recording with a target must fit one window: nobody knows which words are in which half. Longer ones are predicted window
    by window, and their texts joined.
    """

    auto_class: ClassVar[str] = "AutoModelForSpeechSeq2Seq"
    processor: ClassVar[str] = "AutoProcessor"
    cannot_keep: ClassVar[tuple[str, ...]] = ("bad_audio",)
    input_roles: ClassVar[Mapping[str, Role]] = {"audio": Role()}  # type: ignore[misc]

    language: str | None
    headline: Annotated[tuple[Rate, ...], Field(strict=False, min_length=1)]  # type: ignore[assignment]  # other scores

    _encoder: SpeechEncoder | None = PrivateAttr(default=None)

    def encoder(self, folder: Path) -> SpeechEncoder:  # type: ignore[override]  # one that also knows words
        text = PromptEncoder.read(folder)
        self._heard = self.hearing(AudioEncoder.read(folder, self.seconds))
        self._encoder = SpeechEncoder(text.tokenizer, text.folder, text.settings, text.pad_token_id, self._heard)
        return self._encoder

    @property
    def reader(self) -> PromptEncoder:
        assert self._encoder is not None, "a task has read its encoder before it has outputs"
        return self._encoder

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        found = [*super().problems(values, labels)]
        yield from found
        most = self._heard.seconds if self._heard else self.seconds or 30
        if "target" in values and not any(kind == "bad_audio" for kind, _, _ in found):
            length = len(self._read(values["audio"])) / self._rate
            if length > most:
                said = f"is {length:.1f} seconds long, and the model hears {most} at once; cut it and its target into pieces"
                yield "bad_audio", "audio", f"{said}, or set data.checks.bad_audio: drop"

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        yield from super().remarks(rows, labels)
        yield from languages.remarks(rows["reference"].to_pylist(), "targets", self.language)

    def target_ids(self, values: Values, encoder: PromptEncoder) -> list[int]:
        """Returns language, task and no times, where the model knows them, the text, and the end."""
        said = [f"<|{self.language}|>", "<|transcribe|>"] if self.language else []
        names = [*said, *([SILENT_ABOUT_TIMES] if encoder.tokenizer.token_to_id(START) is not None else [])]
        begin = {name: encoder.tokenizer.token_to_id(name) for name in names}
        unknown = [name for name, number in begin.items() if number is None]
        if unknown:
            raise ModelError(
                f"{encoder.folder}: its tokenizer has no {unknown[0]}; set task.language to one it has, or to null"
            )
        text = encoder.ids(f" {values['target'].strip()}", special=False)  # Whisper writes a blank before the first word
        return [*(number for number in begin.values() if number is not None), *text, encoder.end]

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return self.positions()

    def equip(self, model: Any, encoder: PromptEncoder, folder: Path) -> None:
        limit = getattr(model.config, "max_target_positions", None)
        asked = max(self.max_target_length, self.generation.max_new_tokens) + 4  # what Whisper begins with
        if limit and asked > limit:
            raise ModelError(
                f"{folder}: has {limit} positions for what it writes, and the longer of task.max_target_length and"
                f" task.generation.max_new_tokens is {asked - 4}; lower it to {limit - 4}"
            )
        super().equip(model, encoder, folder)
        if self.language:
            model.generation_config.language, model.generation_config.task = self.language, "transcribe"

    def forward(self, model: Any, batch: Batch) -> Any:
        """Returns the losses of the target's tokens; the decoder is given those before each."""
        import torch  # noqa: PLC0415

        from finespun.tasks.answers.token_losses import token_losses  # noqa: PLC0415  (imports torch)

        targets = batch.targets
        first = torch.full_like(targets[:, :1], model.config.decoder_start_token_id)
        before = torch.cat([first, targets[:, :-1]], dim=1)
        before = before.masked_fill(before == IGNORED, model.config.pad_token_id)
        return token_losses(model, batch.inputs | {"decoder_input_ids": before}, targets, uniform=self.label_smoothing > 0)

    def continuation(self, generated: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return generated  # what it begins with are special tokens, which no text shows

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `generated_text`, of long recordings the texts of their windows one after another."""
        texts: dict[int, list[str]] = {}
        for row, text in zip(rows["row"].to_pylist(), self.texts(outputs), strict=True):
            texts.setdefault(row, []).append(text)
        return [{"generated_text": " ".join(filter(None, parts))} for parts in texts.values()]

    def sources(self, table: pa.Table) -> list[str]:
        return [""] * table.num_rows  # what is heard is no text that a target could be a copy of

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        references, texts = rows["reference"].to_pylist(), self.texts(outputs)
        losses, tokens = np.array([output[0] for output in outputs]), self.counts(rows)
        assert tokens is not None
        found = transcripts(references, texts, losses, tokens)
        table = {"row": rows["row"], "audio": rows["audio"], "target": references, "predicted": texts, "wer": found.rates}
        return Judgement(
            units=len(texts), scores=partial(transcript_scores, found), table=table,
            actual=[float(len(text.split())) for text in references], predicted=[float(len(text.split())) for text in texts],
        )  # fmt: skip

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        """Returns the training split's most frequent target for each row: what can be said without hearing anything."""
        given = train["reference"].to_pylist()
        text = max(dict.fromkeys(given), key=given.count)
        return {"most_frequent_target": [self._as_output(text)] * split.num_rows}

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return transcript_scores(outputs, weights)
