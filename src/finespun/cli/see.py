"""Commands that show results: `finespun summary`, `finespun ui`."""

from __future__ import annotations

import click

from finespun.artifacts import this_project


@click.command()
@click.option("--port", default=5000, show_default=True, help="Where to listen on 127.0.0.1.")
def ui(port: int) -> None:
    """Open MLflow's pages on 127.0.0.1 with this project's runs."""
    from finespun.tracking.ui import serve  # noqa: PLC0415

    serve(this_project(), port)


@click.command()
def summary() -> None:
    """Print the test metrics beside the baselines, and where to look."""
    from finespun.report.summary import show  # noqa: PLC0415

    show(this_project())
