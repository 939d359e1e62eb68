"""Which split a row falls into: a hash of its content, so duplicates stay together and new rows move no old ones."""

from __future__ import annotations

import hashlib
import unicodedata

from finespun.config.sections import Split

SPLITS = ("train", "val", "test")


def normalise(text: str) -> str:
    """Returns the text as a reader would call it the same: Unicode NFKC, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_of(content: str, split: Split) -> str:
    """Returns train, val or test for a row's group or normalised content.

    The hash is a number in [0, 1), compared with the cumulated shares: a function of (seed, content) alone.
    """
    place = position(content, split.seed)
    if place < split.train:
        return "train"
    return "val" if place < split.train + split.val else "test"


def position(content: str, seed: int) -> float:
    """Returns a row's place in [0, 1): spread evenly over contents, the same wherever and whenever it is asked for."""
    digest = hashlib.blake2b(f"{seed}\0{content}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
