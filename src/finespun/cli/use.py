"""Commands that use a model: `finespun predict`, `embed`, `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finespun.artifacts import Artifacts, this_project
from finespun.errors import DataError

if TYPE_CHECKING:
    from finespun.evaluation.analysis.attribution import Explained
    from finespun.evaluation.predictor import Predictor


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--output", "-o", type=click.Path(path_type=Path, allow_dash=True), default="-", show_default=True,
              help="CSV, JSON Lines, Parquet, COCO's .json, by its ending; - is CSV on standard output.")  # fmt: skip
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="A fine-tuned folder [default: models/finetuned]."
)
@click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN",
              help="A column to read, if it is called other than in training, such as text=review.")  # fmt: skip
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "json", "jsonl", "parquet", "arrow", "coco", "voc", "yolo", "csv_of_boxes"]),
    help="Of INPUT [default: by its ending].",
)
@click.option("--delimiter", metavar="CHARACTER", help="Between the fields of a CSV [default: as in training].")
@click.option("--encoding", help="Of a text file, such as utf-8 or latin-1 [default: as in training].")
@click.option(
    "--quoting",
    type=click.Choice(["auto", "standard", "none"]),
    help="Of a CSV; none: quotes are text [default: as in training].",
)
@click.option(
    "--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Predictions a row, the likeliest first."
)
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs, or processes on CPUs.")
@click.option("--draw", type=click.Path(file_okay=False), metavar="FOLDER", help="Write pictures with boxes or masks there.")
@click.option("--strict", is_flag=True, help="End at the first row that cannot be predicted.")
@click.option(
    "--allow-outside", is_flag=True, help="Read files that INPUT names wherever they lie, not only beside it or below here."
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that lies in the model's folder.")
def predict(
    source: Path, output: Path, model: Path | None, columns: tuple[str, ...], top_k: int, devices: int, *,
    draw: str | None, strict: bool, allow_outside: bool, trust_remote_code: bool, **reading: str | None,
) -> None:  # fmt: skip
    """Predict each row of a file, a folder or standard input.

    INPUT is CSV, JSON Lines, Parquet, a folder of images, or - for one input a line.

    A row that cannot be predicted says why in the column `error`.
    """
    from finespun.evaluation.predict_devices import predict_on  # noqa: PLC0415

    chosen = columns_by_role(columns)
    if len(reading["delimiter"] or ",") != 1:
        raise click.BadParameter(f"{reading['delimiter']!r} is not one character", param_hint="--delimiter")
    said = {name: value for name, value in reading.items() if value is not None}
    folder = model or this_project().finetuned
    count, failed = predict_on(
        devices, source, output, folder=folder, columns=chosen, reading=said, top_k=top_k, draw=draw, strict=strict,
        allow_outside=allow_outside, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    bad = f", {failed:,} of them could not be predicted (column error)" if failed else ""
    where = "standard output" if str(output) == "-" else output
    click.echo(f"{count:,} row{'s' if count != 1 else ''} -> {where}{bad}", err=True)


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True,
              help="Parquet, JSON Lines or CSV, by its ending, with a column `vector`.")  # fmt: skip
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="A fine-tuned folder [default: models/finetuned]."
)
@click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN",
              help="A column to read, if it is called other than in training, such as text=title.")  # fmt: skip
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs, or processes on CPUs.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that lies in the model's folder.")
def embed(
    source: Path, output: Path, model: Path | None, columns: tuple[str, ...], devices: int, *, trust_remote_code: bool
) -> None:
    """Write the vector of each row of a file, of length 1.

    INPUT is CSV, JSON Lines, Parquet, or - for one text a line.
    """
    from finespun.evaluation.predict_devices import predict_on  # noqa: PLC0415

    count, failed = predict_on(
        devices, source, output, folder=model or this_project().finetuned, columns=columns_by_role(columns), top_k=0,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    bad = f", {failed:,} of them have none (column error)" if failed else ""
    click.echo(f"{count:,} vector{'s' if count != 1 else ''} -> {output}{bad}", err=True)


def columns_by_role(columns: tuple[str, ...]) -> dict[str, str]:
    """Reads `--column ROLE=COLUMN`, as often as it is given."""
    wrong = [each for each in columns if "=" not in each]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not ROLE=COLUMN", param_hint="--column")
    return dict(each.split("=", 1) for each in columns)


@click.command()
@click.argument("given", metavar="[TEXT|IMAGE]", required=False)
@click.option("--row", type=click.IntRange(min=0), help="Explain this row of the validation or test split instead.")
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="A fine-tuned folder [default: models/finetuned]."
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write the image with its heat there (PNG)."
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that lies in the model's folder.")
def explain(
    given: str | None, row: int | None, model: Path | None, output: Path | None, *, trust_remote_code: bool
) -> None:  # fmt: skip
    """Show what in a text or an image made the predicted label.

    Integrated gradients, checked against deleting parts.

    IMAGE is the path of a file. --row takes the number that the report and predictions.parquet give a row.
    """
    from finespun.evaluation.analysis.attribution import explain as explained  # noqa: PLC0415
    from finespun.evaluation.predictor import Predictor  # noqa: PLC0415

    if (given is None) == (row is None):
        raise click.UsageError("give a text or an image, or --row, and not both")
    artifacts = this_project()
    predictor = Predictor(model or artifacts.finetuned, trust_remote_code=trust_remote_code)
    values: dict[str, Any] = dict.fromkeys(predictor.columns.values(), given)
    predictor.task = predictor.task.reading_from(Path(), inside=[Path()])
    if row is not None:
        values, folder = _row(artifacts, row, predictor.columns)
        predictor.task = predictor.task.reading_from(folder, artifacts.project, inside=[folder, artifacts.project])
    found = explained(predictor, values)
    click.echo(f"{found.label}, probability {found.probability:.3f}")
    _show_parts(found)
    if output is not None:
        _write_heat(found, predictor, values, output)
    areas = f"area under the probability {found.deletion:.3f}, in random orders {found.random:.3f}"
    if found.holds:
        click.echo(f"deleting them in this order: {areas}: they matter")
    else:
        click.echo(f"warning: deleting them in this order is no better than at random ({areas}): do not trust it")


def _row(artifacts: Artifacts, number: int, columns: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Returns a row that was evaluated, by column, and the folder of its files."""
    from finespun.report.facts import read  # noqa: PLC0415

    facts = read(artifacts)
    for split in facts.splits:
        numbers = split.predictions["row"].to_pylist()
        if number in numbers:
            [row] = split.predictions.slice(numbers.index(number), 1).to_pylist()
            source = artifacts.project / facts.schema["source"]["path"]
            folder = source if source.is_dir() else source.parent
            return {column: row[role] for role, column in columns.items() if role in row}, folder
    raise DataError(
        f"--row: {number} is no row of the splits that were evaluated; the report and predictions.parquet name them"
    )


