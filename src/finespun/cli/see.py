"""Commands that show results: `finespun summary`, `report`, `compare`, `ui`."""

from __future__ import annotations

from pathlib import Path

import click

from finespun.artifacts import Artifacts, this_project


@click.command()
@click.option("--port", default=5000, type=click.IntRange(1, 65535), show_default=True, help="Where to listen on 127.0.0.1.")
def ui(port: int) -> None:
    """Open MLflow's pages on 127.0.0.1 with this project's runs."""
    from finespun.tracking.ui import serve  # noqa: PLC0415

    serve(this_project(), port)


@click.command()
def summary() -> None:
    """Print the test metrics beside the baselines, and where to look."""
    from finespun.report.summary import show  # noqa: PLC0415

    show(this_project())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
def report(folder: Path | None) -> None:
    """Write the report of a run, or of the project, as one page."""
    from finespun.config.compose import compose  # noqa: PLC0415
    from finespun.report.champion import beside_champion  # noqa: PLC0415
    from finespun.report.facts import read  # noqa: PLC0415
    from finespun.report.page import render  # noqa: PLC0415

    project = this_project()
    artifacts = Artifacts(project=project.project, out=(folder or project.out).resolve())
    found = read(artifacts)
    whole = render(found, beside_champion(artifacts, found, compose(project)[0]))
    artifacts.page.write_text(whole, encoding="utf-8")
    click.echo(str(artifacts.page))


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="Whose rows both predicted.",
)
def compare(folders: tuple[Path, ...], split: str) -> None:
    """Compare models on the same rows.

    Scores beside those of the first, with intervals and McNemar's test.

    FOLDERS are folders of `finespun run`, or `.` for the project.
    """
    from finespun.report.compare import show, side_by_side  # noqa: PLC0415

    project = this_project().project
    show(side_by_side([Artifacts(project=project, out=folder.resolve()) for folder in folders], split))
