"""Commands about what made a model, and what would change it: `finespun trace`, `plan`, `reproduce`."""

from __future__ import annotations

import click

from finespun.artifacts import this_project
from finespun.errors import MachineError


@click.command()
@click.argument("given", metavar="X")
def trace(given: str) -> None:
    """Print the chain from data to model and report, verified.

    X is a run id, a model's folder, NAME@ALIAS of the registry, a git commit or a data file. Ends with 1 where a link is
    broken, and names it.
    """
    from finespun.config.compose import compose  # noqa: PLC0415
    from finespun.tracking.trace import trace as found  # noqa: PLC0415  (imports mlflow)

    artifacts = this_project()
    config, _ = compose(artifacts)
    broken = []
    for run_id, links in found(given, artifacts, config.runtime):
        click.echo(f"run {run_id}")
        for link in links:
            click.echo(f"  {MARKS[link.state]} {link.what:<16} {link.said}{f': {link.why}' if link.why else ''}")
        broken += [link for link in links if link.state == "differs"]
    if broken:
        click.echo(f"finespun trace: broken: {broken[0].what}: {broken[0].said}: {broken[0].why}", err=True)
        raise SystemExit(1)


MARKS = {"ok": "+", "gone": "-", "differs": "!"}


@click.command()
def plan() -> None:
    """Print which stages `dvc repro` would run, and why.

    Also what they took last time, and what DVC's cache has; nothing is changed.
    """
    from finespun.lineage.plan import plan as planned  # noqa: PLC0415
    from finespun.lineage.plan import show  # noqa: PLC0415

    artifacts = this_project()
    show(planned(artifacts), artifacts)


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@click.option("--keep", is_flag=True, help="Keep the temporary folder.")
def reproduce(run_id: str, *, keep: bool) -> None:
    """Make the model of a run anew, and compare the bits.

    From the run's commit, in a temporary folder.
    """
    from finespun.lineage.reproduce import reproduce as again  # noqa: PLC0415

    found = again(run_id, this_project(), keep=keep)
    for name, same, said in found:
        click.echo(f"  {'+' if same else '!'} {name:<10} {said}")
    wrong = [name for name, same, _ in found if not same]
    if wrong:
        raise MachineError(f"the first stage that differs is {wrong[0]}")
    click.echo("the same bits")
