"""Commands that explore: `finespun run`."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False, options_metavar=""
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def run(overrides: tuple[str, ...]) -> None:
    """Explore: fine-tune and evaluate apart from `dvc repro` (Hydra: KEY=VALUE, --multirun, --cfg job, --help)."""
    from finespun.explore import explore  # noqa: PLC0415

    explore(list(overrides))
