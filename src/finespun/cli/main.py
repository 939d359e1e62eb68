"""The command line; each command is one call, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from finespun import __version__
from finespun.artifacts import Artifacts, find_project
from finespun.data_commands import check
from finespun.errors import FinespunError, MachineError
from finespun.masking import mask_streams


class Commands(click.Group):
    """Shows the user's mistakes as messages with their exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        mask_streams(output=ctx.invoked_subcommand != "predict")  # its output is data
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
    project = _here()
    click.echo(bug_report(error, stage=command, config=project.config, folder=project.state), err=True)
    return FinespunError.exit_code


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="finespun")
def main() -> None:
    """Declarative fine-tuning.

    `dvc repro` makes the model that params.yaml and conf/ describe; these commands explore, use and show it.
    """


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False, options_metavar=""
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def run(overrides: tuple[str, ...]) -> None:
    """Explore: fine-tune and evaluate apart from `dvc repro` (Hydra: KEY=VALUE, --multirun, --cfg job, --help)."""
    from finespun.explore import explore  # noqa: PLC0415

    explore(list(overrides))


@main.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--output", "-o", type=click.Path(path_type=Path, allow_dash=True), default="-", show_default=True,
              help="CSV, JSON Lines or Parquet, by its ending; - is CSV on standard output.")  # fmt: skip
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="A fine-tuned folder [default: models/finetuned]."
)
@click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN",
              help="A column to read, if it is called other than in training, such as text=review.")  # fmt: skip
@click.option(
    "--format", "file_format", type=click.Choice(["csv", "jsonl", "parquet"]), help="Of INPUT [default: by its ending]."
)
@click.option("--delimiter", metavar="CHARACTER", help="Between the fields of a CSV [default: as in training].")
@click.option("--encoding", help="Of a text file, such as utf-8 or latin-1 [default: as in training].")
@click.option(
    "--quoting",
    type=click.Choice(["auto", "standard", "none"]),
    help="Of a CSV; none: quotes are text [default: as in training].",
)
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Answers a row, the likeliest first.")
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs, or processes on CPUs.")
@click.option("--strict", is_flag=True, help="End at the first row that cannot be answered.")
@click.option(
    "--allow-outside", is_flag=True, help="Read files that INPUT names wherever they lie, not only beside it or below here."
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that lies in the model's folder.")
def predict(
    source: Path, output: Path, model: Path | None, columns: tuple[str, ...], top_k: int, devices: int, *, strict: bool,
    allow_outside: bool, trust_remote_code: bool, **reading: str | None,
) -> None:  # fmt: skip
    """Answer each row of INPUT (CSV, JSON Lines, Parquet; a folder of images; - reads one input a line).

    A row that cannot be answered says why in the column `error`.
    """
    from finespun.evaluation.predict_devices import predict_on  # noqa: PLC0415

    wrong = [each for each in columns if "=" not in each]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not ROLE=COLUMN", param_hint="--column")
    if len(reading["delimiter"] or ",") != 1:
        raise click.BadParameter(f"{reading['delimiter']!r} is not one character", param_hint="--delimiter")
    chosen = dict(each.split("=", 1) for each in columns)
    said = {name: value for name, value in reading.items() if value is not None}
    folder = model or _here().finetuned
    count, failed = predict_on(
        devices, source, output, folder=folder, columns=chosen, reading=said, top_k=top_k, strict=strict,
        allow_outside=allow_outside, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    bad = f", {failed:,} of them could not be answered (column error)" if failed else ""
    click.echo(f"{count:,} row{'s' if count != 1 else ''} -> {output}{bad}", err=True)


@main.command()
@click.option("--port", default=5000, show_default=True, help="Where to listen on 127.0.0.1.")
def ui(port: int) -> None:
    """Open MLflow's pages on 127.0.0.1 with this project's runs."""
    from finespun.tracking.ui import serve  # noqa: PLC0415

    serve(_here(), port)


@main.command()
def summary() -> None:
    """Print the test metrics beside the baselines, and where to look."""
    from finespun.report.summary import show  # noqa: PLC0415

    show(_here())


@main.command()
@click.option("--fix", is_flag=True, help="Mend what is safe to mend, and look again.")
def doctor(*, fix: bool) -> None:
    """Check what keeps a project from working: locks, torn files, folders, disk, versions; each with its remedy."""
    from finespun.doctor.examination import doctor as examine  # noqa: PLC0415

    examine(_here(), fix=fix)


@main.command()
def sync() -> None:
    """Send what MLflow is still owed: of runs whose server was away, or whose process was killed."""
    from finespun.config.compose import compose  # noqa: PLC0415
    from finespun.tracking.client import Tracker  # noqa: PLC0415

    artifacts = _here()
    config, _ = compose(artifacts)
    left = Tracker(config.runtime, artifacts).deliver_leftovers()
    for run, reason in left.items():
        click.echo(f"left: run {run}: {reason}")
    if left:
        raise MachineError(f"{len(left)} runs are owed something; start the server that they belong to, and sync again")
    click.echo("nothing is left to send")


main.add_command(check)


def _here() -> Artifacts:
    project = find_project()
    return Artifacts(project=project, out=project)
