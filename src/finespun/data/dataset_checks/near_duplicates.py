"""Texts that are nearly the same in two splits, found by MinHash (Broder, 1997) and confirmed by their shingles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from finespun.config.sections import DataConfig
from finespun.data.check_report import Problem, Report, short
from finespun.data.splits import normalise
from finespun.tasks.base import Task, main_role

if TYPE_CHECKING:
    from finespun.data.dataset_checks.examine import Sampled

ALIKE = 0.8  # Jaccard similarity of shingles
SHINGLE = 5  # characters
SHORTEST = 40  # characters; shorter texts are alike by chance
LONGEST = 2_000  # characters that are compared
PERMUTATIONS = 64


def check(sample: Sequence[Sampled], data: DataConfig, task: Task, report: Report) -> None:
    """Adds each held-out row of the sample that a row of another split is nearly the same as."""
    if main_role(task) != "text":
        return
    texts = {each.number: normalise(task.content(each.values)) for each in sample}
    long = [each for each in sample if len(texts[each.number]) >= SHORTEST]
    held_out = [each for each in long if each.split != "train"]
    if not held_out:
        return
    column = str(data.columns["text"])
    for each, other, share in _pairs(held_out, long, texts):
        near = f"row {report.called(other.number)} in {other.split}"
        remedy = (
            f"is in {each.split}, and nearly the same ({share:.0%}) as {near}; remove one, or keep such rows together with"
            " columns.group"
        )
        report.add(
            [
                Problem(
                    kind="near_duplicate", severity=data.checks.near_duplicate, line=each.number, column=column,
                    value=short(texts[each.number]), remedy=remedy,
                )
            ]
        )  # fmt: skip


def _pairs(held_out: Sequence[Sampled], rows: Sequence[Sampled], texts: dict[int, str]) -> list[tuple[Sampled, Sampled, float]]:
    from datasketch import MinHash, MinHashLSH  # noqa: PLC0415  (0.2 s that images need not pay)

    index = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS)
    known = {each.number: each for each in held_out}
    shingles = {each.number: _shingles(texts[each.number]) for each in held_out}
    options = {"num_perm": PERMUTATIONS, "seed": 1, "hashfunc": crc32}
    hashes = dict(zip(shingles, MinHash.generator(shingles.values(), **options), strict=True))
    for number, minhash in hashes.items():
        index.insert(number, minhash)
    found: dict[int, tuple[Sampled, Sampled, float]] = {}
    for each in rows:
        mine = shingles.get(each.number) or _shingles(texts[each.number])
        minhash = hashes.get(each.number) or next(MinHash.generator([mine], **options))
        for number in index.query(minhash):
            other = known[number]
            if other.split == each.split or number in found or texts[number] == texts[each.number]:
                continue
            share = len(mine & shingles[number]) / len(mine | shingles[number])
            if share >= ALIKE:
                found[number] = (other, each, share)
    return [found[number] for number in sorted(found)]


def _shingles(text: str) -> set[bytes]:
    text = text[:LONGEST]
    return {text[start : start + SHINGLE].encode() for start in range(len(text) - SHINGLE + 1)}
