"""The command line, and what becomes of errors; each command is one call and imports what is heavy when it is called."""

from __future__ import annotations

import sys

import click

from finespun import __version__
from finespun.artifacts import this_project
from finespun.cli.care import doctor, sync
from finespun.cli.data import check, init
from finespun.cli.lineage import plan, reproduce, trace
from finespun.cli.run import promote, register, run, sweeps
from finespun.cli.see import compare, report, summary, ui
from finespun.cli.use import embed, explain, predict
from finespun.errors import FinespunError
from finespun.masking import mask_streams


class Commands(click.Group):
    """Shows the user's mistakes as messages with their exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        mask_streams(output=ctx.invoked_subcommand not in {"predict", "embed"})  # its output is data
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.exit(0)  # whoever read the output has seen enough
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001  (the last line of defence: says whose fault it is, and fails)
            sys.exit(_said(error, str(ctx.invoked_subcommand)))


def _said(error: Exception, command: str) -> int:
    from finespun.failures import bug_report, explained  # noqa: PLC0415

    known = explained(error)
    if known is not None:
        click.echo(f"finespun {command}: {known}", err=True)
        return known.exit_code
    project = this_project()
    click.echo(bug_report(error, stage=command, config=project.config, folder=project.state), err=True)
    return FinespunError.exit_code


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="finespun")
def main() -> None:
    """Declarative fine-tuning.

    `dvc repro` makes the model that params.yaml and conf/ describe; these commands explore, use and show it.
    """


for command in (
    init,
    check,
    run,
    sweeps,
    promote,
    register,
    predict,
    embed,
    explain,
    summary,
    report,
    compare,
    ui,
    plan,
    trace,
    reproduce,
    doctor,
    sync,
):
    main.add_command(command)
