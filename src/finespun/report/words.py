"""What scores and methods are called, which way is better, and a result in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "accuracy": "Accuracy", "f1_macro": "F1 (macro)", "f1_micro": "F1 (micro)", "f1_samples": "F1 (samples)", "f1": "F1",
    "log_loss": "Log loss", "r2": "R²", "rmse": "RMSE", "mse": "MSE", "mae": "MAE", "pearson": "Pearson's r",
    "spearman": "Spearman's rank correlation", "average_precision": "Average precision", "exact_match": "Exact match",
    "mean_iou": "Mean IoU", "pixel_accuracy": "Pixel accuracy", "mean_accuracy": "Mean accuracy", "iou": "IoU",
    "boundary_f1": "Boundary F1",
    "map": "mAP", "map_50": "AP50", "map_75": "AP75", "recall_100": "Recall at 100 boxes", "map_small": "mAP, small",
    "map_medium": "mAP, medium", "map_large": "mAP, large",
    "wer": "Word error rate", "cer": "Character error rate",
    "recall_at_1": "Recall at 1", "recall_at_10": "Recall at 10", "recall_at_100": "Recall at 100", "mrr_at_10": "MRR at 10",
    "ndcg_at_10": "nDCG at 10", "coverage_at_10": "Coverage at 10", "popularity_at_10": "Popularity at 10",
    "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF",
}  # fmt: skip
METHODS = {
    "majority_class": "majority class", "tfidf_logistic": "TF-IDF + logistic regression", "tfidf_ridge": "TF-IDF + ridge",
    "pixels_logistic": "pixels + logistic regression", "pixels_ridge": "pixels + ridge",
    "spectrum_logistic": "spectrum + logistic regression", "most_frequent_target": "most frequent target",
    "label_shares": "label shares", "mean": "mean",
    "most_frequent_tag": "most frequent tag", "usual_tag_of_word": "usual tag of each word",
    "most_frequent_class": "most frequent class", "usual_class_of_place": "usual class of each place",
    "usual_box_of_label": "usual box of each label",
    "bm25": "BM25", "popularity": "most popular items", "ease": "EASE",
    "item_knn": "item-kNN", "als": "ALS",
    "lead": "first words of the source", "source": "the source itself", "nearest_training_row": "nearest training row's target",
    "zero_shot": "the model before fine-tuning", "untrained": "the model before fine-tuning",
}  # fmt: skip
SMALLER_IS_BETTER = ("loss", "rmse", "mse", "mae", "perplexity", "error", "wer", "cer")
SHARES = (
    "accuracy", "f1", "precision", "recall", "exact_match", "average_precision", "mean_iou", "iou", "pixel_accuracy",
    "mean_accuracy", "boundary_f1", "map", "map_50", "map_75", "recall_100",
    "recall_at_1", "recall_at_10", "recall_at_100", "mrr_at_10", "ndcg_at_10",
)  # fmt: skip


def score_name(name: str) -> str:
    """Returns what a score is called; `precision/spam` is the precision of spam."""
    first, sign, label = name.partition("/")
    called = NAMES.get(first, first.replace("_", " ").capitalize())
    return f"{called}, {label}" if sign else called


def method_name(name: str) -> str:
    """Returns what a baseline is called."""
    return METHODS.get(name, name.replace("_", " "))


def smaller_is_better(name: str) -> bool:
    """Whether a score is an error."""
    return name.partition("/")[0].endswith(SMALLER_IS_BETTER)


def number(value: float) -> str:
    """Returns a score as people write it."""
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) < 1000 else f"{value:,.1f}"  # adding zero takes the sign of -0.000


def difference(name: str, value: float) -> str:
    """Returns a difference of scores without its sign: shares in points of a hundred."""
    if name.startswith(SHARES):
        return f"{abs(value) * 100:.1f} points"
    return number(abs(value))


def gap(name: str, found: Mapping[str, float]) -> str:
    """Returns a difference of scores with its sign and its interval: shares in points of a hundred."""
    if name.startswith(SHARES):
        value, low, high = (100 * found[key] for key in ("value", "low", "high"))
        return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
    return "{value:+.3g} ({low:+.3g} to {high:+.3g})".format(**found)


def best_baseline(details: Mapping[str, Any]) -> str | None:
    """Returns the baseline with the best first score; None where there is none."""
    score = details["shown"][0]
    best = min if smaller_is_better(score) else max
    return best(details["baselines"], key=lambda name: details["baselines"][name][score], default=None)


def standing(details: Mapping[str, Any]) -> str:
    """Returns `better`, `worse` or `even`, beside the best baseline; `alone` where nothing is known of one."""
    best, score = best_baseline(details), details["shown"][0]
    found = details.get("comparison", {}).get(best, {}).get("differences", {}).get(score)
    if found is None:
        return "alone"
    low, high = (found["low"], found["high"]) if not smaller_is_better(score) else (-found["high"], -found["low"])
    return "better" if low > 0 else "worse" if high < 0 else "even"


def verdict(details: Mapping[str, Any], *, rows: int, split: str) -> str:
    """Returns the result in one sentence, beside the best baseline."""
    score = details["shown"][0]
    found, sure = details["scores"][score], f"{details['confidence']:.0%}"
    result = (
        f"{score_name(score)} {number(found['value'])} ({sure} interval {number(found['low'])} to {number(found['high'])})"
        f" on {rows:,} {split} rows"
    )
    best, how = best_baseline(details), standing(details)
    if best is None or how == "alone":
        return f"{result}."
    gap = details["comparison"][best]["differences"][score]
    name = method_name(best)
    if how == "even":
        return f"{result}: no different from the baseline {name} ({number(details['baselines'][best][score])}) within noise."
    low, high = sorted((abs(gap["low"]), abs(gap["high"])))
    span = (
        f"{sure} interval {difference(score, low).removesuffix(' points')} to {difference(score, high).removesuffix(' points')}"
    )
    return f"{result}: {difference(score, gap['value'])} {how} than the baseline {name} ({span})."
