"""The report: one self-contained HTML page about one fine-tuned model, from the files that the stages wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from finespun.evaluation import pictures
from finespun.evaluation.analysis.calibration import reaching
from finespun.evaluation.analysis.slices import worst_first
from finespun.evaluation.analysis.thresholds import at_thresholds
from finespun.report import charts, mistakes, words
from finespun.report.champion import Contest
from finespun.report.charts import Axis, Chart, Line
from finespun.report.facts import Facts, SplitFacts
from finespun.report.sections import examples

CLASSES = 25  # of a confusion matrix that is shown; of more, the most frequent
DOTS = 2000  # of a scatter plot
GOALS = (0.9, 0.95, 0.99)
SUSPECTS = 100


def render(facts: Facts, contest: Contest | None = None) -> str:
    """Returns the page, with how the model stands beside the champion if that is known.

    It needs no network and no script to be read; a script filters the tables.
    """
    environment = Environment(
        loader=PackageLoader("finespun.report"), autoescape=select_autoescape(default=True), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "score": words.score_name, "gap": words.gap, "method": words.method_name, "number": words.number, "size": size,
        "minutes": minutes,
    }  # fmt: skip
    best = facts.best
    found = mistakes.found(best.predictions, best.details["labels"])
    return environment.get_template("report.html.j2").render(
        facts=facts,
        best=best,
        contest=contest,
        verdict=words.verdict(best.details, rows=best.rows, split=best.split),
        standing=words.standing(best.details),
        tables=[scores_table(split) for split in facts.splits],
        data=data_table(facts),
        training=training_charts(facts),
        confusion=confusion_table(best.predictions, best.details["labels"]),
        scatter=scatter_chart(best.predictions, best.details["labels"]),
        calibration=calibration_charts(best.details.get("calibration")),
        goals=goals(best.details.get("calibration")),
        thresholds=thresholds_table(facts),
        confusions=examples.confusions(best.predictions),
        slices=slices_table(best.details),
        pictures=pictures.shown(best.predictions, best.details["labels"]),
        mistakes=found,
        worst=examples.worst(best.details, found.shown),
        thumbnails=examples.pictures(best.details),
        suspects=facts.label_errors[:SUSPECTS]
        if words.standing(best.details) != "worse"
        else [],  # a bad model suspects the good labels
        cost=cost_table(facts),
        lineage=lineage_table(facts),
        settings=flat(facts.record.get("settings", {})),
    )


def size(count: float) -> str:
    """Returns a number of bytes as people say it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count:,.0f} bytes"


def rows(count: int) -> str:
    """Returns a number of rows as people say it."""
    return "1 row" if count == 1 else f"{count:,} rows"


