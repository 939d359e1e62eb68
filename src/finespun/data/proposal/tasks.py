"""Which task a table is for, and which column has which role: the most likely reading, with how sure it is and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from finespun.data.cells import NUMBER
from finespun.data.proposal.columns import Column
from finespun.errors import DataError, first_of

SURE, LIKELY, GUESS = "sure", "likely", "a guess"
ORDER = (SURE, LIKELY, GUESS)
TEXTS = re.compile(
    r"text|body|content|message|sentence|review|comment|description|document|tweet|post|utterance|question|title|subject|query|"
    r"abstract|summary|article|headline|phrase|snippet|prompt|input",
    re.IGNORECASE,
)
LABELS = re.compile(
    r"label|class|category|categories|target|sentiment|topic|intent|queue|(?<![a-z])tags?(?![a-z])|genre|type|kind|emotion|"
    r"polarity|relation|outcome|(?<![a-z])is_|spam|stance|answer|priority|department|folder$|kategorie|^y$",
    re.IGNORECASE,
)
NUMBERS = re.compile(
    r"score|rating|stars|price|preis|value|target|similarity|amount|grade|points|quality|overall|mean|^y$", re.IGNORECASE
)
IDS = re.compile(r"(^|[_ .-])(id|idx|index|uuid|guid|key|no|number|row)$|^(id|idx|index)|^unnamed", re.IGNORECASE)
GROUPS = re.compile(
    r"(author|user|customer|patient|speaker|document|doc|thread|session|subject|group|conversation)(_?id)?$", re.I
)
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"),
    ("text1", "text2"), ("text_a", "text_b"), ("question1", "question2"), ("question", "sentence"), ("question", "context"),
    ("question", "passage"), ("query", "document"), ("query", "passage"), ("text", "text_pair"), ("claim", "evidence"),
)  # fmt: skip
READ = re.compile(r"prompt|instruction|question|source|article|document|dialogue|text|^(en|src)$", re.IGNORECASE)
TO_WRITE = re.compile(r"completion|response|output|answer|summary|highlights|headline|reply|target|^(tgt)$", re.IGNORECASE)
TRANSCRIPTS = re.compile(r"transcript|transcription|sentence|utterance|normali[sz]ed|said|text|words", re.IGNORECASE)
OF_FILES = {  # role -> what a task of texts is called where rows name files
    "image": {"text_classification": "image_classification"},
    "audio": {"text_classification": "audio_classification", "multi_label": "audio_multi_label"},
}
FEW = 60  # labels; more are rather something else
PREFIXED = re.compile(r"[BILUSE]-\S+")


@dataclass(kw_only=True)
class Reading:
    """What a table is read as; `reasons` say why, in the order in which they were found."""

    task: str
    columns: dict[str, Any]
    certainty: str = SURE
    reasons: list[str] = field(default_factory=list)
    alternatives: list[str] = field(default_factory=list)  # other readings, as lines for the file
    rivals: list[tuple[str, str, str]] = field(default_factory=list)  # task, role and column of what else could be learnt
    labels: Counter[str] = field(default_factory=Counter)

    def doubt(self, certainty: str, why: str) -> None:
        """Lowers the certainty, and says why."""
        self.certainty = max(self.certainty, certainty, key=ORDER.index)
        self.reasons.append(why)


def reading_of(columns: Sequence[Column], *, folder: bool = False) -> Reading:
    """Returns the most likely reading of a table.

    Args:
        columns: all that it has.
        folder: it is a folder of images or recordings.

    Raises:
        DataError: nothing in it could be learnt.
    """
    if folder:
        files, kinds = (next(column for column in columns if column.name == name) for name in ("file", "folder"))
        role, what = ("audio", "recordings") if files.is_sound else ("image", "images")
        reading = Reading(task=f"{role}_classification", columns={role: "file", "label": "folder"}, labels=kinds.counts)
        reading.reasons.append(f"a folder of {what}, and {len(kinds.counts)} sub-folders that are labels")
        _add_splits(reading, columns)
        return reading
    reading = _tagged(columns) or _labelled(columns)
    _add_splits(reading, columns)
    return reading


def _tagged(columns: Sequence[Column]) -> Reading | None:
    """Words with tags, or texts with spans."""
    spans = next((column for column in columns if column.are_spans), None)
    text = _most_textual([column for column in columns if column is not spans and not column.lists]) if spans else None
    if spans and text:
        reading = Reading(task="token_classification", columns={"text": text.name, "tags": spans.name})
        reading.labels.update(_span_label(each) for value in spans.lists for each in value)
        reading.reasons.append(f"{spans.name!r} holds spans of {text.name!r}: start, end, label")
        return reading
    lists = [column for column in columns if column.are_words and len(column.lists) > len(column.values) / 2]
    for words in lists:
        for tags in lists:
            aligned = [len(one) == len(other) for one, other in zip(words.values, tags.values, strict=True)]
            kinds = Counter(str(each) for value in tags.lists for each in value)
            if words is not tags and all(aligned) and len(kinds) < len({str(each) for value in words.lists for each in value}):
                return _tags_reading(words, tags, lists)
    return None


def _tags_reading(words: Column, tags: Column, lists: Sequence[Column]) -> Reading:
    others = [column for column in lists if column not in (words, tags)]
    tags = next((column for column in [*reversed(lists)] if column is not words and _prefixed(column)), tags)
    kinds = Counter(str(each) for value in tags.lists for each in value)
    task = "token_classification" if _prefixed(tags) else "part_of_speech"
    reading = Reading(task=task, columns={"text": words.name, "tags": tags.name}, labels=kinds)
    said = "with B- and I- before them" if task == "token_classification" else "that mean themselves"
    reading.reasons.append(f"{words.name!r} are words and {tags.name!r} as many tags {said}")
    if others:
        reading.doubt(LIKELY, f"other columns of lists: {first_of([column.name for column in others])}")
    if kinds and all(NUMBER.fullmatch(kind) for kind in kinds):
        reading.doubt(GUESS, "the tags are numbers, whose names the file does not say")
    return reading


def _prefixed(column: Column) -> bool:
    kinds = {str(each) for value in column.lists for each in value}
    return any(PREFIXED.fullmatch(kind) for kind in kinds) and all(PREFIXED.fullmatch(kind) or kind == "O" for kind in kinds)


def _span_label(span: Any) -> str:
    return str(span["label"] if isinstance(span, dict) else span[2])


def _labelled(columns: Sequence[Column]) -> Reading:
    files = next((column for column in columns if column.is_image or column.is_sound), None)
    rest = [column for column in columns if column is not files and not column.is_split]
    if files:
        return _of_files(files, rest)
    pair = _pair(rest)
    text = pair[0] if pair else _most_textual(rest)
    if text is None:
        raise DataError(
            "no column holds texts, images or recordings, which is what is learnt from; the columns are"
            f" {first_of([column.name for column in columns])}{_objects(columns)}; if one of them is text, say --task TASK"
            " --column text=NAME (for tables of numbers, take scikit-learn)"
        )
    inputs = {"text": text.name}
    used = [column for column in rest if column is not text and not (pair and column is pair[1])]
    reading = _several(used) or _single(used) or _written(rest)
    if reading is None:
        raise _nothing_to_learn(used, columns)
    if pair:
        inputs["text_pair"] = pair[1].name
        reading.reasons.append(f"{pair[0].name!r} and {pair[1].name!r} are a pair of texts")
    reading.columns = inputs | reading.columns
    if reading.task != "text_generation":
        _name_others(reading, text, used, paired=pair is not None)
    return reading


def _name_others(reading: Reading, text: Column, rest: Sequence[Column], *, paired: bool) -> None:
    """Says which other columns of texts there are."""
    several = [column.name for column in rest if column.words > 3 and column.name not in reading.columns.values()]
    if not TEXTS.search(text.name):
        reading.doubt(LIKELY, f"{text.name!r} has the longest texts" + (f" (others: {first_of(several)})" if several else ""))
    if several and not paired:
        reading.alternatives.append(f"text_pair: {several[0]} under columns, and the model reads both texts")


def _written(columns: Sequence[Column]) -> Reading | None:
    """A text to be written for each text, where nothing is a label or a number."""
    texts = [column for column in columns if column.words >= 1.5 and not (column.lists or column.fields or column.is_time)]
    target = next((column for column in texts if TO_WRITE.search(column.name)), texts[1] if len(texts) == 2 else None)
    read = [column for column in texts if column is not target]
    if target is None or not read:
        return None
    text = next((column for column in read if READ.search(column.name)), read[0])
    reading = Reading(task="text_generation", columns={"text": text.name, "target": target.name})
    reading.doubt(GUESS, f"nothing is a label or a number, and {target.name!r} could be written for each {text.name!r}")
    others = [column.name for column in read if column is not text]
    if others:
        reading.alternatives.append(f"{others[0]}: {others[0]} under columns, and {{{others[0]}}} in the prompt of the task")
    return reading


def _of_files(files: Column, rest: Sequence[Column]) -> Reading:
    """Images or recordings with labels, or recordings with what is said in them."""
    role, what = ("audio", "recordings") if files.is_sound else ("image", "images")
    why = f"{files.name!r} names {what}"
    said = _most_textual([column for column in rest if _is_said(column)]) if role == "audio" else None
    if said:
        columns = {role: files.name, "target": said.name}
        return Reading(task="speech_recognition", columns=columns, reasons=[why, f"{said.name!r} is what is said in them"])
    reading = _several(rest) or _single(rest)
    if reading is None:
        raise _nothing_to_learn(rest, rest)
    if reading.task not in OF_FILES[role]:
        raise DataError(f"{why}, and nothing beside it is one label each; add a column of labels")
    reading.task = OF_FILES[role][reading.task]
    reading.columns = {role: files.name} | reading.columns
    reading.reasons.append(why)
    return reading


def _is_said(column: Column) -> bool:
    """Whether a column reads as transcripts: several words, seldom the same."""
    various = len(column.counts) > len(column.texts) / 2
    return various and column.words >= (1.5 if TRANSCRIPTS.search(column.name) else 3) and not IDS.search(column.name)


def _pair(columns: Sequence[Column]) -> tuple[Column, Column] | None:
    named = {column.name.lower(): column for column in columns}
    for one, other in PAIRS:
        if one in named and other in named and min(named[one].words, named[other].words) >= 1.5:
            return named[one], named[other]
    return None


def _most_textual(columns: Sequence[Column]) -> Column | None:
    """Returns the column that reads most like texts: many words, seldom twice the same, a name that says so."""

    def weight(column: Column) -> float:
        various = len(column.counts) / max(1, len(column.texts))
        return min(column.words, 30) * (0.2 + various) * (2 if TEXTS.search(column.name) else 1)

    fitting = [column for column in columns if column.texts and not (column.is_time or column.lists)]
    fitting = [column for column in fitting if not (column.is_number or column.is_written_number)]
    fitting = [column for column in fitting if not (IDS.search(column.name) and column.words < 2)]
    fitting = [column for column in fitting if column.words >= 1.5 or TEXTS.search(column.name)] or fitting
    return max(fitting, key=weight, default=None)


def _several(columns: Sequence[Column]) -> Reading | None:
    """Several labels a row: lists, texts with a sign between the labels, or a column of 0 and 1 for each."""
    for column in columns:
        if column.are_words:
            kinds = Counter(each for value in column.lists for each in value)
            if _are_names(column, kinds):
                return _multi(column, kinds, "holds lists of labels", None)
            continue
        sign, kinds = _divided(column)
        if sign:
            return _multi(column, kinds, f"holds labels with {sign!r} between them", sign)
    flags = [column for column in columns if column.is_flag and not IDS.search(column.name)]
    if len(flags) < 2:
        return None
    kinds = Counter(
        {column.name: sum(text.lower() not in {"0", "0.0", "false", "no"} for text in column.texts) for column in flags}
    )
    reading = Reading(task="multi_label", columns={"labels": [column.name for column in flags]}, labels=kinds)
    reading.reasons.append(f"{len(flags)} columns say yes or no: {first_of([*kinds])}")
    if any(LABELS.fullmatch(column.name) for column in columns if column not in flags):
        reading.doubt(LIKELY, "there is a column of labels, too")
    return reading


def _are_names(column: Column, kinds: Iterable[str]) -> bool:
    """Whether what a column says may be labels: dates and numbers are none, unless its name says so."""
    known = [*kinds]
    return bool(LABELS.search(column.name)) or sum(any(map(str.isdigit, kind)) for kind in known) <= len(known) / 2


def _divided(column: Column) -> tuple[str, Counter[str]]:
    """Returns the sign between several labels in one cell, and the labels; no sign where a cell holds one."""
    for sign in ";|,":
        parts = [[part.strip() for part in text.split(sign) if part.strip()] for text in column.texts]
        kinds = Counter(part for each in parts for part in each)
        often = bool(kinds) and len(kinds) <= FEW and sum(kinds.values()) / len(kinds) >= 3
        if (
            often
            and sum(len(each) > 1 for each in parts) >= 0.1 * len(parts)
            and max(len(part.split()) for part in kinds) <= 3
            and _are_names(column, kinds)
        ):
            return sign, kinds
    return "", Counter()


def _multi(column: Column, kinds: Counter[str], why: str, sign: str | None) -> Reading:
    reading = Reading(task="multi_label", columns={"labels": column.name}, labels=kinds, reasons=[f"{column.name!r} {why}"])
    if sign and sign != ";":
        reading.alternatives.append(f"set delimiter: {sign!r} in conf/task/multi_label.yaml")
    if not LABELS.search(column.name):
        reading.doubt(LIKELY, f"its name, {column.name!r}, does not say that it is labels")
    return reading


def _single(columns: Sequence[Column]) -> Reading | None:
    """One label or one number a row."""
    ranked = sorted(_candidates(columns), key=lambda each: -each[0])
    if not ranked:
        return None
    _, column, task = ranked[0]
    role = _role(task)
    reading = Reading(task=task, columns={role: column.name})
    if role == "label":
        reading.labels = column.counts
        reading.reasons.append(f"{column.name!r} has {len(column.counts)} different values: {first_of([*column.counts], 4)}")
        if column.is_number and len(column.counts) > 3:
            reading.doubt(LIKELY, "they are numbers: labels without an order, or else a target")
            reading.alternatives.append(
                f"columns: {{..., target: {column.name}}} with task: text_regression learns them as numbers"
            )
    else:
        reading.reasons.append(f"{column.name!r} holds numbers, {len(column.counts)} different ones")
        if column.is_written_number:
            reading.doubt(LIKELY, f"they are written as {next(iter(column.counts))!r}: `finespun check` says how to write them")
        if not (NUMBERS.search(column.name) or LABELS.search(column.name)):
            reading.doubt(LIKELY, f"its name, {column.name!r}, does not say that it is the target")
    reading.rivals = [(other, _role(other), near.name) for weight, near, other in ranked[1:] if weight > ranked[0][0] / 2]
    if reading.rivals:
        names = first_of([repr(name) for *_, name in reading.rivals])
        reading.doubt(GUESS if ranked[1][0] > 0.9 * ranked[0][0] else LIKELY, f"{names} could be what is learnt, too")
    elif role == "label" and not (LABELS.search(column.name) or (column.is_number and NUMBERS.search(column.name))):
        reading.doubt(LIKELY, f"its name, {column.name!r}, does not say that it is labels")
    return reading


def _role(task: str) -> str:
    return "target" if task == "text_regression" else "label"


def _values(column: Column) -> str:
    """Returns a column's name, and its value if it has one alone: nothing can be told apart by it."""
    return f"{column.name} (all {next(iter(column.counts))!r})" if len(column.counts) == 1 else column.name


