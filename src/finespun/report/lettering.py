"""Names as a picture can show them: on one line, not too long, each another, in a font that has their letters."""

from __future__ import annotations

import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FT2Font

SHIPPED = "DejaVu Sans"  # matplotlib's own
NO_LETTERS = "Last Resort"  # fonts of boxes for every character there is
REGULAR = {"normal", "regular", "book", "roman", 400}
LONGEST = 32  # characters of a name in a picture
UNSEEN = {"Cc", "Cf", "Zs"}  # categories of characters that no font need have


@contextmanager
def lettering(*texts: str) -> Iterator[Lettering]:
    """Text that is made inside is drawn in matplotlib's font, and in fonts of this machine for letters that it has not."""
    families, missing = _families({*"".join(texts)})
    with mpl.rc_context({"font.family": families, "text.usetex": False}):
        yield Lettering(missing)


class Lettering:
    """Makes names drawable; `missing` are the characters that no font has."""

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing

    def names(self, labels: Sequence[str]) -> list[str]:
        """Returns what stands for each label; that of the third begins with `#3` where it would not be clear otherwise."""
        short = [_shortened(self.line(label)) for label in labels]
        count = Counter(short)
        return [
            name
            if name == label or (count[name] == 1 and name and self.missing.isdisjoint(label))
            else f"#{number} {name}".strip()
            for number, (name, label) in enumerate(zip(short, labels, strict=True), 1)
        ]

    def line(self, text: str) -> str:
        """Returns a text on one line, without the characters that cannot be drawn."""
        return " ".join("".join(each for each in _seen(text) if each not in self.missing).split())

    def title(self, text: str, width: int) -> str:
        """Returns a title on lines of at most `width` characters; `?` stands for what cannot be drawn."""
        return textwrap.fill("".join("?" if each in self.missing else each for each in _seen(text)), width)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 12]}\N{HORIZONTAL ELLIPSIS}{name[-11:]}"


def _seen(text: str) -> str:
    return "".join(each for each in text if each.isspace() or unicodedata.category(each) not in UNSEEN)


def _families(characters: set[str]) -> tuple[list[str], set[str]]:
    """Returns families of fonts, matplotlib's first, and the characters that none of them has."""
    fonts = {font.name: font for font in fontManager.ttflist if font.style == "normal" and font.weight in REGULAR}
    needed = {each for each in characters if not each.isspace() and unicodedata.category(each) not in UNSEEN}
    families, missing = [SHIPPED], needed - _had(fonts[SHIPPED], needed)
    others = {name: _had(font, missing) for name, font in fonts.items() if missing and not name.startswith(NO_LETTERS)}
    while missing & set().union(*others.values()):
        best = max(sorted(others), key=lambda name: len(others[name] & missing))
        families.append(best)
        missing = missing - others[best]
    return families, missing


def _had(entry: FontEntry, characters: Iterable[str]) -> set[str]:
    """Returns those of the characters that a font can draw; fonts of coloured pictures cannot be read, and have none."""
    try:
        font = FT2Font(entry.fname)
        font.set_size(10, 72)
        return {each for each in characters if font.get_char_index(ord(each))}
    except (RuntimeError, OSError):
        return set()
