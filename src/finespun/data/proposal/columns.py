"""What each column of a table holds, from some of its rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finespun.data.cells import NUMBER, as_text, is_blank, is_list, read_list, yes_or_no
from finespun.data.sources import image_folder
from finespun.data.sources.tables import Row
from finespun.data.splits import given_split, time_of

IMAGES = re.compile(r".+\.(avif|bmp|gif|jpe?g|png|p[gp]m|tiff?|webp)|data:image/.+", re.IGNORECASE | re.DOTALL)
# A number as people write it: 12,50, 1.234,5 and $5.99.
WRITTEN = re.compile(r"[$€£¥]?\s?[+-]?(\d+|\d{1,3}([.,' ]\d{3})+)([.,]\d+)?\s?(%|[$€£¥]|EUR|USD|GBP|CHF)?")
SOUNDS = re.compile(rf".+\.({'|'.join(ending[1:] for ending in image_folder.SOUNDS)})|data:audio/.+", re.IGNORECASE | re.DOTALL)
MOSTLY = 0.9


@dataclass(frozen=True)
class Column:
    """A column's name and some of its values, as the checks see them: texts, lists of texts, objects."""

    name: str
    values: Sequence[Any]

    @cached_property
    def given(self) -> list[Any]:
        """The values that are something."""
        return [value for value in self.values if not (isinstance(value, str) and is_blank(value)) and value not in ([], {})]

    @cached_property
    def texts(self) -> list[str]:
        return [value.strip() for value in self.given if isinstance(value, str)]

    def share(self, test: Any) -> float:
        """Share of the given values, as texts, that pass a test."""
        return sum(bool(test(text)) for text in self.texts) / len(self.given) if self.given else 0.0

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.texts)

    @cached_property
    def words(self) -> float:
        """Mean number of words; a language without blanks has one for each two characters."""
        return sum(max(len(text.split()), sum(ord(each) > 0x2E80 for each in text) / 2) for text in self.texts) / max(
            1, len(self.texts)
        )

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.texts), default=0)

    @cached_property
    def is_number(self) -> bool:
        return self.share(NUMBER.fullmatch) >= MOSTLY

    @cached_property
    def is_written_number(self) -> bool:
        """Whether it holds numbers, though not as programs write them: `data.checks` says how to."""
        return not self.is_number and self.share(WRITTEN.fullmatch) >= MOSTLY

    @cached_property
    def fields(self) -> list[str]:
        """Names in its objects, where it holds objects, or lists of them."""
        parts = [each for value in self.given for each in (value if isinstance(value, list) else [value])]
        return list(dict.fromkeys(name for each in parts if isinstance(each, Mapping) for name in each))

    @cached_property
    def is_whole(self) -> bool:
        return self.share(re.compile(r"[+-]?\d+(\.0+)?").fullmatch) >= MOSTLY

    @cached_property
    def is_flag(self) -> bool:
        """Whether it says yes or no in each row, and both somewhere."""
        said = {yes_or_no(value) if isinstance(value, str) else None for value in self.values}
        return said == {True, False}

    @cached_property
    def is_image(self) -> bool:
        return self.share(IMAGES.fullmatch) >= MOSTLY

    @cached_property
    def is_sound(self) -> bool:
        return self.share(SOUNDS.fullmatch) >= MOSTLY

    @cached_property
    def is_split(self) -> bool:
        return self.share(lambda text: given_split(text) is not None) == 1 and len(self.counts) > 1

    @cached_property
    def is_time(self) -> bool:
        return not self.is_number and self.share(lambda text: time_of(text) is not None) >= MOSTLY

    @cached_property
    def is_unique(self) -> bool:
        return len(self.texts) == len(self.given) == len(self.counts)

    @cached_property
    def lists(self) -> list[list[Any]]:
        """The values as lists, where they are lists or stand there as such."""
        found = []
        for value in self.given:
            if isinstance(value, list):
                found.append(value)
            elif isinstance(value, str) and is_list(value):
                try:
                    found.append([as_text(each) for each in read_list(value)])
                except ValueError:
                    return []
            else:
                return []
        return found

    @cached_property
    def are_spans(self) -> bool:
        """Whether its lists hold spans: objects with start, end and label, or three values each."""
        parts = [each for value in self.lists for each in value]
        return bool(parts) and all(
            (isinstance(each, Mapping) and {"start", "end", "label"} <= {*each})
            or (isinstance(each, list) and len(each) == 3 and str(each[0]).isdigit() and str(each[1]).isdigit())
            for each in parts
        )

    @cached_property
    def are_words(self) -> bool:
        """Whether its lists hold texts alone."""
        return bool(self.lists) and all(isinstance(each, str) for value in self.lists for each in value)


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Returns the columns that the rows have."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [Column(name, [as_text(row.get(name)) for row in rows]) for name in names]
