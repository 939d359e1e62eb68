"""Rows that the model got wrong, as a person reads them: the surest mistakes, or the largest errors, first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

import pyarrow as pa

LONGEST = 600  # characters of a text that are shown
MOST = 500  # rows on a page
TEXTS = ("text", "text_pair", "image", "audio")
Marked = tuple[str, str, str]  # a word, what it is, what it was taken for
Parts = tuple[tuple[str, bool], ...]  # pieces of a text, and whether the other text has them too


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One row: `weight` orders them, `said` is its meaning in words; of texts, `sides` are target and prediction in parts."""

    row: int
    text: str
    actual: str
    predicted: str
    weight: float
    said: str
    words: tuple[Marked, ...] = ()
    sides: tuple[Parts, Parts] | None = None


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """The mistakes of a split: how many there are, and those that are shown."""

    count: int
    rows: int
    shown: tuple[Mistake, ...]
    weighed: str  # what their order is by


def found(predictions: pa.Table, labels: Sequence[str]) -> Mistakes:
    """Returns the mistakes in a table of predictions, of whichever task it is."""
    names = set(predictions.column_names)
    numbers = [name for name in predictions.column_names if f"predicted_{name}" in names]
    for columns, kind, weighed in KINDS:
        if columns <= names:
            return _ranked(predictions, kind(predictions), weighed)
    if numbers and not labels_are_classes(labels, numbers):
        return _ranked(predictions, _numbers(predictions, numbers), "the size of the error")
    return Mistakes(count=0, rows=predictions.num_rows, shown=(), weighed="")


def labels_are_classes(labels: Sequence[str], numbers: Sequence[str]) -> bool:
    """Whether columns that look like predicted numbers are something else."""
    return bool(labels) and not set(numbers) <= set(labels)


def _ranked(predictions: pa.Table, mistakes: Iterator[Mistake], weighed: str) -> Mistakes:
    ranked = sorted(mistakes, key=lambda each: -each.weight)
    return Mistakes(count=len(ranked), rows=predictions.num_rows, shown=tuple(ranked[:MOST]), weighed=weighed)


def _text(row: Mapping[str, Any]) -> str:
    whole = " | ".join(str(row[name]) for name in TEXTS if row.get(name) is not None)
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"


def _rows(predictions: pa.Table, *names: str) -> Iterator[tuple[int, dict[str, Any]]]:
    kept = [name for name in ("row", *TEXTS, *names) if name in predictions.column_names]
    yield from enumerate(predictions.select(kept).to_pylist())


def _one_label(predictions: pa.Table) -> Iterator[Mistake]:
    for place, row in _rows(predictions, "label", "predicted"):
        if row["label"] == row["predicted"]:
            continue
        name = f"probability/{row['predicted']}"
        chance = float(predictions[name][place].as_py()) if name in predictions.column_names else 0.0
        yield Mistake(
            row=row.get("row", place), text=_text(row), actual=row["label"], predicted=row["predicted"], weight=chance,
            said=f"{chance:.1%} sure",
        )  # fmt: skip


def _several(predictions: pa.Table) -> Iterator[Mistake]:
    for place, row in _rows(predictions, "labels", "predicted"):
        wrong = set(row["labels"]) ^ set(row["predicted"])
        if wrong:
            yield Mistake(
                row=row.get("row", place), text=_text(row), actual=", ".join(row["labels"]) or "none",
                predicted=", ".join(row["predicted"]) or "none", weight=len(wrong), said=f"{len(wrong)} wrong",
            )  # fmt: skip


def _numbers(predictions: pa.Table, names: Sequence[str]) -> Iterator[Mistake]:
    wanted = [each for name in names for each in (name, f"predicted_{name}")]
    for place, row in _rows(predictions, *wanted):
        errors = {name: row[f"predicted_{name}"] - row[name] for name in names}
        worst = max(errors, key=lambda name: abs(errors[name]))
        yield Mistake(
            row=row.get("row", place), text=_text(row), actual=", ".join(f"{row[name]:.4g}" for name in names),
            predicted=", ".join(f"{row[f'predicted_{name}']:.4g}" for name in names), weight=abs(errors[worst]),
            said=f"off by {errors[worst]:+.3g}",
        )  # fmt: skip


