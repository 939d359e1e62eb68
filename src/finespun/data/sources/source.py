"""All that the section `data` names as one stream of rows: a file, several, a database, a data set of the hub."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from finespun.config.sections import SPLIT_OF_PATH, DataConfig
from finespun.data.related.histories import with_histories
from finespun.data.related.sequences import read_events, sequences
from finespun.data.sources import arrow, opening, tables
from finespun.data.sources.dialect import SAMPLE, dialect_of, encoding_of
from finespun.data.sources.services import hub, sql
from finespun.data.sources.tables import Line, format_of, shown
from finespun.kept import file_digest, folder_digest

TEXTS = {"csv", "jsonl", "json", "conll"}
IMAGE = {"file", "folder"}  # columns of a folder of images
ANNOTATIONS = {"coco", "voc", "yolo"}  # formats whose rows have a column `image`, relative to where the annotations lie
Part = tuple[Any, str]  # a file, or what else rows come from; the split that the configuration says it is


class Source:
    """Goes through the rows anew each time that it is called; rows of several files are numbered on and on."""

    def __init__(self, data: DataConfig, project: Path) -> None:
        self.declared, self.project = data, project
        self.file_digests: Callable[[Path], str] = _path_digest
        self.starts: list[int] = []

    @cached_property
    def data(self) -> DataConfig:
        """The section with the encoding and delimiter of the first file, where they are not declared."""
        data = self.declared
        first = "" if data.hub or data.sql or not self.parts else str(self.parts[0][0])
        if not first or (data.encoding and data.delimiter) or not _is_there(first):
            return data
        kind = format_of(first, data.format)
        if kind not in TEXTS:
            return data
        sample, whole = opening.beginning(first, SAMPLE)
        found = {"encoding": data.encoding or encoding_of(sample)}
        if kind == "csv" and not data.delimiter and opening.suffix(first) not in tables.TABS:
            columns = _columns(data) if data.header else []
            found["delimiter"] = dialect_of(sample, columns=columns, whole=whole).delimiter
        return data.model_copy(update=found)

    @cached_property
    def parts(self) -> list[Part]:
        """The files, in their order, each with its split if it has one.

        Raises:
            DataError: one of them is not there.
        """
        data = self.declared
        if data.hub:
            found = hub.splits(data.hub, data.hub_config, data.hub_revision, self.project)
            return [(split, name) for name, split in found.items()]
        return [(data.name, "")] if data.sql else self._files(data)

    def _files(self, data: DataConfig) -> list[Part]:
        given = data.path if isinstance(data.path, dict) else {"": data.path}
        files: list[Part] = []
        for split, paths in given.items():
            for path in [paths] if isinstance(paths, str) else paths:
                files += [(file, split) for file in opening.expanded(path, self.project)]
        if len(files) == 1 and SPLIT_OF_PATH in data.columns.values():
            folder = Path(files[0][0])
            if not opening.is_remote(files[0][0]) and arrow.is_saved(folder):
                return [(file, split) for split, names in arrow.saved(folder).items() for file in names]
        return files

    def __call__(self) -> Iterator[Line]:
        """Yields all rows; of events, those that are made of them.

        Raises:
            DataError: they cannot be read.
        """
        events, histories = self.declared.events, self.declared.histories
        if histories:
            return with_histories(self.lines(), histories, self.declared.name, self.project)
        return sequences(self.lines(), events, self.declared.split, self.data.name) if events else self.lines()

    def lines(self) -> Iterator[Line]:
        """Yields the rows of the files.

        Raises:
            DataError: they cannot be read.
        """
        starts, last = [], 0
        for place in range(len(self.parts)):
            starts.append(last)
            self.starts = starts
            for line in self.part(place, last):
                last = line.number
                yield line

    def part(self, place: int, start: int) -> Iterator[Line]:
        """Yields the rows of one of the parts, numbered on from `start`."""
        part, split = self.parts[place]
        if len(self.parts) == 1 and SPLIT_OF_PATH not in self.data.columns.values():
            yield from self._lines(part)
            return
        for line in self._lines(part):
            row = {**line.row, SPLIT_OF_PATH: split} if split else line.row
            row = self._from_project(row, part)
            yield Line(start + line.number, row, line.error)

    def _from_project(self, row: tables.Row, part: str) -> tables.Row:
        """Returns a row of one of several folders of images or files of annotations, its image relative to the project."""
        column = "file" if {*row} - {SPLIT_OF_PATH} == IMAGE else "image" if self.data.format in ANNOTATIONS else None
        if column is None:
            return row
        folder = Path(part) if self.data.format not in ANNOTATIONS or Path(part).is_dir() else Path(part).parent
        folder = folder.relative_to(self.project) if folder.is_relative_to(self.project) else folder
        return {**row, column: (folder / row[column]).as_posix()}

    def _lines(self, part: Any) -> Iterator[Line]:
        data = self.data
        if data.hub:
            return (Line(number, row) for number, row in hub.rows(part))
        if data.sql:
            address = _absolute(data.name, self.project)
            return (Line(number, row) for number, row in sql.rows(address, data.sql, data.password))
        return tables.read(
            part if opening.is_remote(part) else Path(part), file_format=data.format, delimiter=data.delimiter,
            encoding=data.encoding, quoting=data.quoting, header=data.header,
        )  # fmt: skip

    def place(self, number: int) -> tuple[str, int]:
        """Returns the file and the line, or the row in it, of a row's number."""
        if len(self.parts) == 1:
            return self.data.name, number
        place = bisect.bisect_left(self.starts, number) - 1
        part, split = self.parts[place]
        name = f"{self.data.hub} ({split})" if self.data.hub else shown(part)
        return name, number - self.starts[place]

    @cached_property
    def notes(self) -> list[str]:
        """What was found out of the file, where it is not what files usually are."""
        usual = {"encoding": "utf-8", "delimiter": ","}
        events = self.declared.events
        return [
            *(read_events(self.lines(), events, self.data.name).notes if events else []),
            *(
                f"data.{name}: {getattr(self.data, name)!r} was found in the file; set it in conf/data if it is another"
                for name, value in usual.items()
                if getattr(self.data, name) not in {None, value} and getattr(self.declared, name) is None
            ),
        ]

    def digest(self) -> str:
        """Returns the sha256 of what is read: of files' bytes, of what a remote system knows contents by."""
        declared = self.declared
        if declared.sql:
            lines = [f"{line.number}:{sorted(line.row.items())}" for line in self()]
        elif isinstance(declared.path, str) and declared.path and (self.project / declared.path).exists():
            return self._digest(str(self.project / declared.path))
        else:
            lines = [f"{name}:{self._digest(part)}" for part, name in self.parts]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _digest(self, part: Any) -> str:
        if self.declared.hub:
            return str(part._fingerprint)  # noqa: SLF001  (it has no other name)
        if opening.is_remote(part):
            return opening.checksum(part)
        opening.require_there(part)
        return self.file_digests(Path(part))


def _path_digest(path: Path) -> str:
    return folder_digest(path) if path.is_dir() else file_digest(path)


def _columns(data: DataConfig) -> list[str]:
    """Returns the columns that the file itself must have."""
    if data.events:
        events = data.events
        return [str(each) for each in (events.user, events.item, events.time, events.weight) if each is not None]
    named = [each for given in data.columns.values() for each in ([given] if isinstance(given, str) else given)]
    return [each for each in {*named, *(rule.column for rule in data.filters)} if each != SPLIT_OF_PATH]


def _is_there(name: str) -> bool:
    """Whether a file can be looked at; what cannot is reported when it is read."""
    return opening.is_remote(name) or (Path(name).is_file() and Path(name).stat().st_size > 0)


def _absolute(address: str, project: Path) -> str:
    """Returns the address of an SQLite file relative to the project."""
    scheme, sign, path = address.partition(":///")
    return f"{scheme}{sign}{project / path}" if scheme.startswith("sqlite") and path and not path.startswith("/") else address
