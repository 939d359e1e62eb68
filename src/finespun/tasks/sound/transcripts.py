"""Word and character error rates over weighted rows, of texts without case and punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
MARKS = re.compile(r"[^\w\s']|_")


@dataclass(frozen=True)
class Transcripts:
    """What rows add to scores, (rows,) each: edits and lengths in words and characters, and whether both texts are the same."""

    word_edits: Values
    words: Values
    character_edits: Values
    characters: Values
    losses: Values  # NaN where no model was asked
    tokens: Values

    @property
    def rates(self) -> Values:
        """The word error rate of each row; of a row without a word, the number of words that were written."""
        return np.asarray(self.word_edits / np.maximum(self.words, 1))


def plain(text: str) -> str:
    """Returns a text in lower case, without punctuation but apostrophes, with single blanks."""
    return " ".join(MARKS.sub(" ", text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).split())


def transcripts(references: Sequence[str], predictions: Sequence[str], losses: Values, tokens: Values) -> Transcripts:
    """Counts the edits between texts and their references."""
    pairs = [(plain(reference), plain(text)) for reference, text in zip(references, predictions, strict=True)]
    words = [(reference.split(), text.split()) for reference, text in pairs]
    counts = [
        [edits(*both), len(both[0]), edits(*letters), len(letters[0])] for both, letters in zip(words, pairs, strict=True)
    ]
    columns = np.array(counts, dtype=np.float64).reshape(-1, 4).T
    return Transcripts(columns[0], columns[1], columns[2], columns[3], losses, tokens)


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the fewest insertions, deletions and substitutions between two sequences (Levenshtein, 1966)."""
    row = list(range(len(other) + 1))
    for place, item in enumerate(one, 1):
        diagonal, row[0] = row[0], place
        for column, against in enumerate(other, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (item != against))
    return row[-1]


def transcript_scores(found: Transcripts, weights: Values) -> dict[str, Values]:
    """Returns name -> (resamples,) for weights (resamples, rows).

    `wer` and `cer` are edits over words and characters of all rows, `exact_match` the share of rows without an edit;
    perplexity is left out where no model was asked.
    """
    scores = {
        "wer": weights @ found.word_edits / np.maximum(weights @ found.words, 1),
        "cer": weights @ found.character_edits / np.maximum(weights @ found.characters, 1),
        "exact_match": weights @ (found.word_edits == 0) / weights.sum(axis=1),
    }
    if not np.isnan(found.losses).any():
        scores["perplexity"] = np.exp(np.minimum(weights @ found.losses / (weights @ found.tokens), 700.0))
    return scores
