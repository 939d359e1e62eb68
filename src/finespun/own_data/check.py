"""`finespun check`: what `prepare` checks, without preparing anything; everything at once, for people or programs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.data.dataset_checks.examine import Examined, examine
from finespun.data.passes.here import RowsHere
from finespun.data.sources.source import Source
from finespun.data.splits import SPLITS
from finespun.errors import first_of
from finespun.stages.prepare import spelt, task_and_encoder

HEADS = {"error": "errors", "warn": "warnings", "note": "notes", "drop": "left out"}


def examined(artifacts: Artifacts) -> Examined:
    """Examines the data that params.yaml names.

    Raises:
        ConfigError: the configuration is wrong.
        DataError: the data cannot be read at all.
    """
    config, _ = compose(artifacts)
    source = Source(spelt(config.data), artifacts.project)
    task, encoder = task_and_encoder(config, artifacts)
    found = examine(RowsHere(source), source.data, task, encoder)
    for note in source.notes:
        found.report.say("found_in_file", "note", note)
    return found


def as_text(found: Examined) -> str:
    """Returns the findings for a terminal: the gravest first, a few of each kind."""
    report = found.report
    parts = [f"{HEADS[severity]}\n{report.text(severity)}" for severity in HEADS if report.counts(severity)]
    filtered = [f"{count:,} ({reason})" for reason, count in report.filtered.items()]
    if filtered:
        parts.append(f"left out by data.filters: {first_of(filtered)}")
    splits = ", ".join(f"{split} {count:,}" for split, count in _splits(found).items())
    labels = (
        f"; labels {first_of([f'{name} {count:,}' for name, count in report.answers.most_common()])}" if report.answers else ""
    )
    parts.append(f"{report.file}: {report.rows:,} rows, {len(report.dropped.numbers):,} left out; {splits}{labels}")
    return "\n\n".join(parts)


def as_json(found: Examined) -> str:
    """Returns all findings, each with file, row, column, value, why it matters and what to do."""
    plain: dict[str, Any] = {**found.report.plain(), "splits": _splits(found), "label_names": found.labels.names}
    return json.dumps(plain, indent=2, ensure_ascii=False)


def _splits(found: Examined) -> dict[str, int]:
    counts = Counter(found.codes.tolist())
    return {split: counts[code] for code, split in enumerate(SPLITS)}
