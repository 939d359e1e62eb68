"""Commands that explore: `finespun run`, `finespun sweeps`, `finespun promote`."""

from __future__ import annotations

import click

from finespun.artifacts import this_project


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False, options_metavar=""
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def run(overrides: tuple[str, ...]) -> None:
    """Explore: fine-tune and evaluate apart from `dvc repro` (Hydra: KEY=VALUE, --multirun, --cfg job, --help)."""
    from finespun.explore import explore  # noqa: PLC0415

    explore(list(overrides))


@click.command()
@click.argument("name", required=False)
def sweeps(name: str | None) -> None:
    """List the sweeps of `finespun run -m` with their trials and the best; of one, each trial."""
    from finespun.sweeps.listing import show_all, show_one  # noqa: PLC0415

    if name is None:
        show_all(this_project())
    else:
        show_one(this_project(), name)


@click.command()
@click.argument("what", metavar="SWEEP|RUN_ID")
@click.option("--name", help="Of the experiment [default: that of the sweep].")
def promote(what: str, name: str | None) -> None:
    """Make the best trial of a sweep, or a run, the project's: conf/experiment/NAME.yaml and params.yaml."""
    from finespun.sweeps.promote import promote as promote_it  # noqa: PLC0415

    promote_it(this_project(), what, name)
