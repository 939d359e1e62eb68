"""The description of a run on MLflow's page, in Markdown: the verdict first."""

from __future__ import annotations

from finespun.report import words
from finespun.report.facts import Facts, SplitFacts


def note(facts: Facts) -> str:
    """Returns the result beside the baselines, what trained on what, and the commands that reproduce and use it."""
    best, record, profile = facts.best, facts.record, facts.profile
    rows = ", ".join(f"{count:,} {split}" for split, count in profile["rows"].items())
    commit = str(record.get("lineage", {}).get("commit", ""))
    again = f"git checkout {commit[:12]} && dvc repro" if commit else "dvc repro"
    return "\n".join([
        f"**{words.verdict(best.details, rows=best.rows, split=best.split)}**",
        "",
        *(line for split in facts.splits for line in [*table(split), ""]),
        f"- Data: {_plain(facts.schema['source']['path'])} ({rows} rows)",
        f"- Trained: {_plain('; '.join(record.get('trained', [])))}",
        f"- Weights: {_plain(record.get('loaded', ''))}",
        "",
        f"Again: `{again}` · use it: `finespun predict INPUT.csv --output OUT.csv`",
    ])  # fmt: skip


def table(split: SplitFacts) -> list[str]:
    """Returns the headline scores of a split, with intervals, beside the baselines, as a table."""
    details, shown = split.details, split.details["shown"]
    lines = [
        f"| {split.split}, {split.rows:,} rows | {' | '.join(map(words.score_name, shown))} |",
        f"| --- |{' ---: |' * len(shown)}",
    ]
    cells = [f"**{words.number(each['value'])}** ({words.number(each['low'])} to {words.number(each['high'])})"
             for each in (details["scores"][name] for name in shown)]  # fmt: skip
    lines.append(f"| fine-tuned ({details['confidence']:.0%} interval) | {' | '.join(cells)} |")
    for name, scores in details["baselines"].items():
        lines.append(f"| {words.method_name(name)} | {' | '.join(words.number(scores[key]) for key in shown)} |")
    return lines


def _plain(text: str) -> str:
    """A text on one line, without what Markdown would read."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
