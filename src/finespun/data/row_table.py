"""The rows that may be kept, as arrays: some thirty bytes a row, so that a file of any size can be looked at whole."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

NO_TIME = float("nan")
FEWEST_SLOTS = 1024


class RowTable:
    """Numbers, contents, answers and what decides the split of rows, in the order of the file.

    Contents are known by a hash of 64 bits, and rows with the same content are found by a table of their places.
    """

    def __init__(self) -> None:
        self.numbers = array("I")  # of rows, as the source counts them
        self.contents = array("Q")
        self.keys = array("Q")  # of groups, where there are some
        self.targets = array("I")  # checksums of answers
        self.kinds = array("I")  # places in `answers`
        self.times = array("d")
        self.given = array("B")
        self.answers: list[tuple[str, ...]] = []  # each set of labels that a row gives
        self._kinds: dict[tuple[str, ...], int] = {}
        self._slots = array("I", bytes(4 * FEWEST_SLOTS))  # 1 + the place of a row; 0: free

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, content: int) -> int | None:
        """Returns the place of the first row with a content; None where there is none."""
        place = self._slots[self._slot(content)]
        return place - 1 if place else None

    def add(self, number: int, *, content: int, target: str, answers: Sequence[str]) -> None:
        """Takes a row; what decides its split is added to `keys`, `times` or `given`."""
        slot = self._slot(content)
        self.numbers.append(number)
        self.contents.append(content)
        self.targets.append(crc32(target.encode()))
        self.kinds.append(self._kind(answers))
        if not self._slots[slot]:
            self._slots[slot] = len(self)
            if 2 * len(self) > len(self._slots):
                self._grow()

    def complete(self) -> None:
        """Gives back the memory that finding rows by their content takes: nothing is added any more."""
        self._slots = array("I", bytes(4))

    def same_target(self, place: int, target: str) -> bool:
        """Whether the row at a place has an answer."""
        return self.targets[place] == crc32(target.encode())

    def _kind(self, answers: Sequence[str]) -> int:
        names = tuple(sorted({*answers}))
        kind = self._kinds.setdefault(names, len(self.answers))
        if kind == len(self.answers):
            self.answers.append(names)
        return kind

    def _slot(self, content: int) -> int:
        slots, contents = self._slots, self.contents
        mask = len(slots) - 1
        slot = content & mask
        while slots[slot] and contents[slots[slot] - 1] != content:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        slots = array("I", bytes(4 * 2 * len(self._slots)))
        mask = len(slots) - 1
        for place, content in enumerate(self.contents, 1):
            slot = content & mask
            while slots[slot] and self.contents[slots[slot] - 1] != content:
                slot = (slot + 1) & mask
            slots[slot] = slots[slot] or place
        self._slots = slots

    def hashes(self) -> NDArray[np.uint64]:
        """What decides where a row falls: its group where there are groups, else its content."""
        return np.frombuffer(self.keys or self.contents, np.uint64)

    def with_label(self, label: str) -> NDArray[np.bool_]:
        """Returns which rows give a label."""
        having = np.array([label in names for names in self.answers])
        return np.asarray(having[np.frombuffer(self.kinds, np.uint32)])
