"""Texts that are nearly the same in two splits, found by MinHash (Broder, 1997) and confirmed by their shingles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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
BASE, SPREAD = np.uint64(1_000_003), np.uint64(0x9E3779B97F4A7C15)


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
    options = {"num_perm": PERMUTATIONS, "seed": 1, "hashfunc": int}
    hashes = dict(zip(shingles, MinHash.generator((each.tolist() for each in shingles.values()), **options), strict=True))
    for number, minhash in hashes.items():
        index.insert(number, minhash)
    found: dict[int, tuple[Sampled, Sampled, float]] = {}
    for each in rows:
        mine = shingles[each.number] if each.number in shingles else _shingles(texts[each.number])
        minhash = hashes.get(each.number) or next(MinHash.generator([mine.tolist()], **options))
        for number in index.query(minhash):
            other = known[number]
            if other.split == each.split or number in found or texts[number] == texts[each.number]:
                continue
            common = len(np.intersect1d(mine, shingles[number], assume_unique=True))
            share = common / (len(mine) + len(shingles[number]) - common)
            if share >= ALIKE:
                found[number] = (other, each, share)
    return [found[number] for number in sorted(found)]


def _shingles(text: str) -> NDArray[np.uint64]:
    """Returns 32-bit hashes of all runs of so many characters, each once."""
    codes = np.frombuffer(text[:LONGEST].encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashes = codes[: 1 - SHINGLE]
    for place in range(1, SHINGLE):
        hashes = hashes * BASE + codes[place : len(codes) - SHINGLE + 1 + place]
    return np.unique(hashes * SPREAD >> np.uint64(32))
