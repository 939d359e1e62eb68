"""A tag for each word of a text: named entities and other spans (BIO, BIOES, IO), or plain tags such as parts of speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, model_validator

from finespun.data.cells import is_blank
from finespun.errors import DataError, listed
from finespun.tasks.answers import tag_schemes as tagging
from finespun.tasks.answers.one_label import unknown_label
from finespun.tasks.answers.word_tags import IGNORED, WordTags, strings
from finespun.tasks.base import Columns, Problem, Role, Values
from finespun.tasks.inputs.text import TextEncoder, TextInput
from finespun.tasks.inputs.words import Document, align, read


class TokenClassification(TextInput, WordTags):
    """Tags words by their first sub-words; long texts are cut into windows that overlap by `stride` tokens."""

    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    input_roles: ClassVar[Mapping[str, Role]] = {"text": Role(lists=True)}
    model_columns: ClassVar[tuple[str, ...]] = ("input_ids",)

    max_length: Annotated[int, Field(ge=16)]
    stride: NonNegativeInt

    @model_validator(mode="after")
    def _overlaps_little(self) -> Self:
        if self.stride > self.max_length // 3:
            raise ValueError(f"stride, the overlap of windows, is at most a third of max_length, here {self.max_length // 3}")
        return self

    def content(self, values: Values) -> str:
        text = values["text"]
        return text if isinstance(text, str) else " ".join(text)

    def answers(self, values: Values) -> Sequence[str]:
        """Returns types of entities, as often as there are some; or plain tags."""
        document = read(values)
        if self._plain:
            return [] if document.spans else document.tags or []
        return [kind for kind, _, _ in self._entities(document)]

    def _entities(self, document: Document) -> list[tagging.Entity]:
        if document.spans:
            return tagging.in_words(document.tags or [], document.words)
        return tagging.entities((document.tags or [])[: len(document.words)])

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        document = read(values)
        empty = [number for number, word in enumerate(document.strings, 1) if is_blank(word)]
        if empty or not document.words:
            what = f"word {empty[0]} is empty" if empty else "is empty"
            yield "empty_text", "text", f"{what}; write it, or set data.checks.empty_text: drop"
        elif document.tags is not None:
            yield from (("bad_target", "tags", remedy) for remedy in self._wrong(document))
            if labels is not None:
                self._require_types(labels)
                told = ((kind, unknown_label(kind, labels)) for kind in dict.fromkeys(self.answers(values)))
                yield from (("unknown_label", "tags", f"{kind!r} {remedy}") for kind, remedy in told if remedy)
            if not (document.spans or self._plain):
                found = tagging.transitions(document.tags[: len(document.words)], document.strings)
                yield from (("bad_transition", "tags", remedy) for remedy in found)

    def _wrong(self, document: Document) -> Iterator[str]:
        tags, words = document.tags or [], document.strings
        if document.spans and (self._plain and tags):
            yield "are spans, which plain tags are not; set task.scheme: bio"
        elif document.spans and document.listed:
            yield "are spans, which need a text and not a list of words; name a column of texts in data.columns.text"
        elif document.spans:
            yield from tagging.span_problems(document.text, tags, document.words)
        elif len(tags) != len(words):
            yield f"has {len(tags)} tags for {len(words)} words ({words[0]!r} to {words[-1]!r}); give each word one"
        else:
            yield from tagging.unnamed(tags, words) if self._plain else tagging.malformed(tags, words)

    def _require_types(self, labels: Iterable[str]) -> None:
        given = set(labels)
        tags = [each for each in given if each == tagging.OUTSIDE or {f"B-{each[2:]}", f"I-{each[2:]}"} <= given]
        if tags and not self._plain:
            raise DataError(f"data.labels: names tags ({listed(tags)}); name types of entities, such as PER, without prefixes")

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        types = list(found)
        if self._plain:
            return types
        if not types:
            raise DataError("no row has an entity, so there is nothing to learn; look at the column of data.columns.tags")
        return tagging.names(types, self.scheme)

    def encode(self, rows: Sequence[Values], encoder: TextEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns a row a window; what is the whole document's (`text`, `words`, `listed`, `tags`) stands with its first."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        encoder.tokenizer.enable_truncation(self.max_length, stride=self.stride)
        encoder.tokenizer.no_padding()
        documents = [read(row) for row in rows]
        encodings = encoder.tokenizer.encode_batch([document.text for document in documents])
        found: dict[str, list[Any]] = defaultdict(list)
        for source, (document, encoding) in enumerate(zip(documents, encodings, strict=True)):
            words, windows = align(document, encoding, stride=self.stride)
            whole: dict[str, Any] = {"text": document.text, "words": np.ravel(words).tolist(), "listed": document.listed}
            if labels is not None:
                whole["tags"] = self._targets(document, words, labels)
            answered = 0
            for number, (ids, places) in enumerate(windows):
                part = {"source": source, "input_ids": ids, "length": len(ids), "truncated": False, "places": places.tolist()}
                if labels is not None:
                    part["target"] = _placed(whole["tags"][answered : answered + len(places)], places, len(ids))
                for name, value in (part | (dict.fromkeys(whole) if number else whole)).items():
                    found[name].append(value)
                answered += len(places)
        types = {"text": pa.string(), "listed": pa.bool_(), "truncated": pa.bool_(), "source": pa.int64(), "length": pa.int32()}
        return {name: pa.array(values, types.get(name, pa.list_(pa.int32()))) for name, values in found.items()}

    def _targets(self, document: Document, words: Sequence[tuple[int, int]], labels: Sequence[str]) -> list[int]:
        """Returns the position of each word's label; IGNORED for a plain tag that is none of them."""
        index = {label: position for position, label in enumerate(labels)}
        if self._plain:
            known = [index.get(tag, IGNORED) for tag in self.answers({"text": document.strings, "tags": document.tags})]
            return [*known, *[IGNORED] * len(words)][: len(words)]
        found = tagging.in_words(document.tags or [], words) if document.spans else self._entities(document)
        return [index.get(tag, 0) for tag in tagging.tags_of(found, len(words), self.scheme)]

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": strings(row) if row["listed"] else row["text"]}

    def for_processor(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": row["text"]}


def _placed(targets: Sequence[int], places: NDArray[np.int64], length: int) -> list[int]:
    """Returns a window's targets, (length,)."""
    found = np.full(length, IGNORED)
    found[places[places >= 0]] = np.asarray(targets, dtype=np.int64)[places >= 0]
    return [int(each) for each in found]