def _show_parts(found: Explained) -> None:
    """Prints each word, or the fields of an image as a grid, with what it adds to the log-odds."""
    if found.grid:
        across = found.grid[1]
        for start in range(0, len(found.scores), across):
            click.echo("  " + " ".join(f"{score:+6.2f}" for score in found.scores[start : start + across]))
        return
    largest = max((abs(score) for score in found.scores), default=1.0) or 1.0
    for token, score in zip(found.tokens, found.scores, strict=True):
        click.echo(f"  {token:<20} {score:+8.3f}  {('+' if score > 0 else '-') * round(20 * abs(score) / largest)}")


def _write_heat(found: Explained, predictor: Predictor, values: dict[str, Any], output: Path) -> None:
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    from finespun.data.checks import role_values  # noqa: PLC0415
    from finespun.evaluation.drawing import with_heat  # noqa: PLC0415
    from finespun.failures import while_writing  # noqa: PLC0415

    if found.grid is None:
        raise click.UsageError("--output is for images: what is said of a text stands on the screen")
    task = predictor.task
    columns = task.encode([role_values(values, predictor.columns, task)], predictor.encoder, None)
    pixels = np.frombuffer(columns["pixels"][0].as_buffer(), np.uint8).reshape(columns["height"][0].as_py(), -1, 3)
    with while_writing(output):
        with_heat(Image.fromarray(pixels), found.scores, found.grid).save(output, "PNG")
    click.echo(f"{output}: warm fields speak for {found.label}, cold ones against it")
