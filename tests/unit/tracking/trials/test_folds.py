"""Cross-validation: folds of one setting belong together."""

from __future__ import annotations

import statistics

from optuna.trial import FrozenTrial, TrialState, create_trial

from finespun.tracking.trials.folds import cross_validated


def trial(score: float, **values: str) -> FrozenTrial:
    written = {name.replace("__", "."): value for name, value in values.items()}
    return create_trial(state=TrialState.COMPLETE, value=score, user_attrs={"values": written})


def test_folds_of_each_setting_have_their_mean_and_deviation() -> None:
    scores = [0.8, 0.9, 0.7, 0.6]
    (found,) = cross_validated([trial(score, data__fold=str(number)) for number, score in enumerate(scores)])
    assert (found.settings, found.mean, found.deviation) == ("", statistics.fmean(scores), statistics.stdev(scores))
    assert str(found) == "0.7500 ± 0.1291 in 4 folds"
    two = [
        trial(score, data__fold=str(fold), optimizer__lr=rate) for rate in ("1e-3", "1e-4") for fold, score in enumerate(scores)
    ]
    assert [str(each).partition(":")[0] for each in cross_validated(two)] == ["optimizer.lr=1e-3", "optimizer.lr=1e-4"]


def test_a_fold_that_was_trained_twice_counts_once_and_other_sweeps_have_none() -> None:
    (found,) = cross_validated([trial(0.1, data__fold="0"), trial(0.5, data__fold="0"), trial(0.7, data__fold="1")])
    assert found.scores == (0.5, 0.7)
    assert cross_validated([trial(0.1, optimizer__lr="1e-3")]) == []
