"""Examples of what goes wrong: the most frequent confusions, and the worst mistakes with training rows like them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from finespun.report.mistakes import LONGEST, TEXTS

PAIRS, EXAMPLES = 6, 3
STARTS = ("▁", "Ġ")  # of a token that begins a word, where tokens that do not begin one are bare
GOES_ON = "##"  # of a token that does not, where those that do are bare


def confusions(predictions: pa.Table) -> list[dict[str, Any]]:
    """Returns the most frequent pairs of an actual and a predicted label, with the surest rows of each."""
    if not {"label", "predicted"} <= set(predictions.column_names):
        return []
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, pair in enumerate(zip(predictions["label"].to_pylist(), predictions["predicted"].to_pylist(), strict=True)):
        if pair[0] != pair[1]:
            rows[pair].append(place)
    common = Counter({pair: len(places) for pair, places in rows.items()}).most_common(PAIRS)
    return [
        {"actual": actual, "predicted": predicted, "count": count,
         "examples": _surest(predictions, predicted, rows[actual, predicted])}
        for (actual, predicted), count in common
    ]  # fmt: skip


def _surest(predictions: pa.Table, predicted: str, places: Sequence[int]) -> list[dict[str, Any]]:
    name = f"probability/{predicted}"
    chances = predictions[name].take(places).to_pylist() if name in predictions.column_names else [0.0] * len(places)
    best = sorted(zip(places, chances, strict=True), key=lambda pair: -pair[1])[:EXAMPLES]
    kept = predictions.select([each for each in ("row", *TEXTS) if each in predictions.column_names])
    rows = kept.take([place for place, _ in best]).to_pylist()
    return [{"row": row.get("row", place), "text": said(row), "chance": chance}
            for row, (place, chance) in zip(rows, best, strict=True)]  # fmt: skip


def said(row: Mapping[str, Any]) -> str:
    """Returns the texts of a row, or the names of its images, cut where they are long."""
    whole = " | ".join(str(row[name]) for name in TEXTS if row.get(name) is not None)
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"


def worst(details: Mapping[str, Any], shown: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the worst mistakes with their neighbours and explanations; `shown` has what is said of each row."""
    by_row = {each.row: each for each in shown}
    return [
        {**found, "mistake": by_row[found["row"]], "pieces": pieces(found.get("explanation"))}
        for found in details.get("worst", ())
        if found["row"] in by_row
    ]


def pictures(details: Mapping[str, Any]) -> dict[int, str]:
    """Returns the pictures of the worst mistakes by row."""
    return {found["row"]: found["picture"] for found in details.get("worst", ()) if "picture" in found}


def pieces(explanation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Returns the tokens of an explained text as they are read: `text`, `share` (0 to 1 of the largest) and `score`."""
    if not explanation or not explanation["tokens"]:
        return []
    tokens, scores = explanation["tokens"], explanation["scores"]
    largest = max(map(abs, scores)) or 1.0
    bare = any(token.startswith(STARTS) for token in tokens)
    return [
        {"text": _readable(token, bare=bare), "share": abs(score) / largest, "score": score}
        for token, score in zip(tokens, scores, strict=True)
    ]


def _readable(token: str, *, bare: bool) -> str:
    if bare:
        return f" {token[1:]}" if token.startswith(STARTS) else token
    return token.removeprefix(GOES_ON) if token.startswith(GOES_ON) else f" {token}"