def minutes(seconds: float) -> str:
    """Returns a time as people say it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.1f} min"


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns nested settings as dotted names with what is set."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((f"{prefix}{name}", str(value)))
    return found


def scores_table(split: SplitFacts) -> dict[str, Any]:
    """Returns a line a score: the value, its interval as a picture, the baselines, and whether it is better than the best."""
    details, lines = split.details, []
    for name, found in details["scores"].items():
        others = {baseline: scores[name] for baseline, scores in details["baselines"].items() if name in scores}
        span = [found["low"], found["high"], *others.values()]
        low, high = (0.0, 1.0) if all(0 <= value <= 1 for value in span) else (min(span), max(span))
        bar = charts.interval_bar(found["value"], found["low"], found["high"], start=low, end=high, others=[*others.values()])
        lines.append({"name": name, **found, "others": others, "bar": bar, "headline": name in details["shown"]})
    return {"split": split, "baselines": list(details["baselines"]), "lines": lines, "confidence": details["confidence"]}


def data_table(facts: Facts) -> dict[str, Any]:
    """Returns rows and labels of each split, lengths, and what `prepare` remarked."""
    profile = facts.profile
    labels = profile.get("labels", {})
    names = [name for name, _ in Counter({k: sum(v.get(k, 0) for v in labels.values()) for v in labels.values() for k in v})
             .most_common(CLASSES)]  # fmt: skip
    most = max((counts.get(name, 0) / max(1, sum(counts.values())) for counts in labels.values() for name in names), default=1)
    unit = next((key for key, value in profile.items() if isinstance(value, dict) and "rows_truncated" in value), None)
    dropped = {**profile.get("rows_left_out_by_filter", {}), **profile.get("rows_left_out_by_check", {})}
    remarks = [f"{split}: {remark}" for split, found in profile.get("remarks", {}).items() for remark in found]
    remarks += [f"{rows(count)}: {check.replace('_', ' ')}" for check, count in profile.get("warnings", {}).items()]
    remarks += [f"left out: {rows(count)}, {reason.replace('_', ' ')}" for reason, count in dropped.items()]
    lengths = profile[unit] if unit else None
    if lengths and lengths["rows_truncated"]:
        share = lengths["rows_truncated"] / max(1, sum(profile["rows"].values()))
        remarks.append(f"longer than max_length, so that the end is cut off: {rows(lengths['rows_truncated'])} ({share:.0%})")
    return {"labels": labels, "names": names, "most": most, "unit": unit, "lengths": lengths, "remarks": remarks,
            "all_labels": len({name for counts in labels.values() for name in counts})}  # fmt: skip


def training_charts(facts: Facts) -> list[Markup]:
    """Returns the losses and the monitored metric by step."""
    series: dict[str, list[charts.Point]] = {}
    for row in facts.history:
        series.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
    monitor = str(facts.record["task"].get("monitor", ""))
    losses = [
        Line("training loss", charts.smooth(series.get("train/loss", [])), "a"),
        Line("validation loss", series.get("val/loss", []), "b", marks=True),
    ]
    found = [charts.lines("Loss by step", losses, x="step", y="loss", zero=True)]
    if monitor != "val/loss":
        watched = [Line(monitor, series.get(monitor, []), "c", marks=True)]
        found.append(charts.lines(f"{monitor} by step", watched, x="step", y=monitor))
    found.append(
        charts.lines("Learning rate by step", [Line("learning rate", series.get("train/learning_rate", []), "a")],
                     x="step", y="learning rate", zero=True)
    )  # fmt: skip
    return [chart for chart in found if chart is not None]


def confusion_table(predictions: pa.Table, labels: Sequence[str]) -> dict[str, Any] | None:
    """Returns counts and shares of each actual label; None where rows have not one label each."""
    if not {"label", "predicted"} <= set(predictions.column_names) or not labels:
        return None
    actual, predicted = predictions["label"].to_pylist(), predictions["predicted"].to_pylist()
    common = {name for name, _ in Counter([*actual, *predicted]).most_common(CLASSES)}
    names = [name for name in labels if len(labels) <= CLASSES or name in common]
    counts = Counter(zip(actual, predicted, strict=True))
    totals = Counter(actual)
    lines = [
        {"name": name, "total": totals[name],
         "cells": [(counts[name, other], counts[name, other] / max(1, totals[name]), name == other) for other in names]}
        for name in names
    ]  # fmt: skip
    worst = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]][:5]
    return {"names": names, "lines": lines, "of": len(labels), "worst": worst}


def scatter_chart(predictions: pa.Table, labels: Sequence[str]) -> Markup | None:
    """Returns actual against predicted numbers; None where a task predicts no numbers."""
    names = [name for name in predictions.column_names if f"predicted_{name}" in predictions.column_names]
    if not names or labels:
        return None
    every = max(1, predictions.num_rows // DOTS)
    actual, predicted = ([float(each) for each in predictions[name].to_pylist()[::every]] for name in
                         (names[0], f"predicted_{names[0]}"))  # fmt: skip
    axis = Axis.over("actual", [*actual, *predicted])
    chart = Chart("Actual against predicted", axis, Axis("predicted", axis.low, axis.high), width=420, height=400)
    chart.line(Line("as predicted", [(axis.low, axis.low), (axis.high, axis.high)], "rule"))
    chart.points([*zip(actual, predicted, strict=True)])
    return chart.svg(said=f"{len(actual)} rows of {names[0]}")


def calibration_charts(found: Mapping[str, Any] | None) -> list[Markup]:
    """Returns the reliability diagram and accuracy against coverage."""
    if not found:
        return []
    across = Axis("confidence", 0, 1, percent=True)
    chart = Chart("Reliability: how often predictions are right, by confidence", across, Axis("right", 0, 1, percent=True))
    for each in found["bins"]:
        said = f"{each['count']:,} rows with confidence {each['confidence']:.1%}: {each['accuracy']:.1%} right"
        chart.bar((each["low"], each["high"]), each["accuracy"], said)
    chart.line(Line("confidence as it should be", [(0, 0), (1, 1)], "rule"))
    points = [(each["coverage"], each["accuracy"]) for each in found["coverage"]]
    lowest = min(height for _, height in points)
    curve = Chart(
        "Accuracy when only the surest predictions are taken", Axis("share of rows that are predicted", 0, 1, percent=True),
        Axis("accuracy", max(0.0, lowest - 0.05), 1, percent=True),
    )  # fmt: skip
    curve.line(Line("accuracy", points, "c", marks=len(points) < 3))
    return [
        chart.svg(said=f"Expected calibration error {found['ece']:.3f}"),
        curve.svg(said=f"{points[-1][1]:.1%} for all rows"),
    ]


def goals(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Returns from which confidence on predictions reach an accuracy, and how many rows that leaves."""
    return [{"goal": goal, "point": reaching(found["coverage"], goal)} for goal in GOALS] if found else []


