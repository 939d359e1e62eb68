"""All checks of `finespun doctor` in their order, its table, and `--fix`."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from finespun.artifacts import Artifacts
from finespun.doctor import machine, project
from finespun.doctor.dvc import check_dvc
from finespun.doctor.finding import Finding
from finespun.errors import MachineError

MARKS = {"well": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("wrong", "bold red")}


def examine(artifacts: Artifacts) -> list[Finding]:
    """Runs all checks; writes nothing that stays."""
    return [*_all(artifacts)]


def _all(artifacts: Artifacts) -> Iterator[Finding]:
    yield from project.check_versions()
    yield from machine.check_combinations()
    said, config = project.check_configuration(artifacts)
    yield said
    if config is not None:
        yield from machine.check_devices(config)
        yield from machine.check_server(config)
    yield from check_dvc(artifacts)
    if artifacts.dvc.is_dir():
        yield from machine.check_storage(artifacts)
    yield from project.check_folders(artifacts)
    yield from project.check_disk(artifacts)
    yield from project.check_checkpoints(artifacts)
    yield from project.check_leftovers(artifacts)
    yield from project.check_mlflow(artifacts)


def doctor(artifacts: Artifacts, *, fix: bool) -> None:
    """Shows what is found; with `fix`, mends what can be mended without asking, and looks again.

    Raises:
        MachineError: something keeps the project from working.
    """
    console, found = Console(), examine(artifacts)
    if fix:
        for finding in found:
            if finding.fix is not None:
                console.print(Text(f"{finding.check}: {finding.fix()}"), soft_wrap=True)
        found = examine(artifacts)
    console.print(table(found))
    wrong = [finding for finding in found if finding.state == "wrong"]
    if wrong:
        fixable = sum(finding.fix is not None for finding in wrong)
        by_itself = f"; `finespun doctor --fix` mends {fixable} of them" if fixable else ""
        raise MachineError(f"{len(wrong)} of {len(found)} checks found something wrong ({_names(wrong)}){by_itself}")


def _names(findings: list[Finding]) -> str:
    return ", ".join(dict.fromkeys(finding.check for finding in findings))


def table(findings: list[Finding]) -> Table:
    """Returns a line a finding, with its remedy below."""
    made = Table(box=box.SIMPLE_HEAD)
    made.add_column("", no_wrap=True)
    made.add_column("check", no_wrap=True)
    made.add_column("found", overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.state]
        found = Text(finding.found)
        if finding.remedy:
            found.append(f"\n-> {finding.remedy}", style="dim")
        made.add_row(Text(mark, style=style), Text(finding.check), found)
    return made
