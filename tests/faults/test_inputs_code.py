"""Code that comes with files: pickles as weights, and classes that a checkpoint brings along. It runs only where it is trusted."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load, load_processor, with_head_dropout
from helpers import ROOT, Project

CLASS = "AutoModelForSequenceClassification"


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / 'PWNED'}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def checkpoint(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with a module that leaves PWNED behind, in a shell where `y` waits on standard input."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_bert, folder)
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'PWNED')!r}).touch()\n")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    return folder


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def with_code(folder: Path, kind: str) -> None:
    if kind == "model":
        change(folder / "config.json", auto_map={"AutoConfig": "evil.Config", CLASS: "evil.Model"}, model_type="evil")
    elif kind == "tokenizer":
        change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="EvilT")
    else:
        made = {"image_processor_type": "EvilP", "auto_map": {"AutoImageProcessor": "evil.P"}}
        (folder / "preprocessor_config.json").write_text(json.dumps(made))


LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "model": ("model", lambda folder: load(folder, auto_class=CLASS, options={"num_labels": 2}, new_head=True)),
    "head's dropout": ("model", lambda folder: with_head_dropout(folder, 0.5)),
    "configuration": ("model", lambda folder: load_processor("AutoConfig", folder, {})),
    "image processor": ("processor", lambda folder: load_processor("AutoImageProcessor", folder, {})),
}


@pytest.mark.parametrize("name", LOADERS)
def test_code_of_a_checkpoint_is_refused_and_nobody_is_asked(checkpoint: Path, name: str) -> None:
    kind, loading = LOADERS[name]
    with_code(checkpoint, kind)
    with pytest.raises(ModelError, match=r"contains custom code.*model.trust_remote_code: true"):
        loading(checkpoint)
    assert not (checkpoint.parent / "PWNED").exists()


def test_a_tokenizer_with_code_is_read_without_it(checkpoint: Path) -> None:
    with_code(checkpoint, "tokenizer")
    assert load_processor("AutoTokenizer", checkpoint, {})("a")["input_ids"]
    assert not (checkpoint.parent / "PWNED").exists()


def test_following_the_advice_runs_it(checkpoint: Path) -> None:
    with_code(checkpoint, "model")
    with pytest.raises(Exception, match="evil"):  # the module has no such class, which was found out by running it
        load_processor("AutoConfig", checkpoint, {}, trust_remote_code=True)
    assert (checkpoint.parent / "PWNED").exists()


@pytest.mark.parametrize("inside", [False, True])
def test_a_class_that_a_configuration_names_is_not_imported(checkpoint: Path, inside: bool) -> None:
    named = {"model_type": "finespun_module", "target": "evil.Net"}
    change(checkpoint / "config.json", **({"model_type": "finespun_forest", "base": named} if inside else named))
    model = ModelConfig.model_validate({"checkpoint": str(checkpoint)})
    with pytest.raises(ModelError, match=r"names the class evil.Net.*trust_remote_code: true"):
        ready(model, checkpoint.parent, auto_class=CLASS)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "w.pth", "w.pt", "w.ckpt"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_as_weights_runs_nothing(checkpoint: Path, name: str, writer: str) -> None:
    bomb = {"state_dict": {"w": torch.zeros(2)}, "x": Bomb(checkpoint.parent)}
    path = checkpoint / name
    if writer == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path)
    (checkpoint / "model.safetensors").unlink()
    of_a_file = {"config": {"model_type": "bert"}, "weights": str(path), "tokenizer": str(checkpoint)}
    model = ModelConfig.model_validate({"checkpoint": str(checkpoint)} if name.endswith(".bin") else of_a_file)
    with pytest.raises(ModelError, match=r"asks to run \w+\.system; nothing in it was run|is no file that torch.save wrote"):
        ready(model, checkpoint.parent, auto_class=CLASS)
    assert not (checkpoint.parent / "PWNED").exists()


def test_each_call_that_could_run_code_says_whether_it_may() -> None:
    """transformers asks on the terminal where `trust_remote_code` is not passed."""
    seen = 0
    for path in sorted((ROOT / "src" / "finespun").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            attributes = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
            theirs = [each for each in attributes if each.attr in {"from_pretrained", "from_config"}]
            calls = sum(not ast.unparse(each.value).startswith("Peft") for each in theirs)
            said = ast.unparse(node).count("trust_remote_code=") + ast.unparse(node).count("'trust_remote_code':")
            assert said >= calls, f"{path.name}: {node.name}"
            seen += calls
    assert seen >= 5


def test_a_stage_reads_nothing_from_standard_input() -> None:
    code = "import sys; from finespun.stages.__main__ import close_input; close_input(); print(repr(sys.stdin.read()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, input="y\n", capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "''\n"


@pytest.mark.parametrize("trusted", [False, True])
def test_the_mlflow_model_trusts_what_the_run_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    from finespun.tracking.served import script

    record: dict[str, object] = {"run_id": "a", "columns": {}, "task": {}}
    (tmp_path / "run.json").write_text(json.dumps(record | ({"trust_remote_code": True} if trusted else {})))
    given: dict[str, bool] = {}
    monkeypatch.setattr("finespun.evaluation.predictor.Predictor", lambda _folder, **options: given.update(options))
    script.FineTuned().load_context(SimpleNamespace(artifacts={"model": str(tmp_path)}))
    assert given == {"trust_remote_code": trusted}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "tokenizer"])
def test_finetune_asks_nobody(project: Project, kind: str) -> None:
    with_code(project.folder / "data" / "tiny-bert", kind)
    (project.folder / "data" / "tiny-bert" / "evil.py").write_text("import os; os.system('touch PWNED')\n")
    environment = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "-m", "finespun.stages", "configure", "prepare", "finetune"], cwd=project.folder, env=environment,
        input="y\n" * 9, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == (4 if kind == "model" else 0), done.stderr
    assert not list(project.folder.rglob("PWNED"))
