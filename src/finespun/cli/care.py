"""Commands that keep a project well: `finespun doctor`, `finespun sync`."""

from __future__ import annotations

import click

from finespun.artifacts import this_project
from finespun.errors import MachineError


@click.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend, and look again.")
def doctor(*, fix: bool) -> None:
    """Check what keeps a project from working, and say the remedies.

    Locks, torn files, folders, disk, versions, devices, caches, servers.
    """
    from finespun.doctor.examination import doctor as examine  # noqa: PLC0415

    examine(this_project(), fix=fix)


@click.command()
def sync() -> None:
    """Send what MLflow has not received.

    Of runs whose server was away, or whose process was killed.
    """
    from finespun.config.compose import compose  # noqa: PLC0415
    from finespun.tracking.client import Tracker  # noqa: PLC0415

    artifacts = this_project()
    config, _ = compose(artifacts)
    left = Tracker(config.runtime, artifacts).deliver_leftovers()
    for run, reason in left.items():
        click.echo(f"left: run {run}: {reason}")
    if left:
        raise MachineError(
            f"{len(left)} run{'s' if len(left) > 1 else ''} could not be delivered; start the MLflow server, then finespun sync"
        )
    click.echo("nothing is left to send")
