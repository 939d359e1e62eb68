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
    digest = hashlib.blake2b(f"{split.seed}\0{content}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    if position < split.train:
        return "train"
    return "val" if position < split.train + split.val else "test"