def _candidates(columns: Sequence[Column]) -> Iterator[tuple[float, Column, str]]:
    """Yields weight, column and task of each column that could be what is learnt."""
    for column in columns:
        count, kinds = len(column.texts), len(column.counts)
        if kinds < 2 or (IDS.search(column.name) and column.is_unique) or column.is_time or column.is_split:
            continue
        fraction = (column.is_number and not column.is_whole) or column.is_written_number
        repeated = count / kinds
        if (
            (column.is_number or fraction)
            and (fraction or kinds > 20)
            and kinds > 5
            and not (column.is_whole and _counts_on(column))
        ):
            weight = (4.0 if NUMBERS.search(column.name) else 1.0) * (1.5 if fraction else 1.0)
            yield weight * (0.2 if IDS.search(column.name) or GROUPS.search(column.name) else 1.0), column, "text_regression"
        elif kinds <= FEW and repeated >= 2 and column.longest <= 60 and column.words <= 5:
            weight = 6.0 if LABELS.search(column.name) else 4.0 if column.is_number and NUMBERS.search(column.name) else 2.0
            weight *= 0.3 if GROUPS.search(column.name) else 1.0
            weight *= 0.5 if column.is_number and not LABELS.search(column.name) and not NUMBERS.search(column.name) else 1.0
            exact = 1.5 if column.name.lower() in {"label", "class", "category", "sentiment", "target"} else 1.0
            yield weight * exact * (1.2 if repeated >= 5 else 1.0), column, "text_classification"


