"""The commands about data: `finespun check`."""

from __future__ import annotations

import sys

import click

from finespun.artifacts import Artifacts, find_project
from finespun.errors import DataError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def check(*, as_json: bool) -> None:
    """Check the data that params.yaml names, as `prepare` does: everything at once; exit code 3 if there are errors."""
    from finespun.stages import checking  # noqa: PLC0415

    project = find_project()
    found = checking.examined(Artifacts(project=project, out=project))
    click.echo(checking.as_json(found) if as_json else checking.as_text(found))
    if found.report.counts("error"):
        sys.exit(DataError.exit_code)
