"""Scores of texts are those of rouge-score and sacreBLEU, of any sample of rows."""

from __future__ import annotations

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from finespun.tasks.metrics.writing import writing_scores, written

REFERENCES = ["the cat sat on the mat", "Ein großer Hund, der bellt.", "a", "stocks fall as rates rise again in March", ""]
CASES = {
    "near": ["the cat sat on a mat", "Ein Hund, der laut bellt.", "a", "stocks fall again as rates rise", "x"],
    "same": REFERENCES,
    "nothing": ["", "", "", "", ""],
    "other": ["dogs", "x y z", "b", "q", "r"],
    "short": ["the cat", "ein Hund", "a", "stocks", ""],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [0, 0, 3], [1], [2, 2], [3, 1, 1, 1]])
def test_they_are_those_of_the_libraries(case: str, rows: list[int]) -> None:
    texts = CASES[case]
    weights = np.bincount(rows, minlength=5).astype(float)[None]
    nan = np.full(5, np.nan)
    found = writing_scores(written(REFERENCES, texts, nan, nan), weights)
    hypotheses, references = [texts[row] for row in rows], [REFERENCES[row] for row in rows]
    assert found["bleu"][0] == pytest.approx(BLEU().corpus_score(hypotheses, [references]).score, abs=1e-6)
    assert found["chrf"][0] == pytest.approx(CHRF().corpus_score(hypotheses, [references]).score, abs=1e-6)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for name in ("rouge1", "rouge2", "rougeL"):
        each = [scorer.score(*pair)[name].fmeasure for pair in zip(references, hypotheses, strict=True)]
        assert found[name][0] == pytest.approx(np.mean(each), abs=1e-6)
    assert found["exact_match"][0] == np.mean([a == b for a, b in zip(hypotheses, references, strict=True)])
