"""Tags and the entities that they spell: every scheme is read as seqeval's default mode reads it; one of them is written.

An entity is (type, first word, word after its last). Prefixes: B begins, I goes on, E (or L) ends, S (or U) is a word alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from finespun.errors import did_you_mean

Entity = tuple[str, int, int]
Scheme = Literal["bio", "bioes", "io", "plain"]
OUTSIDE = "O"
PREFIXES: Mapping[str, str] = {"bio": "BI", "bioes": "BIES", "io": "I"}
TAG = re.compile(r"([BIESLUM])(?:-(.+))?")
SAME = {"L": "E", "U": "S", "M": "I"}  # as BILOU and BMES call them
UNNAMED = "_"  # the type of a bare B or I, as in seqeval


def parted(tag: str) -> tuple[str, str]:
    """Returns prefix and type of a tag; what is no tag of any scheme is outside."""
    found = TAG.fullmatch(tag)
    return (SAME.get(found[1], found[1]), found[2] or UNNAMED) if found else (OUTSIDE, "")


def entities(tags: Sequence[str]) -> list[Entity]:
    """Returns what tags of any scheme spell: an I that follows nothing of its type begins an entity, as in seqeval."""
    found = []
    before, kind, start = OUTSIDE, "", 0
    for position, tag in enumerate((*tags, OUTSIDE)):
        prefix, of = parted(tag)
        ends = before != OUTSIDE and (before in "ES" or prefix in "BSO" or of != kind)
        if ends:
            found.append((kind, start, position))
        if ends or before == OUTSIDE:
            start = position
        before, kind = prefix, of
    return found


def faultless(tags: Sequence[str], scheme: str) -> list[Entity]:
    """Returns the entities of which every tag is the scheme's own: seqeval's strict mode."""
    return [each for each in entities(tags) if list(tags[each[1] : each[2]]) == _spelt(each, scheme)]


def tags_of(found: Iterable[Entity], words: int, scheme: str) -> list[str]:
    """Returns a tag for each of so many words."""
    tags = [OUTSIDE] * words
    for each in found:
        tags[each[1] : each[2]] = _spelt(each, scheme)
    return tags


def _spelt(entity: Entity, scheme: str) -> list[str]:
    kind, start, end = entity
    prefixes = "I" * (end - start)
    if scheme != "io":
        prefixes = "B" + prefixes[1:]
    if scheme == "bioes":
        prefixes = "S" if end - start == 1 else prefixes[:-1] + "E"
    return [_tag(prefix, kind) for prefix in prefixes]


def _tag(prefix: str, kind: str) -> str:
    return prefix if kind == UNNAMED else f"{prefix}-{kind}"


def names(types: Iterable[str], scheme: str) -> list[str]:
    """Returns the tags of a scheme for some types, `O` first."""
    return [OUTSIDE, *(_tag(prefix, kind) for kind in sorted(types) for prefix in PREFIXES[scheme])]


def unnamed(tags: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    """Yields, as a remedy, the first word whose tag is empty."""
    for number, (tag, word) in enumerate(zip(tags, words, strict=False), 1):
        if not tag:
            yield f"word {number} ({word!r}) has an empty tag; write it, or set data.checks.bad_target: drop"
            return


def malformed(tags: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    """Yields what is wrong with tags of some scheme, as a remedy: those that are none."""
    good = {tag for tag in tags if tag == OUTSIDE or TAG.fullmatch(tag)}
    for number, (tag, word) in enumerate(zip(tags, words, strict=False), 1):
        if tag not in good:
            why = "is a number, not the name of a tag" if tag.isdigit() else f"is neither {OUTSIDE} nor B-TYPE or I-TYPE"
            near = [each for each in (tag.replace("_", "-", 1), tag.upper()) if TAG.fullmatch(each)]
            hint = f" (did you mean '{near[0]}'?)" if near else did_you_mean(tag, good)
            yield (
                f"word {number} ({word!r}): tag {tag!r} {why}{hint}; correct it, or set task.scheme: plain if the tags are"
                " no entities"
            )
            return


def transitions(tags: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    """Yields the first tag that goes on with nothing, in a row that has tags to begin with; `I` alone is a scheme, too."""
    prefixes = [parted(tag)[0] for tag in tags]
    if not set(prefixes) & {"B", "S"}:
        return
    for _, start, _ in entities(tags):
        if prefixes[start] in "IE":
            before = tags[start - 1] if start else "the row's beginning"
            yield (
                f"word {start + 1} ({words[start]!r}): {tags[start]} follows {before}: it is read as the beginning of an"
                " entity; correct one of the tags, or set data.checks.bad_transition: drop"
            )
            return


def as_span(given: Any) -> tuple[int, int, str] | None:
    """Returns (start, end, label) of a span as doccano, Label Studio or spaCy write it, or None for anything else."""
    if isinstance(given, Mapping):
        labels = next((given[key] for key in ("label", "labels", "type", "entity") if key in given), None)
        label = labels[0] if isinstance(labels, list) and len(labels) == 1 else labels
        given = [given.get("start", given.get("start_offset")), given.get("end", given.get("end_offset")), label]
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 3:
        return None
    if not isinstance(given[2], str) or not given[2].strip():
        return None
    numbers = [str(each) for each in given[:2]]
    return (int(numbers[0]), int(numbers[1]), given[2]) if all(re.fullmatch(r"-?\d+", each) for each in numbers) else None


def span_problems(text: str, spans: Sequence[Any], words: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yields what is wrong with spans of a text, as remedies."""
    taken: list[tuple[int, int, str]] = []
    for number, given in enumerate(spans, 1):
        span = as_span(given)
        if span is None:
            yield f'span {number} ({given}) is not a span; write {{"start": 0, "end": 5, "label": "PER"}} or [0, 5, "PER"]'
            continue
        start, end, label = span
        said = f"span {number} ({start} to {end}, {label})"
        over = next((each for each in taken if each[0] < end and start < each[1] and each != span), None)
        cut = next((text[a:b] for a, b in touched(words, start, end) if a < start or end < b), None)
        if not 0 <= start < end <= len(text):
            yield f"{said} is not inside the text, whose characters are 0 to {len(text)}; correct start and end"
        elif not text[start:end].strip():
            yield f"{said} holds no word; remove it"
        elif over:
            yield f"{said} overlaps {over[0]} to {over[1]}, {over[2]}, and a word has one tag; remove one of them"
        elif cut:
            yield (
                f"{said} begins or ends inside the word {cut!r}; move it to the word's border, or set data.checks.bad_target:"
                " warn to take whole words"
            )
        taken.append(span)


def touched(words: Sequence[tuple[int, int]], start: int, end: int) -> Sequence[tuple[int, int]]:
    """Returns the words of which a span has a character."""
    return words[bisect_right(words, start, key=itemgetter(1)) : bisect_left(words, end, key=itemgetter(0))]


def in_words(spans: Iterable[Any], words: Sequence[tuple[int, int]]) -> list[Entity]:
    """Returns the entities of spans, as words that they touch; of two that share a word the first, of what is no span none."""
    found: list[Entity] = []
    for start, end, label in sorted(span for span in map(as_span, spans) if span):
        inside = touched(words, start, end)
        first = bisect_left(words, inside[0]) if inside else 0
        if inside and (not found or first >= found[-1][2]):
            found.append((label, first, first + len(inside)))
    return found
