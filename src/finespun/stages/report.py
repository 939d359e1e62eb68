"""report: one HTML page and the model card, from the files that the other stages wrote."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config.compose import read_for_stage
from finespun.failures import while_writing
from finespun.report import card, facts, notes, page
from finespun.report.champion import beside_champion
from finespun.tracking.model_run import open_run_of_model


def run(artifacts: Artifacts) -> None:
    """Writes the page and the card, and adds both and the verdict to the model's run."""
    config, found = read_for_stage(artifacts, "report"), facts.read(artifacts)
    whole, described = (
        page.render(found, beside_champion(artifacts, found, config)),
        card.render(found.record, found.schema, found.splits),
    )
    with while_writing(artifacts.page.parent):
        artifacts.page.write_text(whole, encoding="utf-8")
        artifacts.card.write_text(described, encoding="utf-8")
    with open_run_of_model(config, artifacts) as tracked:
        tracked.set_tags({"mlflow.note.content": notes.note(found)})
        tracked.log_texts({"index.html": whole, "model_card.md": described}, "report")
    print(f"report: {artifacts.page}")  # noqa: T201