def _nothing_to_learn(beside: Sequence[Column], columns: Sequence[Column]) -> DataError:
    return DataError(
        "no column looks like what is to be learnt (few different values, or numbers); the columns beside the texts are"
        f" {first_of([_values(column) for column in beside]) or 'none'}{_objects(columns)}; say --task TASK --column label=NAME"
        " if one is"
    )


def _objects(columns: Sequence[Column]) -> str:
    """Says which columns hold objects, whose fields cannot be columns as they are."""
    found = [f"{column.name} ({first_of(column.fields, 4)})" for column in columns if column.fields]
    return f"; objects are in {first_of(found)}: write each of their fields that is needed as a column" if found else ""


def _counts_on(column: Column) -> bool:
    """Whether whole numbers only number the rows."""
    numbers = [float(text) for text in column.texts if NUMBER.fullmatch(text)]
    return numbers == sorted(numbers) and len({*numbers}) == len(numbers)


def _add_splits(reading: Reading, columns: Sequence[Column]) -> None:
    """Adds columns that decide on splits: those that name one; groups and times are only offered."""
    used = {name for given in reading.columns.values() for name in ([given] if isinstance(given, str) else given)}
    rest = [column for column in columns if column.name not in used]
    named = next((column for column in rest if column.is_split), None)
    if named:
        reading.columns["split"] = named.name
        reading.reasons.append(f"{named.name!r} names splits: {first_of(sorted(named.counts))}")
    for column in rest:
        repeated = len(column.texts) / max(1, len(column.counts))
        if GROUPS.search(column.name) and repeated >= 1.5 and len(column.counts) > 5:
            reading.alternatives.append(f"group: {column.name} under columns keeps all rows of one {column.name} in one split")
        elif column.is_time:
            reading.alternatives.append(f"time: {column.name} under columns, and split: {{by: time}}, test on the newest rows")
