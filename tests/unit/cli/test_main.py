"""The command line: quick to answer, and a mistake ends with its code and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from finespun import __version__
from finespun.cli.main import main
from helpers import ROOT

HEAVY = {"torch", "pytorch_lightning", "transformers", "mlflow", "hydra", "omegaconf", "pyarrow", "pandas", "sklearn", "numpy"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that make a folder a project; nothing has been run in it."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finespun(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_help_lists_every_command_with_what_it_does() -> None:
    result = finespun("--help")
    assert result.exit_code == 0
    assert set(main.commands) >= {"run", "predict", "ui", "summary"}
    assert "..." not in result.output.partition("Commands:")[2], "nothing is cut off in 80 columns"
    lines = {words[0]: len(words) for line in result.output.splitlines() if (words := line.split())}
    assert all(lines[name] > 3 for name in main.commands)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_each_command_says_what_it_does(name: str) -> None:
    command = main.commands[name]
    assert command.get_short_help_str()
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from finespun.cli.main import main; main(['--help'], standalone_mode=False);"
        " print(*(name.partition('.')[0] for name in sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"finespun", "click"} <= imported
    assert not imported & HEAVY


def test_the_version_is_the_packages() -> None:
    assert finespun("--version").output == f"finespun, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "model=minlm"], 2, "command line: model: there is no conf/model/minlm.yaml (did you mean 'minilm'?)"),
        (["run", "-m", "model=choice(minlm, bert-base)"], 2, "there is no conf/model/minlm.yaml (did you mean 'minilm'?)"),
        (["predict", "rows.xyz", "--model", "saved"], 3, "rows.xyz: the ending '.xyz' is not one of"),
        (["predict", "rows.csv"], 4, "models/finetuned: holds no fine-tuned model"),
        (["ui"], 5, "mlruns: holds no runs yet; `dvc repro` makes the first"),
        (["summary"], 5, "reports/test/metrics.json: is not there yet; `dvc repro` makes it"),
    ],
)
def test_a_mistake_ends_with_the_exit_code_of_its_kind(
    project: Path, tiny_bert: Path, arguments: list[str], code: int, message: str
) -> None:
    (project / "saved").symlink_to(tiny_bert)
    result = finespun(*arguments)
    assert result.exit_code == code
    assert result.stderr.startswith(f"finespun {arguments[0]}: ")
    assert message in result.stderr
    assert not result.stdout


@pytest.mark.parametrize("arguments", [["summary"], ["ui"], ["run"], ["predict", "rows.csv"]])
def test_outside_a_project_every_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    result = finespun(*arguments)
    assert result.exit_code == 5
    assert "no finespun project here or above" in result.stderr


def test_a_command_that_does_not_exist_is_a_mistake_of_use() -> None:
    assert finespun("predicts").exit_code == 2
