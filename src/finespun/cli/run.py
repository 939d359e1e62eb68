"""Commands that explore, and choose: `finespun run`, `sweeps`, `promote`, `register`."""

from __future__ import annotations

import click

from finespun.artifacts import this_project


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False, options_metavar=""
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def run(overrides: tuple[str, ...]) -> None:
    """Fine-tune with KEY=VALUE changes; -m searches.

    A Hydra app (KEY=VALUE, --multirun, --cfg job, --help) that leaves the results of `dvc repro` alone.
    """
    from finespun.explore import explore  # noqa: PLC0415

    explore(list(overrides))


@click.command()
@click.argument("name", required=False)
def sweeps(name: str | None) -> None:
    """List the sweeps of `finespun run -m`; of one, each trial."""
    from finespun.sweeps.listing import show_all, show_one  # noqa: PLC0415

    if name is None:
        show_all(this_project())
    else:
        show_one(this_project(), name)


@click.command()
@click.argument("what", metavar="SWEEP|RUN_ID")
@click.option("--name", help="Of the experiment [default: that of the sweep].")
def promote(what: str, name: str | None) -> None:
    """Make the best trial of a sweep, or a run, the project's.

    Writes conf/experiment/NAME.yaml and sets params.yaml; `dvc repro` then makes its model.
    """
    from finespun.sweeps.promote import promote as promote_it  # noqa: PLC0415

    promote_it(this_project(), what, name)


@click.command()
@click.argument("run_id", metavar="[RUN_ID]", required=False)
@click.option("--force", is_flag=True, help="Make it the champion even if it is no better.")
def register(run_id: str | None, *, force: bool) -> None:
    """Register a model in MLflow as candidate, or as champion.

    It becomes the `champion` if it passes the gate of conf/evaluation.

    RUN_ID is that of models/finetuned unless it is given. The model must have been tested (`dvc repro`).
    """
    from finespun.report.champion import register as register_it  # noqa: PLC0415

    register_it(this_project(), run_id=run_id, force=force)
