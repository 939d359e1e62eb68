"""Text after a prompt, written by a causal language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finespun.errors import ModelError
from finespun.tasks.answers.written_text import IGNORED, WrittenText
from finespun.tasks.base import Batch, Values
from finespun.tasks.inputs.prompts import PromptEncoder, PromptInput

if TYPE_CHECKING:
    import torch


class TextGeneration(WrittenText, PromptInput):
    """Prompt and target are one text to the model; only the target's tokens are learnt.

    Both are made into tokens apart, as they are when the model is asked. With `chat`, the prompt is the user's turn and the
    target the assistant's, in the words of the tokenizer's chat template.
    """

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    left: ClassVar[bool] = True

    def framed(self, ids: list[int], encoder: PromptEncoder) -> list[int]:
        """Returns the prompt without the token that would end it, and with one to begin with where there is no other."""
        while ids and not self.chat and ids[-1] == encoder.end:
            ids = ids[:-1]
        begin = encoder.number("bos_token")
        return ids or [encoder.end if begin is None else begin]

    def target_ids(self, values: Values, encoder: PromptEncoder) -> list[int]:
        if not self.chat:
            return super().target_ids(values, encoder)
        asked = [{"role": "user", "content": "?"}]
        prompt = encoder.chat(asked, ask=True)
        whole = encoder.chat([*asked, {"role": "assistant", "content": values["target"]}], ask=False)
        if not whole.startswith(prompt):
            raise ModelError(
                f"{encoder.folder}: its chat template writes an answer otherwise than it asks for one; set task.chat: false"
            )
        ids = encoder.ids(whole.removeprefix(prompt).rstrip(), special=False)
        return ids if ids and _is_special(ids[-1], encoder) else [*ids, encoder.end]

    def special_tokens(self, model: Any, encoder: PromptEncoder) -> dict[str, Any]:
        found = super().special_tokens(model, encoder)
        if self.chat:
            ends = found["eos_token_id"]
            turn = self.target_ids({"target": "."}, encoder)[-1]
            found["eos_token_id"] = list(dict.fromkeys([*(ends if isinstance(ends, list) else [ends]), turn]))
        return found

    def equip(self, model: Any, encoder: PromptEncoder, folder: Path) -> None:
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        asked = self.max_length + max(self.max_target_length, self.generation.max_new_tokens)
        if limit and asked > limit:
            raise ModelError(
                f"{folder}: has {limit} positions, and task.max_length ({self.max_length}) and the longer of"
                f" task.max_target_length and task.generation.max_new_tokens are {asked} together; lower them"
            )
        super().equip(model, encoder, folder)

    def forward(self, model: Any, batch: Batch) -> Any:
        """Returns the losses of the target's tokens: prompt and target are put together, padding to the right."""
        import torch  # noqa: PLC0415

        from finespun.tasks.answers.token_losses import token_losses  # noqa: PLC0415  (imports torch)

        prompts, mask, targets = batch.inputs["input_ids"], batch.inputs["attention_mask"], batch.targets
        known = targets != IGNORED
        valid = torch.cat([mask.bool(), known], dim=1)
        order = (~valid).long().argsort(dim=1, stable=True)[:, : int(valid.sum(dim=1).max())]
        ids = torch.cat([prompts, targets.where(known, prompts.new_zeros(()))], dim=1).gather(1, order)
        first = mask.sum(dim=1, keepdim=True) - 1  # the last token of the prompt predicts the first of the target
        places = (first + torch.arange(targets.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)
        inputs = {"input_ids": ids, "attention_mask": valid.gather(1, order).long()}
        return token_losses(model, inputs, targets, places, uniform=self.label_smoothing > 0)

    def continuation(self, generated: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return generated[:, inputs["input_ids"].shape[1] :]


def _is_special(token: int, encoder: PromptEncoder) -> bool:
    known = encoder.tokenizer.get_added_tokens_decoder()
    return token in known and known[token].special
