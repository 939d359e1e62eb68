"""Scores of written texts over weighted rows: what each row adds is counted once, by the reference libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
ROUGE = ("rouge1", "rouge2", "rougeL")
ORDERS, CHARACTERS, BETA = 4, 6, 2  # n-grams of BLEU; of chrF, and how many times as much recall counts in it


@dataclass(frozen=True)
class Written:
    """What rows add to scores, (rows, ...) each: F-measures of ROUGE, counts of BLEU and chrF, whether both are the same.

    `losses` and `tokens` are the sum of the targets' losses and their number; NaN where no model was asked.
    """

    rouge: Values
    bleu: Values  # length, length of the reference, matches of each order, n-grams of each order
    chrf: Values  # n-grams of the prediction, of the reference, matches; of each order
    exact: Values
    losses: Values
    tokens: Values


def written(references: Sequence[str], predictions: Sequence[str], losses: Values, tokens: Values) -> Written:
    """Counts texts beside their references: ROUGE as rouge-score does (no stemming), BLEU and chrF as sacreBLEU does."""
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415  (only written answers need these)
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415

    scorer, bleu, chrf = RougeScorer(list(ROUGE)), BLEU(force=True), CHRF()
    pairs = list(zip(references, predictions, strict=True))
    rouge = [[scorer.score(*pair)[name].fmeasure for name in ROUGE] for pair in pairs]
    counts = [
        np.array(each._extract_corpus_statistics(list(predictions), [list(references)]), dtype=np.float64)  # noqa: SLF001
        for each in (bleu, chrf)
    ]
    exact = np.array([reference.strip() == prediction.strip() for reference, prediction in pairs], dtype=np.float64)
    return Written(np.array(rouge).reshape(-1, len(ROUGE)), counts[0], counts[1], exact, losses, tokens)


def writing_scores(found: Written, weights: Values) -> dict[str, Values]:
    """Returns name -> (resamples,) for weights (resamples, rows): ROUGE, exact match, BLEU and chrF (0 to 100), perplexity.

    ROUGE and exact match are means over rows; BLEU, chrF and perplexity are those of the whole. Perplexity is left out where
    no model was asked.
    """
    total = weights.sum(axis=1)
    scores = dict(zip(ROUGE, (weights @ found.rouge).T / total, strict=True))
    scores |= {"bleu": _bleu(weights @ found.bleu), "chrf": _chrf(weights @ found.chrf)}
    scores["exact_match"] = weights @ found.exact / total
    if not np.isnan(found.losses).any():
        scores["perplexity"] = np.exp(np.minimum(weights @ found.losses / (weights @ found.tokens), 700.0))
    return scores


def _bleu(counts: Values) -> Values:
    """Returns (resamples,) of (resamples, counts), smoothed as sacreBLEU does by default (`exp`)."""
    length, reference = counts[:, 0], counts[:, 1]
    matches, ngrams = counts[:, 2 : 2 + ORDERS], counts[:, 2 + ORDERS :]
    halvings = np.cumsum(matches == 0, axis=1)  # of orders without a match, up to each
    precisions = np.where(matches > 0, matches, 0.5**halvings) / np.maximum(ngrams, 1)
    mean = np.log(100 * precisions).mean(axis=1)
    short = np.where(length < reference, np.exp(1 - reference / np.maximum(length, 1)), 1.0)
    possible = matches.any(axis=1) & (ngrams > 0).all(axis=1)
    return np.asarray(np.where(possible, short * np.exp(mean), 0.0))


def _chrf(counts: Values) -> Values:
    """Returns (resamples,) of (resamples, counts): orders that one of both lacks are left out."""
    predicted, reference, matches = np.moveaxis(counts.reshape(len(counts), CHARACTERS, 3), 2, 0)
    both = (predicted > 0) & (reference > 0)
    orders = np.maximum(both.sum(axis=1), 1)
    precision = np.where(both, matches / np.maximum(predicted, 1), 0).sum(axis=1) / orders
    recall = np.where(both, matches / np.maximum(reference, 1), 0).sum(axis=1) / orders
    factor = BETA**2
    below = factor * precision + recall
    scores: Values = np.divide(100 * (1 + factor) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
    return scores
