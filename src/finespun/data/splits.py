"""Which split a row falls into: by a hash of its content or group, by label, by time, or as given; cross-validation.

By a hash, duplicates (or the rows of a group) stay together, and new rows move no old ones.
"""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from finespun.config.sections import DataConfig, Split
from finespun.data.cells import NUMBER
from finespun.data.row_table import RowTable

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
LEFT_OUT = 255
GIVEN = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
    "testing": TEST,
}
Codes = NDArray[np.uint8]


def normalise(text: str) -> str:
    """Returns the text as a reader would call it the same: Unicode NFKC, no case, single spaces."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def hashed(content: str, seed: int) -> int:
    """Returns 64 bits of a group or of normalised content: a function of both alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{content}".encode(), digest_size=8).digest(), "big")


def position(content: str, seed: int) -> float:
    """Returns a row's place in [0, 1): spread evenly over contents, the same wherever and whenever it is asked for."""
    return hashed(content, seed) / 2**64


def split_of(content: str, split: Split) -> str:
    """Returns train, val or test for a row's group or normalised content, compared with the cumulated shares."""
    place = position(content, split.seed)
    if place < split.train:
        return "train"
    return "val" if place < split.train + split.val else "test"


def given_split(text: str) -> int | None:
    """Returns the split that a cell names; None where it names none."""
    return GIVEN.get(text.strip().lower())


def time_of(text: str) -> float | None:
    """Returns what a cell says of time as a number that grows with it: an ISO 8601 date or time, or a plain number."""
    plain = text.strip()
    if NUMBER.fullmatch(plain) and len(plain) != len("20240131"):
        return float(plain)
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        return float(plain) if NUMBER.fullmatch(plain) else None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Assigned:
    """The split of each row that is kept, for a reader that goes through the rows in order."""

    def __init__(self, rows: RowTable, codes: Codes) -> None:
        self.numbers, self.codes = rows.numbers, codes
        self._next = 0

    def of(self, number: int) -> str | None:
        """Returns the split of a row; None where it is left out."""
        numbers = self.numbers
        if self._next < len(numbers) and numbers[self._next] < number:
            self._next = bisect_left(numbers, number, self._next + 1)
        if self._next == len(numbers) or numbers[self._next] != number:
            return None
        code = self.codes[self._next]
        return None if code == LEFT_OUT else SPLITS[code]


def assign(rows: RowTable, data: DataConfig) -> Codes:
    """Returns the split of each row: a position in `SPLITS`."""
    places = rows.hashes().astype(np.float64) / 2**64
    if data.split_by == "stratified":
        return _stratified(rows, places, data)
    if data.split_by == "time":
        return _by_time(np.frombuffer(rows.times), data.split)
    if data.split_by == "given":
        return _given(np.frombuffer(rows.given, np.uint8), places, data)
    codes = _by_place(places, data.split.train, data.split.train + data.split.val)
    return codes if data.fold is None else _folded(codes, places / (1 - data.split.test or 1), data.fold, data.folds)


def _by_place(places: NDArray[np.float64], train: float, until_test: float) -> Codes:
    return (places >= train).astype(np.uint8) + (places >= max(train, until_test))


def _folded(codes: Codes, places: NDArray[np.float64], fold: int, folds: int) -> Codes:
    """Returns splits where one part of all rows but those of the test split validates, and the rest trains."""
    part = np.minimum(places * folds, folds - 1).astype(int)
    return np.where(codes == TEST, TEST, np.where(part == fold, VAL, TRAIN)).astype(np.uint8)


def _given(given: Codes, places: NDArray[np.float64], data: DataConfig) -> Codes:
    """Takes what is given; a split that no row names takes its share of the training rows."""
    missing = {*range(3)} - {*given.tolist()}
    shares = [
        data.split.train,
        *(share if code in missing else 0.0 for code, share in ((VAL, data.split.val), (TEST, data.split.test))),
    ]
    train, val, _ = np.cumsum(shares) / (sum(shares) or 1)
    codes = np.where(given == TRAIN, _by_place(places, train, val), given).astype(np.uint8)
    return codes if data.fold is None else _folded(codes, places, data.fold, data.folds)


def _by_time(times: NDArray[np.float64], split: Split) -> Codes:
    """Cuts after the shares of the rows, between two times: rows of one time stay together."""
    ordered = np.sort(times)
    cuts = [ordered[min(len(ordered) - 1, round(share * len(ordered)))] for share in (split.train, split.train + split.val)]
    return _by_place(times, cuts[0], cuts[1]) if len(times) else times.astype(np.uint8)


def rarest_labels(rows: RowTable) -> NDArray[np.int64]:
    """Returns a stratum for each row: the rarest of its labels, as a place among all labels; rows without one are a stratum."""
    kinds = np.frombuffer(rows.kinds, np.uint32)
    counts: Counter[str] = Counter()
    for names, count in zip(rows.answers, np.bincount(kinds, minlength=len(rows.answers)).tolist(), strict=True):
        counts.update(dict.fromkeys(names, count))
    order = {name: place for place, name in enumerate(sorted(counts, key=lambda name: (counts[name], name)), 1)}
    strata = np.array([min((order[name] for name in names), default=0) for names in rows.answers], np.int64)
    return strata[kinds]


def _stratified(rows: RowTable, places: NDArray[np.float64], data: DataConfig) -> Codes:
    """Cuts each stratum by itself, in the order of places: what has one place (duplicates, a group) is cut as one."""
    unique, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    strata = rarest_labels(rows)[first]
    codes = np.zeros(len(unique), np.uint8)
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)  # in the order of their places
        train, val, _ = _whole(len(mine), (data.split.train, data.split.val, data.split.test))
        ranks = np.arange(len(mine))
        codes[mine] = _by_place(ranks.astype(np.float64), train, train + val)
        if data.fold is not None:
            codes[mine] = _folded(codes[mine], ranks / max(1, train + val), data.fold, data.folds)
    return codes[inverse]


def _whole(count: int, shares: Sequence[float]) -> list[int]:
    """Divides rows by shares; while there are enough, each share that is not 0 has one; the first has what is left."""
    wanted = [split for split in (TRAIN, TEST, VAL) if shares[split]]
    parts = [0, 0, 0]
    for split in wanted[:count]:
        parts[split] = 1
    for split in (TEST, VAL):
        if parts[split] and count >= len(wanted):
            parts[split] = max(1, round(shares[split] * count))
    while sum(parts) > count:
        parts[max((VAL, TEST), key=lambda split: parts[split])] -= 1
    first = wanted[0] if wanted else TRAIN
    parts[first] += count - sum(parts)
    return parts


def leaks(rows: RowTable, codes: Codes) -> list[tuple[int, int]]:
    """Returns places of rows with the same content in two splits: the one to leave out, and the other.

    The test split keeps its rows, then validation: what leaks is left out of what is trained on.
    """
    contents = np.frombuffer(rows.contents, np.uint64)
    kept = np.flatnonzero(codes != LEFT_OUT)
    order = kept[np.lexsort((-codes[kept].astype(np.int64), contents[kept]))]  # of one content, the test split first
    starts = np.flatnonzero(np.diff(contents[order], prepend=~contents[order[:1]]))
    firsts = order[np.repeat(starts, np.diff(starts, append=len(order)))]
    leaking = codes[order] != codes[firsts]
    return sorted(zip(order[leaking].tolist(), firsts[leaking].tolist(), strict=True))
