"""Predictions kept beside an output that is not whole yet: a `finespun predict` that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

import torch
import transformers

import finespun
from finespun.data.sources.tables import Line

Answers = list[dict[str, Any]]
Answered = Iterator[tuple[list[Line], Answers]]


class KeptAnswers:
    """A file of JSON lines: what made the predictions, then each chunk's digest with its predictions, in order.

    A chunk's predictions are taken where it holds the rows that it held; from the first that differs, or is written in part, on
    all are made anew. The output is written from its beginning, whatever its kind, so it ends in the same bytes.
    """

    def __init__(self, output: Path, made_by: str) -> None:
        """`made_by` is a digest of all but the rows that predictions depend on."""
        target = Path(os.path.realpath(output))
        self.output, self.path, self.made_by = output, target.with_name(f".{target.name}.answers"), made_by

    def shared(self, chunks: Iterator[list[Line]], answer: Callable[[Iterator[list[Line]]], Answered]) -> Answered:
        """Yields each chunk with its predictions: those kept, then what `answer` makes of the others, kept as it comes."""
        first = next(chunks, None)  # raises what is wrong with the rows before there is a file
        if first is None:
            return
        chunks = chain([first], chunks)
        with self.path.open("a+b") as file:
            file.seek(0)
            known = _json(file) == self.made_by
            end, count = (file.tell() if known else 0), 0
            for chunk in chunks:
                found = _json(file) if known else None
                if not isinstance(found, list) or found[0] != _digest(chunk):
                    chunks = chain([chunk], chunks)
                    break
                end, count = file.tell(), count + len(chunk)
                yield chunk, found[1]
            if count:
                print(f"{self.output}: {count:,} rows were predicted before; going on after them", file=sys.stderr)  # noqa: T201
            file.truncate(end)
            if not end:
                self._begin(file)
            keep = True
            for chunk, answers in answer(chunks):
                keep = keep and _same_in_json(answers)  # a task of the user's own may answer in other types
                if keep:
                    _write(file, [_digest(chunk), answers])
                yield chunk, answers

    def _begin(self, file: IO[bytes]) -> None:
        try:
            _write(file, self.made_by)
        except OSError:
            self.done()  # a full disk leaves no empty file behind
            raise

    def done(self) -> None:
        """Removes the file: the output is whole."""
        self.path.unlink(missing_ok=True)


def digest_of(folder: Path, settings: Mapping[str, Any], device: str) -> str:
    """Returns a digest of a model's files (by their sizes and times), settings, libraries and kind of device."""
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
    versions = (finespun.__version__, torch.__version__, transformers.__version__)
    return hashlib.sha256(json.dumps([files, settings, versions, device], sort_keys=True).encode()).hexdigest()


def _digest(chunk: list[Line]) -> str:
    rows = json.dumps([[line.row, line.error] for line in chunk], default=str)
    return hashlib.sha256(rows.encode()).hexdigest()


def _same_in_json(answers: Answers) -> bool:
    return bool(json.loads(json.dumps(answers, default=str)) == answers)


def _write(file: IO[bytes], value: Any) -> None:
    file.write(json.dumps(value).encode() + b"\n")
    file.flush()


def _json(file: IO[bytes]) -> Any:
    """Returns the value of the next line; None where it is not whole."""
    line = file.readline()
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