def _texts(predictions: pa.Table) -> Iterator[Mistake]:
    known = {"row", "target", "predicted", "rougeL"}
    sources = [name for name in predictions.column_names if name not in known]
    for row, found in _written(predictions, sources):
        yield replace(found, weight=1 - row["rougeL"], said=f"ROUGE-L {row['rougeL']:.2f}")


def _transcripts(predictions: pa.Table) -> Iterator[Mistake]:
    for row, found in _written(predictions, ["audio"]):
        yield replace(found, weight=row["wer"], said=f"word error rate {row['wer']:.2f}")


def _written(predictions: pa.Table, sources: Sequence[str]) -> Iterator[tuple[dict[str, Any], Mistake]]:
    """Yields rows whose prediction is another text than the target, both in parts that they share or not."""
    for place, row in enumerate(predictions.to_pylist()):
        target, predicted = row["target"], row["predicted"]
        if target.strip() != predicted.strip():
            yield row, Mistake(
                row=row.get("row", place), text=_cut(" | ".join(str(row[name]) for name in sources)), actual=target,
                predicted=predicted, weight=0.0, said="", sides=side_by_side(target, predicted),
            )  # fmt: skip


def side_by_side(one: str, other: str) -> tuple[Parts, Parts]:
    """Returns two texts in parts of whole words: those that both have in the same order, and those that only one has."""
    words = one.split(), other.split()
    found: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for kind, *places in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, text, (start, end) in zip(found, words, (places[:2], places[2:]), strict=True):
            if start < end:
                side.append((" ".join(text[start:end]), kind == "equal"))
    return tuple(found[0]), tuple(found[1])


def _rankings(predictions: pa.Table) -> Iterator[Mistake]:
    """Yields queries whose first item is not the expected one, the hardest first: nothing expected was found at all."""
    for place, row in enumerate(predictions.to_pylist()):
        if row["place"] == 1:
            continue
        said = f"expected at place {row['place']:,}" if row["place"] else "expected was not found"
        first = (f"{number}. {name}" for number, name in enumerate(row["found"][:3], 1))
        expected, found = _cut(" | ".join(row["expected"])), _cut("\n".join(first))
        yield Mistake(
            row=row.get("row", place), text=_cut(row["query"]), actual=expected, predicted=found,
            weight=float(row["place"] or 1e9), said=said, sides=(((expected, True),), ((found, True),)),
        )  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _tags(predictions: pa.Table) -> Iterator[Mistake]:
    for place, row in _rows(predictions, "words", "tags", "predicted"):
        words = tuple(zip(row["words"], row["tags"], row["predicted"], strict=True))
        wrong = [each for each in words if each[1] != each[2]]
        if wrong:
            yield Mistake(
                row=row.get("row", place), text=_text(row), actual=", ".join(dict.fromkeys(tag for _, tag, _ in wrong)),
                predicted=", ".join(dict.fromkeys(tag for _, _, tag in wrong)), weight=len(wrong),
                said=f"{len(wrong)} of {len(words)} words", words=words[:200],
            )  # fmt: skip


KINDS: tuple[tuple[set[str], Callable[[pa.Table], Iterator[Mistake]], str], ...] = (
    ({"tags", "predicted", "words"}, _tags, "words that are wrong"),
    ({"label", "predicted"}, _one_label, "the probability of the wrong label"),
    ({"target", "predicted", "rougeL"}, _texts, "how little the texts share (ROUGE-L)"),
    ({"target", "predicted", "wer"}, _transcripts, "the word error rate"),
    ({"query", "expected", "found", "place"}, _rankings, "how late the expected item came"),
    ({"labels", "predicted"}, _several, "labels that are wrong"),
)
