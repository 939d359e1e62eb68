"""Words: found in a text or given as a list, aligned with a tokenizer's sub-words, cut into overlapping windows.

Given words are joined by single spaces, so that a model is always given text, as its users will give it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Encoding

WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Signs are Unicode's categories P and S; the regular expressions' own idea of a word ends at vowel signs of Hindi.
WORD = regex.compile(rf"[{WITHOUT_SPACES}]|([\p{{P}}\p{{S}}])\1*|[^\s\x1c-\x1f\p{{P}}\p{{S}}{WITHOUT_SPACES}]+")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A row as a text, the first and last characters of its words, and its tags: one a word, or spans; None: not known."""

    text: str
    words: Sequence[tuple[int, int]]
    listed: bool  # the row gave the words
    tags: list[Any] | None
    spans: bool  # `tags` are spans

    @property
    def strings(self) -> list[str]:
        """The words themselves."""
        return [self.text[start:end] for start, end in self.words]


def read(values: Mapping[str, Any]) -> Document:
    """Reads `text` (a text or its words) and `tags` (tags or spans); in CSV, lists are JSON or divided by spaces."""
    text, tags = values["text"], values.get("tags")
    tags = _as_list(tags) if isinstance(tags, str) else tags
    spans = tags is not None and all(isinstance(each, list | dict) for each in tags) and (bool(tags) or isinstance(text, str))
    if tags is not None and not spans:
        tags = [str(tag) for tag in tags]
        text = text.split() if isinstance(text, str) else text
    if isinstance(text, str):
        return Document(text=text, words=find_words(text), listed=False, tags=tags, spans=spans)
    ends = np.cumsum([len(word) + 1 for word in text]).tolist()
    words = [(end - 1 - len(word), end - 1) for word, end in zip(text, ends, strict=True)]
    return Document(text=" ".join(text), words=words, listed=True, tags=tags, spans=spans)


def _as_list(cell: str) -> list[Any]:
    try:
        found = json.loads(cell)
    except json.JSONDecodeError:
        found = None
    return found if isinstance(found, list) else cell.split()


def find_words(text: str) -> list[tuple[int, int]]:
    """Returns start and end of each word: a run of letters and digits, or of one sign; a character where no spaces are used."""
    return [match.span() for match in WORD.finditer(text)]


class Window(NamedTuple):
    """A part of a document that fits into the model: its tokens, and where in it are the words that it answers.

    `places` has the position of the first sub-word of each such word; -1 for a word that the tokenizer leaves out.
    """

    ids: list[int]
    places: NDArray[np.int64]


def align(
    document: Document, encoding: Encoding, *, stride: int
) -> tuple[Sequence[tuple[int, int]], list[Window]]:  # fmt: skip
    """Returns the words that can be answered and a document's windows, which together answer each of them once, in order.

    A word is answered by the window where it has the most context. Words of a text that share a token (in scripts without
    spaces) become one; given words stay as they are.

    Args:
        document: the text and its words.
        encoding: of the text, truncated to the model's length, the rest in `overflowing`.
        stride: how many tokens neighbouring windows share.
    """
    parts = [encoding, *encoding.overflowing]
    inside = [np.flatnonzero(np.asarray(part.special_tokens_mask) == 0) for part in parts]
    kept = [
        np.asarray(part.offsets, dtype=np.int64).reshape(-1, 2)[rows[stride if number else 0 :]]
        for number, (part, rows) in enumerate(zip(parts, inside, strict=True))
    ]
    tokens = np.concatenate(kept)
    words, first = _first_tokens(np.asarray(document.words, dtype=np.int64).reshape(-1, 2), tokens, listed=document.listed)
    step = len(inside[0]) - stride if len(parts) > 1 else max(1, len(tokens))
    near = np.maximum.accumulate(np.maximum(first, 0)) if len(first) else first  # a word without tokens goes with the last
    owner = np.clip((near - stride // 2) // step, 0, len(parts) - 1)
    windows = []
    for number, (part, rows) in enumerate(zip(parts, inside, strict=True)):
        mine = first[owner == number]
        lead = rows[0] if len(rows) else 0
        windows.append(Window(part.ids, np.where(mine < 0, -1, mine - number * step + lead)))
    return [(start, end) for start, end in words.tolist()], windows


def _first_tokens(
    words: NDArray[np.int64], tokens: NDArray[np.int64], *, listed: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Returns the words (words, 2) and the first token of each, -1 where it has none of its own."""
    if not len(tokens):
        return (words, np.full(len(words), -1)) if listed else (words[:0], np.zeros(0, dtype=np.int64))
    first = np.searchsorted(tokens[:, 1], words[:, 0], side="right")
    covered = np.flatnonzero(tokens[np.minimum(first, len(tokens) - 1), 0] < words[:, 1])
    covered = covered[first[covered] < len(tokens)]
    own = np.flatnonzero(np.diff(first[covered], prepend=-1))
    if listed:
        found = np.full(len(words), -1)
        found[covered[own]] = first[covered[own]]
        return words, found
    last = np.append(own[1:], len(covered)) - 1  # of the words that share a token
    return np.stack([words[covered[own], 0], words[covered[last], 1]], axis=1), first[covered[own]]
