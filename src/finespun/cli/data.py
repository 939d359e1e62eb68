"""Commands about data: `finespun init`, `finespun check`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from finespun.artifacts import Artifacts, this_project
from finespun.cli.use import columns_by_role
from finespun.errors import DataError, FinespunError


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--name", help="Of the file in conf/data [default: by the file's name].")
@click.option("--task", help="One of conf/task [default: what the data look like].")
@click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN", help="The column of a role, such as label=queue.")
@click.option("--force", is_flag=True, help="Write over files that are there already.")
def init(path: Path | None, name: str | None, task: str | None, columns: tuple[str, ...], *, force: bool) -> None:
    """Look at your data and set the project up to learn them.

    Writes conf/data/NAME.yaml and sets params.yaml, so that `dvc repro` fine-tunes on a file or folder of data.

    Without PATH, in a terminal, it asks.
    """
    from finespun.own_data.init import Wishes, initialise  # noqa: PLC0415

    chosen = columns_by_role(columns)
    artifacts = this_project()
    ask = None
    if path is None:
        if not sys.stdin.isatty():
            raise click.UsageError("say the PATH of a file or folder; without one, it asks in a terminal")
        there = [each for each in artifacts.raw[0].glob("*") if not each.name.startswith((".", "dvc", "README"))]
        known = sorted(each.name for each in there if each.suffix != ".py")  # scripts make data, and are none
        click.echo(f"in data/raw: {', '.join(known) or 'nothing'}")
        path = Path(click.prompt("file or folder"))
        if not path.exists() and (artifacts.raw[0] / path).exists():
            path = artifacts.raw[0] / path

        def ask(question: str, proposal: str) -> str:
            return str(click.prompt(question, default=proposal or None))

    wishes = Wishes(name=name, task=task, columns=chosen, force=force, ask=ask)
    initialise(artifacts, path, wishes, click.echo)
    click.echo(_problems(artifacts))
    click.echo("next: finespun check (all of that again), dvc repro")


def _problems(artifacts: Artifacts) -> str:
    from finespun.own_data import check as checking  # noqa: PLC0415

    try:
        found = checking.examined(artifacts)
    except FinespunError as error:
        return f"not ready yet: {error}"
    return checking.as_text(found)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def check(*, as_json: bool) -> None:
    """Check the data that params.yaml names, as `prepare` does.

    Everything at once; the exit code is 3 if there are errors.
    """
    from finespun.own_data import check as checking  # noqa: PLC0415

    found = checking.examined(this_project())
    click.echo(checking.as_json(found) if as_json else checking.as_text(found))
    if found.report.counts("error"):
        sys.exit(DataError.exit_code)
