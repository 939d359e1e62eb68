"""Answers for the rows of a file: streaming, in order, with all other columns kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from finespun.data import images, writing
from finespun.data.checks import named_columns
from finespun.data.related.histories import with_histories
from finespun.data.sources import image_folder, tables
from finespun.data.sources.annotations import coco
from finespun.data.sources.tables import Row
from finespun.errors import DataError, ModelError, did_you_mean, listed, visible
from finespun.evaluation import coco_output
from finespun.evaluation.devices import help_rank_zero, release, shared
from finespun.evaluation.drawing import DRAWN, Drawer
from finespun.evaluation.kept_answers import KeptAnswers, digest_of
from finespun.evaluation.predictor import Predictor
from finespun.models.addresses import require_consent
from finespun.tasks.base import Task, main_role
from finespun.training.lightning.launching import rank

COCO = ".json"  # the ending of what is written as COCO's JSON
ROWS_AT_ONCE = 2048  # are answered together, at most, by each device: like lengths meet, and padding is 4 %; of 1,024 rows 8 %


def predict_file(
    source: Path,
    output: Path,
    *,
    folder: Path,
    columns: Mapping[str, str],
    reading: Mapping[str, str] = MappingProxyType({}),
    top_k: int = 1,
    draw: str | None = None,
    strict: bool = False,
    allow_outside: bool = False,
    trust_remote_code: bool = False,
) -> tuple[int, int]:
    """Predicts `source` into `output` and returns how many rows there were and how many could not be predicted.

    Where rows are texts, predictions are kept beside `output` until that is whole: a job that was killed goes on where it was.
    Of several processes, each on a device of its own, rank zero reads and writes; the others return (0, 0).

    Args:
        source: a table, a folder of files (where the task reads files), or `-`: one input a line of standard input.
        output: a table, or `-`.
        folder: of a fine-tuned model.
        columns: role -> column of `source`, where they are called other than in training.
        reading: `file_format`, delimiter, encoding and quoting of `source`, where they are others than in training.
        top_k: how many answers a row is given, where there are several; 0: its vector, where there is one.
        draw: a folder for pictures of boxes or masks.
        strict: a row that cannot be predicted ends the job.
        allow_outside: read files that `source` names wherever they lie, not only beside it and below the working folder.
        trust_remote_code: run code that lies in `folder`.

    Raises:
        ModelError: `folder` holds no fine-tuned model, or one that names a class to be imported, untrusted.
        DataError: the file cannot be read, has no such column, or (if strict) holds a bad row; the model reads more than a
            line or a file gives.
    """
    if not source.is_dir() and str(source) != "-":
        tables.format_of(source, reading.get("file_format"))  # before a model is loaded and rows are read
    writing.require_writable(output, source=source, also=(COCO,))
    require_consent(folder, trusted=trust_remote_code, remedy="say --trust-remote-code")
    predictor = Predictor(folder, trust_remote_code=trust_remote_code)
    if not top_k:
        predictor.task = _of_vectors(predictor.task)
    _call(predictor, columns)
    here = source if source.is_dir() else source.parent
    inside = (Path(Path.cwd().anchor),) if allow_outside else (here, Path())
    job = _Job(predictor=predictor, name=str(source), top_k=top_k, strict=strict)
    job.show(draw, output, images.Places((here, Path()), inside))
    job.keep(output, folder)
    if str(source) == "-" or (source.is_dir() and reading.get("file_format") not in tables.ANNOTATED):
        predictor.task = predictor.task.reading_from(Path(), inside=inside)
        lines = _bare_lines(source, predictor)
    else:
        predictor.task = predictor.task.reading_from(here, Path(), inside=inside)
        options: dict[str, Any] = {**predictor.reading, **reading}
        if rank() == 0 and tables.format_of(source, reading.get("file_format")) in {"json", "jsonl"}:
            job.columns = _columns(tables.read(source, **options, lenient=True))
        lines = job.joined(tables.read(source, **options, lenient=True))
    if rank():
        help_rank_zero(job.answers)
        return 0, 0
    try:
        return job.write(lines, output, partial(_categories, source, reading)), job.failed
    finally:
        release()


def _call(predictor: Predictor, columns: Mapping[str, str]) -> None:
    """Lets a predictor read columns that are called other than in training."""
    unknown = set(columns) - set(predictor.columns)
    if unknown:
        raise DataError(f"--column: {listed(unknown)} is none of what this model reads: {listed(predictor.columns)}")
    predictor.columns |= columns


def _of_vectors(task: Task) -> Task:
    if not task.ranks or main_role(task) not in task.item_roles:  # rows are then no items, whose vectors could be compared
        raise ModelError(f"{type(task).__name__} makes no vectors; fine-tune one with task: text_embedding, or use `predict`")
    return task.of_items()


def _require_places(option: str, predictor: Predictor) -> None:
    """Raises a DataError where answers are no boxes or masks."""
    if not set(DRAWN) & set(predictor.task.answer_roles):
        raise DataError(
            f"{option}: {type(predictor.task).__name__} answers {', '.join(predictor.task.answer_roles)}, and it is for boxes"
            " and masks; leave it out, or name another kind of file"
        )


def _image_columns(predictor: Predictor) -> tuple[str, str]:
    """The columns, of which a row has one, of paths of images; rows of bare lines are called by the role."""
    role = main_role(predictor.task)
    return str(predictor.columns[role]), role


def _categories(source: Path, reading: Mapping[str, str]) -> dict[str, int]:
    """Numbers of labels in what is read, if it is COCO's JSON."""
    return coco.categories(source.read_text(encoding="utf-8")) if reading.get("file_format") == "coco" else {}