def thresholds_table(facts: Facts) -> list[dict[str, Any]]:
    """Returns the thresholds that reach `evaluation.precision_goal` on validation, and what they give on test rows."""
    chosen: list[dict[str, Any]] = next(
        (split.details.get("thresholds", []) for split in facts.splits if split.split == "validation"), []
    )
    tested = at_thresholds(facts.best.predictions, chosen) if facts.best.split == "test" else []
    on_test = {each["label"]: each for each in tested}
    return [{**each, "test": on_test.get(each["label"])} for each in chosen]


def slices_table(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns slices, the worst first, with their intervals as pictures."""
    found = details.get("slices") or []
    if not found:
        return []
    smaller = words.smaller_is_better(found[0]["score"])
    low, high = min(each["low"] for each in found), max(each["high"] for each in found)
    start, end = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    whole = details["scores"][found[0]["score"]]["value"]
    return [
        {**each, "bar": charts.interval_bar(each["value"], each["low"], each["high"], start=start, end=end, others=[whole])}
        for each in worst_first(found, smaller_is_better=smaller)
    ]


def cost_table(facts: Facts) -> list[tuple[str, str]]:
    """Returns what training and predicting cost."""
    record, times = facts.record, [float(row["time"]) for row in facts.history if row.get("time")]
    cost = {**record.get("cost", {}), **facts.cost}
    lines = [("Size on disk", size(facts.bytes_on_disk))]
    if "parameters" in cost:
        lines.append(("Parameters", f"{cost['parameters']:,}"))
    if times:
        lines.append(("Training", f"{minutes(max(times) - min(times))}, {record.get('steps', '?')} steps"))
    if "train_rows_per_second" in cost:
        lines.append(("Training speed", f"{cost['train_rows_per_second']:,.0f} rows a second"))
    if "peak_memory_mb" in cost:
        lines.append(("Peak memory of training", size(cost["peak_memory_mb"] * 1e6)))
    if "latency_ms_p50" in cost:
        said = f"{cost['latency_ms_p50']:.1f} ms (median), {cost['latency_ms_p99']:.1f} ms (99th percentile)"
        lines.append(("Latency of one row", said))
    if "rows_per_second" in cost:
        lines.append(("Throughput", f"{cost['rows_per_second']:,.0f} rows a second"))
    if "device" in cost:
        lines.append(("Measured on", str(cost["device"])))
    return lines


def lineage_table(facts: Facts) -> list[tuple[str, str]]:
    """Returns what made the model: run, commit, data, digests."""
    record, schema = facts.record, facts.schema
    lineage: dict[str, Any] = dict(record.get("lineage") or {"inputs": record.get("inputs", {})})
    inputs = lineage.pop("inputs", {})
    lines = [("MLflow run", str(record.get("run_id", ""))), ("Data", f"{schema['source']['path']}"),
             ("Data, sha256", schema["source"]["sha256"]), ("Weights", str(record.get("loaded", "")))]  # fmt: skip
    lines += [
        (name.replace("_", " ").capitalize(), str(value)) for name, value in lineage.items() if isinstance(value, str) and value
    ]
    lines += [(f"Input {name}, sha256", str(digest)) for name, digest in inputs.items()]
    return [line for line in lines if line[1]]
