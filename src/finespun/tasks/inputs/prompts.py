"""Prompts as a task's input: a template over columns, as it is or as the user's turn of a chat, filled and made into tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, PositiveInt, PrivateAttr, field_validator

from finespun.data.cells import is_blank
from finespun.errors import DataError, ModelError
from finespun.files import read_json
from finespun.tasks.base import Columns, Defaults, Problem, Role, Values
from finespun.tasks.inputs.text import TextEncoder, pad

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from tokenizers import Tokenizer

OWN = ("target", "reference", "input_ids", "row", "length", "truncated", "cut", "group")  # columns of prepared data
REMEDY = "restore the file, or save the tokenizer again with save_pretrained"


@dataclass(frozen=True)
class PromptEncoder:
    """A checkpoint's fast tokenizer, its special tokens, and its chat template, where it has one."""

    tokenizer: Tokenizer
    folder: Path
    settings: Mapping[str, Any]  # tokenizer_config.json
    pad_token_id: int

    @classmethod
    def read(cls, folder: Path) -> PromptEncoder:
        """Reads `tokenizer.json` and `tokenizer_config.json`, without transformers.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        found = TextEncoder.read(folder)
        path = folder / "tokenizer_config.json"
        settings = read_json(path, error=ModelError, remedy=REMEDY) if path.is_file() else {}
        found.tokenizer.no_truncation()
        found.tokenizer.no_padding()
        return cls(found.tokenizer, folder, settings, found.pad_token_id)

    def number(self, name: str) -> int | None:
        """Returns the id of a special token (`eos_token`); None where the tokenizer has none."""
        token = self.token(name)
        found: int | None = None if token is None else self.tokenizer.token_to_id(token)
        return found

    def token(self, name: str) -> str | None:
        """Returns a special token as text."""
        given = self.settings.get(name)
        found = given.get("content") if isinstance(given, Mapping) else given
        return found if isinstance(found, str) and self.tokenizer.token_to_id(found) is not None else None

    @cached_property
    def end(self) -> int:
        """The token that ends a text.

        Raises:
            ModelError: the tokenizer has none.
        """
        found = self.number("eos_token")
        found = self.number("sep_token") if found is None else found
        if found is None:
            raise ModelError(
                f"{self.folder}: its tokenizer has no eos_token, so a model could not learn where a text ends; set one in"
                " tokenizer_config.json"
            )
        return found

    @cached_property
    def chat_template(self) -> Any:
        """The chat template, ready to be rendered as transformers does it.

        Raises:
            ModelError: there is none, or it is no template.
        """
        from jinja2 import TemplateError  # noqa: PLC0415  (only chats need it)
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        beside = self.folder / "chat_template.jinja"
        source = beside.read_text(encoding="utf-8") if beside.is_file() else self.settings.get("chat_template")
        if not isinstance(source, str):
            raise ModelError(
                f"{self.folder}: its tokenizer has no chat template; set task.chat: false, or take a model tuned for chats"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            return environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"{self.folder}: its chat template cannot be read ({error}); {REMEDY}") from error

    def chat(self, messages: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        """Returns messages in the template's words; with `ask`, up to where the assistant begins to answer."""
        from jinja2 import TemplateError  # noqa: PLC0415

        tokens = {name: self.token(name) or "" for name in ("bos_token", "eos_token")}
        try:
            return str(self.chat_template.render(messages=messages, add_generation_prompt=ask, tools=None, **tokens))
        except TemplateError as error:
            raise ModelError(
                f"{self.folder}: its chat template refuses the messages ({error}); set task.chat: false"
            ) from error

    def ids(self, text: str, *, special: bool) -> list[int]:
        """Returns a text's tokens, with or without those that the tokenizer puts around one."""
        return list(self.tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones and without blanks around it."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def _refuse(message: str) -> None:
    from jinja2 import TemplateError  # noqa: PLC0415

    raise TemplateError(message)


class PromptInput(Defaults):
    """Reads the columns that `prompt` names, up to `max_length` tokens: of longer ones the longest value is cut at its end."""

    processor: ClassVar[str] = "AutoTokenizer"
    model_columns: ClassVar[tuple[str, ...]] = ("input_ids",)
    left: ClassVar[bool] = False  # whether batches are padded on the left: what is written goes on at the right

    prompt: Annotated[str, Field(min_length=1)]
    chat: bool
    max_length: PositiveInt
    _encoder: PromptEncoder | None = PrivateAttr(default=None)  # `predictions` and `judge` need it to read what was written

    @field_validator("prompt")
    @classmethod
    def _names_columns(cls, prompt: str) -> str:
        try:
            parts = list(Formatter().parse(prompt))
        except ValueError as error:
            raise ValueError(f"{prompt!r}: {error}; write a brace that is meant as one twice: {{{{") from error
        names = [name for _, name, _, _ in parts if name is not None]
        wrong = next(
            (name for _, name, form, how in parts if name is not None and (form or how or not name.isidentifier())), None
        )
        if wrong is not None:
            raise ValueError(
                f"{{{wrong}}} is no name of a role; write letters, digits and _ alone, {{text}}, and name its column in"
                " data.columns.text; braces that are meant as such are written twice: {{"
            )
        taken = next((name for name in names if name in OWN), None)
        if taken:
            raise ValueError(f"{{{taken}}}: is what finespun itself calls something else; choose another name for the role")
        if not names:
            raise ValueError(
                f"{prompt!r} names no column, so all rows would be alike; write {{text}} where the row's text goes"
            )
        return prompt

    @property
    def input_roles(self) -> dict[str, Role]:
        """The roles that the template names."""
        return {name: Role() for _, name, _, _ in Formatter().parse(self.prompt) if name is not None}

    def content(self, values: Values) -> str:
        return "\n".join(values[role] for role in self.input_roles)

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        for role in self.input_roles:
            if role in values and is_blank(values[role]):
                yield "empty_text", role, "is empty; write the text, or set data.checks.empty_text: drop"
        yield from super().problems(values, labels)

    def encoder(self, folder: Path) -> PromptEncoder:
        self._encoder = PromptEncoder.read(folder)
        return self._encoder

    @property
    def reader(self) -> PromptEncoder:
        """What turns tokens into texts."""
        assert self._encoder is not None, "a task has read its encoder before it has outputs"
        return self._encoder

    def settled(self, config: Mapping[str, Any]) -> Self:
        return self

    def filled(self, values: Values, encoder: PromptEncoder) -> str:
        """Returns the prompt of a row, up to where the answer begins."""
        text = self.prompt.format(**{role: values[role] for role in self.input_roles})
        return encoder.chat([{"role": "user", "content": text}], ask=True) if self.chat else text

    def prompt_ids(self, values: Values, encoder: PromptEncoder) -> tuple[list[int], bool]:
        """Returns a row's tokens and whether values had to be cut to fit.

        Raises:
            DataError: the template alone is longer than `max_length`.
        """
        given, cut = {role: values[role] for role in self.input_roles}, False
        while True:
            ids = self.framed(encoder.ids(self.filled(given, encoder), special=not self.chat), encoder)
            over = len(ids) - self.max_length
            if over <= 0:
                return ids, cut
            longest = max(given, key=lambda role: len(given[role]))
            if not given[longest]:
                raise DataError(
                    f"task.max_length: the prompt alone is {len(ids)} tokens long, {self.max_length} are allowed; raise it, or"
                    " shorten task.prompt"
                )
            offsets = encoder.tokenizer.encode(given[longest], add_special_tokens=False).offsets
            kept = len(offsets) - over
            end = min(offsets[kept - 1][1], len(given[longest]) - 1) if kept > 0 else 0
            given[longest], cut = given[longest][:end].rstrip(), True

    def framed(self, ids: list[int], encoder: PromptEncoder) -> list[int]:
        """Returns a prompt's tokens with what the model expects around them."""
        return ids

    def encode(self, rows: Sequence[Values], encoder: PromptEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns the values and the prompts' tokens; `length` is theirs and the target's together."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        found = [self.prompt_ids(row, encoder) for row in rows]
        columns: Columns = {role: pa.array([row[role] for row in rows], pa.string()) for role in self.input_roles}
        columns["input_ids"] = pa.array([ids for ids, _ in found], pa.list_(pa.int32()))
        columns["length"] = pa.array([len(ids) for ids, _ in found], pa.int32())
        columns["truncated"] = pa.array([cut for _, cut in found], pa.bool_())
        return columns | super().encode(rows, encoder, labels)

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: PromptEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns ids and attention mask of the prompts, (rows, longest) each."""
        ids, mask = pad(columns["input_ids"], encoder.pad_token_id)
        if self.left:
            order = mask.argsort(dim=1, stable=True)
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        return {"input_ids": ids, "attention_mask": mask}, super().collate(columns, encoder)[1]

    def processor_options(self, encoder: PromptEncoder) -> dict[str, Any]:
        padding = {} if encoder.token("pad_token") else {"pad_token": encoder.tokenizer.id_to_token(encoder.end)}
        return {"padding_side": "left" if self.left else "right", **padding}

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {role: row[role] for role in self.input_roles}

    def for_processor(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": self.filled(row, self.reader), "add_special_tokens": not self.chat}

    def sources(self, table: pa.Table) -> list[str]:
        """Returns what the rows of prepared data say, without the template's own words."""
        return [self.content(row) for row in table.select(list(self.input_roles)).to_pylist()]