def _columns(lines: Iterator[tables.Line]) -> Row:
    """All columns that rows have, which may be others in each, with their first value that is none."""
    found: Row = {}
    for line in lines:
        found.update((name, value) for name, value in line.row.items() if found.get(name) is None)
    return found


def _bare_lines(source: Path, predictor: Predictor) -> Iterator[tables.Line]:
    """The lines of standard input or the files of a folder, as rows of one column."""
    role, *others = predictor.columns
    if others:
        raise DataError(f"{source}: this model reads {listed(predictor.columns)} of each row; write them into a table")
    if source.is_dir() and predictor.task.processor != "AutoImageProcessor":
        raise DataError(f"{source}: is a folder, and this model reads {role}; name a table, or - for standard input")
    predictor.columns = {role: role}
    given = map(str, image_folder.files(source)) if source.is_dir() else _texts()
    return (tables.Line(number, {role: text}) for number, text in enumerate(given, 1))


def _texts() -> Iterator[str]:
    try:
        for line in sys.stdin:
            line.encode()  # what could not be decoded may have been let through
            yield line.rstrip("\n")
    except UnicodeError as error:
        raise DataError(f"-: standard input is not UTF-8 ({error}); convert it") from error


class _Job:
    """Answers lines, a chunk at a time, and counts those that could not be."""

    def __init__(self, *, predictor: Predictor, name: str, top_k: int, strict: bool) -> None:
        self.predictor, self.name, self.top_k, self.strict = predictor, name, top_k, strict
        self.failed = 0
        self.drawer: Drawer | None = None
        self.kept: KeptAnswers | None = None  # what was predicted before
        self.places = images.Places((), ())  # of images, where answers have places in them
        self.columns: Row = {}  # of all rows, with a value of each; if empty, each row has those of the first
        self.like: list[Row] = []  # a row as it will be written

    def joined(self, lines: Iterator[tables.Line]) -> Iterator[tables.Line]:
        """Returns rows with the histories of their users, where the model was trained on such."""
        histories = self.predictor.histories
        if histories is None:
            return lines
        if self.columns:
            self.columns.setdefault(histories.column, "")
        return with_histories(lines, histories, self.name, Path())

    def answered(self, lines: Iterator[tables.Line]) -> Iterator[Row]:
        """Yields the rows with their answers; names of the user's columns are never taken.

        A table has the same columns in each row: rows wait for the first answer, which says what they are and of what types.
        """
        pairs = self._pairs(lines)
        waiting = []
        for pair in pairs:
            waiting.append(pair)
            if "error" not in pair[1]:
                break
        if not waiting:
            raise DataError(f"{self.name}: holds no rows, so nothing is written; put rows into it")
        line, answer = waiting[-1]
        self.columns = self.columns or line.row
        empty = dict.fromkeys(answer) | {"error": ""}
        names = {name: _free(name, self.columns) for name in empty}
        self.like.append({**self.columns, **_called(empty | self._widest(line, answer), names)})
        for line, answer in chain(waiting, pairs):
            yield {**line.row, **_called(empty | answer, names)}

    def show(self, draw: str | None, output: Path, places: images.Places) -> None:
        """Takes the folder for pictures; output as COCO's JSON and pictures are of answers that have places in images."""
        self.places = places
        for option in [*(["--draw"] if draw else []), *([f"--output {output}"] if output.suffix == COCO else [])]:
            _require_places(option, self.predictor)
        if draw and rank() == 0:
            columns = _image_columns(self.predictor)
            self.drawer = Drawer(Path(draw), labels=self.predictor.labels, columns=columns, places=places)

    def keep(self, output: Path, folder: Path) -> None:
        """Lets predictions be kept beside a file, where rows are texts: files that rows name may change unseen."""
        if self.predictor.task.processor != "AutoTokenizer" or str(output) == "-":
            return
        settings = {"columns": dict(self.predictor.columns), "top_k": self.top_k}
        self.kept = KeptAnswers(output, digest_of(folder, settings, self.predictor.device.type))

    def write(self, lines: Iterator[tables.Line], output: Path, categories: Callable[[], Mapping[str, int]]) -> int:
        """Writes rows with their predictions, in the format of the output's ending, and returns their number."""
        if output.suffix == COCO:
            return self.write_coco(lines, output, categories())
        count = writing.write(self.answered(lines), output, like=self.like)
        if self.kept:
            self.kept.done()
        return count

    def write_coco(self, lines: Iterator[tables.Line], output: Path, categories: Mapping[str, int]) -> int:
        """Writes COCO's JSON and returns the number of its images."""
        answered = ((line.row, answer) for line, answer in self._pairs(lines))
        found = coco_output.document(
            answered, labels=self.predictor.labels, columns=_image_columns(self.predictor), places=self.places,
            categories=categories,
        )  # fmt: skip
        writing.write_json(found, output)
        return len(found["images"])

    def _widest(self, line: tables.Line, answer: Row) -> Row:
        """The answer as it would be if all labels were asked for: a later one may have any of them in a column."""
        if "error" in answer:
            return answer
        (whole,) = self.predictor.predict([line.row], top_k=max(self.top_k, len(self.predictor.labels)))
        return {name: whole[name] for name in answer}

    def _pairs(self, lines: Iterator[tables.Line]) -> Iterator[tuple[tables.Line, dict[str, Any]]]:
        predicted = partial(shared, answer=self.answers)
        chunks = self._checked(lines)
        for chunk, answers in self.kept.shared(chunks, predicted) if self.kept else predicted(chunks):
            for line, answer in zip(chunk, answers, strict=True):
                self._count(line, answer)
                if self.drawer:
                    self.drawer.draw(line.row, answer)
                yield line, answer

    def _checked(self, lines: Iterator[tables.Line]) -> Iterator[list[tables.Line]]:
        """Yields chunks; the first row that says something must have the columns."""
        checked = False
        for chunk in tables.chunks(lines, min(ROWS_AT_ONCE, self.predictor.task.rows_at_once)):
            whole = next(
                (line for line in chunk if line.row or not line.error), None
            )  # also a row of another width has columns
            if whole and not checked:
                self._require_columns(whole)
                checked = True
            yield chunk

    def answers(self, chunk: list[tables.Line]) -> list[dict[str, Any]]:
        """Returns an answer for each line, for those that could not be read their error."""
        found = iter(self.predictor.predict([line.row for line in chunk if not line.error], top_k=self.top_k))
        return [{"error": line.error.partition(";")[0]} if line.error else next(found) for line in chunk]

    def _require_columns(self, line: tables.Line) -> None:
        """Raises a DataError where no row has a column; one that alone lacks it is a bad row."""
        have = self.columns or line.row
        for role, column in named_columns(self.predictor.columns):
            if column not in have:
                near = did_you_mean(column, have)
                raise DataError(
                    f"{self.name}:{line.number}: has no column {column!r}{near}; it has: {listed(map(visible, have))}; set"
                    f" --column {role}=NAME{_or_delimiter(have)}"
                )

    def _count(self, line: tables.Line, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            self.failed += 1
            if self.strict:
                place = f"{self.name}:{line.number}" if not Path(self.name).is_dir() else next(iter(line.row.values()))
                raise DataError(f"{place}: {answer['error']}; mend the row, or leave --strict out")


def _or_delimiter(columns: Mapping[str, Any]) -> str:
    """What else may be wrong where a header was not divided."""
    mark = next((each for each in ";\t|," if len(columns) == 1 and each in next(iter(columns))), None)
    return f" or --delimiter {mark!r}" if mark else ""


def _called(answer: Row, names: Mapping[str, str]) -> Row:
    return {names[name]: value for name, value in answer.items()}


def _free(name: str, row: Row) -> str:
    """A name for a new column: nothing of the user's is written over."""
    while name in row:
        name = f"predicted_{name}"
    return name
