"""The last words of `make run`: the test metrics beside the baselines, and where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finespun.artifacts import Artifacts
from finespun.errors import MachineError, first_of, visible
from finespun.files import read_json
from finespun.report import words

NAMES = {"f1_macro": "F1 (macro)", "f1_micro": "F1 (micro)", "log_loss": "log loss", "r2": "R²", "rmse": "RMSE", "f1": "F1",
         "mean_iou": "mean IoU", "map": "mAP", "map_50": "AP50", "map_75": "AP75",
         "wer": "WER", "cer": "CER", "ndcg_at_10": "nDCG at 10", "mrr_at_10": "MRR at 10",
         "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF"}  # fmt: skip
MORE = " Try more epochs (trainer.max_epochs), another strategy, or a search (finespun run -m sweep=quick)."
BASELINES = {
    "majority_class": "majority class", "tfidf_logistic": "TF-IDF + logistic regr.", "tfidf_ridge": "TF-IDF + ridge",
    "pixels_logistic": "pixels + logistic regr.", "pixels_ridge": "pixels + ridge",
    "spectrum_logistic": "spectrum + logistic regr.", "bm25": "BM25", "ease": "EASE", "item_knn": "item-kNN",
}  # fmt: skip


def show(artifacts: Artifacts) -> None:
    """Prints the summary.

    Raises:
        MachineError: there are no test results yet.
    """
    folder = artifacts.report("test")
    missing = [path for name in ("metrics", "details") if not (path := folder / f"{name}.json").exists()]
    if missing:
        raise MachineError(f"{missing[0]}: is not there yet; `dvc repro` makes it")
    remedy = "restore it with `dvc checkout --force` or `git checkout`, or make it anew with `dvc repro --force test`"
    read = [
        read_json(folder / f"{name}.json", error=MachineError, remedy=remedy, keys=keys)
        for name, keys in (("metrics", ("rows", "test_evaluations")), ("details", ("shown", "scores", "baselines")))
    ]
    console = Console()
    console.print()
    console.print(table(*read))
    metrics, details = read
    standing = words.standing(details)
    if standing != "alone":
        said = words.verdict(details, rows=metrics["rows"], split="test")
        more = "" if standing == "better" else MORE
        console.print(Padding(Text(f"{said}{more}"), (0, 2, 1, 2)), highlight=False)
    missing = read[1].get("labels_without_rows", [])
    if missing:
        console.print(
            f"  no row of the test split has the label {first_of([*map(visible, missing)])}\n", markup=False, highlight=False
        )
    for what, where in (
        ("the model", artifacts.finetuned),
        ("report", artifacts.page),
        ("every run", "finespun ui"),
        ("use it", "finespun predict INPUT.csv --output OUT.csv"),
    ):
        place = where.relative_to(artifacts.project) if isinstance(where, Path) else where
        console.print(f"  [dim]{what:>10}[/]  {escape(str(place))}", highlight=False)
    console.print()


def table(metrics: dict[str, Any], details: dict[str, Any]) -> Table:
    """Returns a line a method, a column a metric."""
    times = metrics["test_evaluations"]
    seen = "evaluated once" if times == 1 else f"evaluated {times} times"
    title = f"Test split: {metrics['rows']:,} rows, {seen}"
    found = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    found.add_column("", no_wrap=True)
    shown = details["shown"]
    for name in shown:
        found.add_column(_named(name, NAMES), justify="right")
    for name, scores in details["baselines"].items():
        found.add_row(_named(name, BASELINES), *(f"{scores[key]:.3f}" for key in shown))
    found.add_row("[bold]fine-tuned[/]", *(f"[bold]{metrics[key]:.3f}[/]" for key in shown))
    bounds = [details["scores"][key] for key in shown]
    sure = f"[dim]{details['confidence']:.0%} interval[/]"
    found.add_row(sure, *(f"[dim]{each['low']:.3f} - {each['high']:.3f}[/]" for each in bounds))
    return found


def _named(name: str, known: dict[str, str]) -> str:
    """What a score or method is called; brackets in a name are no markup."""
    return escape(known.get(name, name.replace("_", " ")))
