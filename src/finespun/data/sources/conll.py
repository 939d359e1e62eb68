"""CoNLL files: a word a line, columns apart by tabs or spaces, an empty line after each sentence; CoNLL-U among them.

Columns are named by their position, from 1, or as `# global.columns` or CoNLL-U name them; `document` counts documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from finespun.errors import DataError

CONLL_U = ["id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"]
DOCUMENT = re.compile(r"-DOCSTART-|#\s*newdoc\b")
COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.+)")
SETTING = re.compile(r"#\s*[\w.:-]+ = ")  # a comment with as many columns as words have
NO_WORD = re.compile(r"\d+[-.]\d+")  # ids of CoNLL-U's multiword tokens and empty nodes: their words have lines of their own
SPACES = re.compile(r"[ \t]+")  # others, such as the no-break space, may be inside words


def sentences(file: Iterator[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line where a sentence begins, and column -> its words' values.

    Raises:
        DataError: a line has more or fewer columns than those before.
    """
    words: list[list[str]] = []
    names: list[str] = []
    first = width = document = 0
    tabs: bool | None = None  # as the first word's line has it: words, and comments, may have spaces in them
    for number, raw in enumerate(chain(file, [""]), 1):
        line = raw.rstrip("\r\n")
        marks_document = DOCUMENT.match(line) is not None
        if marks_document or not line.strip():
            if words:
                yield first, _row(words, names, document)
            words = []
            document += marks_document
            continue
        divided = "\t" in line if tabs is None else tabs
        fields = line.split("\t") if divided else SPACES.split(line.strip(" "))
        if not words and _is_comment(line, len(fields), width):
            said = COLUMNS.match(line)
            names = said[1].lower().split() if said else names
            continue
        if width and len(fields) != width:
            raise DataError(
                f"{name}:{number}: has {len(fields)} columns, the lines before {width}; put tabs or spaces between columns,"
                " an empty line between sentences"
            )
        if not width:
            width, tabs, names = len(fields), divided, _names(fields, names, tabs=divided)
        if not (names[0] == "id" and NO_WORD.fullmatch(fields[0])):
            first = first if words else number
            words.append(fields)


def _is_comment(line: str, columns: int, width: int) -> bool:
    """Whether a line before a sentence's first word is a comment; `#edchat O` is a word."""
    return line.startswith("#") and (
        SETTING.match(line) is not None or (columns != width if width else line.startswith("# ") or columns == 1)
    )


def _names(fields: list[str], said: list[str], *, tabs: bool) -> list[str]:
    if len(said) == len(fields):
        return said
    if tabs and len(fields) == len(CONLL_U) and fields[0][:1].isdigit():
        return CONLL_U
    return [str(position) for position, _ in enumerate(fields, 1)]


def _row(words: list[list[str]], names: list[str], document: int) -> dict[str, Any]:
    columns = map(list, zip(*words, strict=True))
    return {**dict(zip(names, columns, strict=True)), "document": str(document)}
