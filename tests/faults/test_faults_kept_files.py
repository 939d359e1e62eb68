"""Files that are kept and trusted later: damaged in any way, they are made anew or an older one is taken, to the same bits."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from finespun import kept
from finespun.config.sections import ModelConfig
from finespun.data.prepared import PreparedData
from finespun.errors import DataError, ModelError
from finespun.kept import SEAL, damage, in_one_move, seal
from finespun.models.conversion.folder import ready
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted
from finespun.training.frozen import head_inputs, replay
from finespun.training.lightning.callbacks import Saver
from helpers import ROOT, Project
from small_run import Train, same_bits


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("BOMB",)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit flipped": flip,
    "cut short": cut_short,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\x01"),
    "deleted": Path.unlink,
    "a link to itself": in_a_circle,
    "a folder": a_folder,
}
every_damage = pytest.mark.parametrize("hurt", DAMAGES.values(), ids=DAMAGES.keys())
quick = {"a bit flipped"}
any_damage = pytest.mark.parametrize(  # where each takes seconds
    "hurt", [pytest.param(hurt, id=name, marks=[] if name in quick else pytest.mark.slow) for name, hurt in DAMAGES.items()]
)
others = [
    pytest.param(hurt, id=name, marks=pytest.mark.slow)
    for name, hurt in (("a pickle", DAMAGES["a pickle"]), ("deleted", Path.unlink))
]
some_damages = pytest.mark.parametrize("hurt", [pytest.param(flip, id="flipped"), *others])


def shipped(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()))


# Folders that are made once.


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "values").write_bytes(b"0123456789" * 100)
    (folder / "other").write_text("x")


@every_damage
@pytest.mark.parametrize("name", ["inner/values", "other", SEAL])
def test_a_kept_folder_is_made_anew(
    hurt: Callable[[Path], object], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = in_one_move(tmp_path / "kept", fill)
    assert in_one_move(folder, lambda _: pytest.fail("is whole")) == folder
    hurt(folder / name)
    in_one_move(folder, fill)
    assert damage(folder) is None
    assert (folder / "inner" / "values").read_bytes() == b"0123456789" * 100
    said = capsys.readouterr().out
    assert said.count("warning: ") == 1
    assert f"{folder}: is damaged (" in said
    assert "it is made anew" in said
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    in_one_move(folder, lambda _: pytest.fail("is whole"))


def test_what_is_no_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    assert damage(in_one_move(tmp_path / "kept", fill)) is None
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert damage(in_one_move(tmp_path / "link", fill)) is None


def test_of_several_processes_that_start_together_one_fills_a_folder_and_the_others_wait(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from finespun.kept import in_one_move\n"
        "def fill(partial):\n"
        "    print('fills', flush=True); time.sleep(1)\n"
        "    if sys.argv[2] == 'dies': os._exit(1)\n"
        "    (partial / 'made').write_text('x')\n"
        "assert (in_one_move(Path(sys.argv[1]), fill, alone=True) / 'made').is_file()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def begin(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(tmp_path / "kept"), how]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    first = begin("dies")
    assert first.stdout is not None
    assert first.stdout.readline() == "fills\n"
    others = [begin("lives") for _ in range(4)]
    said = [process.communicate()[0] for process in others]
    assert [process.returncode for process in others] == [0] * 4
    assert sorted(said) == ["", "", "", "fills\n"], "whoever comes after the one that died"
    first.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_a_killed_process_left_is_removed_and_what_another_is_making_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from finespun.kept import in_one_move\n"
        "in_one_move(Path(sys.argv[1]), lambda partial: (print(partial, flush=True), time.sleep(60)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kept")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        partial = Path(process.stdout.readline().strip())
        in_one_move(tmp_path / "kept", fill)
        assert partial.is_dir(), "it is at work"
        process.kill()
    shutil.rmtree(tmp_path / "kept")
    in_one_move(tmp_path / "kept", fill)
    assert not partial.exists()


@pytest.mark.parametrize("strategy", [shipped("head"), {**shipped("last_n"), "blocks": 1}], ids=["head", "last_n"])
@some_damages
def test_damaged_features_are_computed_anew_to_the_same_bits(
    hurt: Callable[[Path], object], strategy: dict[str, Any], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": strategy, "features": tmp_path / "features", "trainer__max_epochs": 1}
    whole = train(tmp_path / "a", **options)
    kept = list((tmp_path / "features").rglob("*.npy"))
    assert len(kept) >= 2
    for path in kept:
        hurt(path)
    computed: list[int] = []
    for module, name in ((replay, "capture"), (head_inputs, "_compute")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, call=original: (computed.append(1), call(*given))[1])
    assert same_bits(whole, train(tmp_path / "b", **options))
    assert computed
    computed.clear()
    assert same_bits(whole, train(tmp_path / "c", **options))
    assert not computed
    assert not Path("BOMB").exists()


@some_damages
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_converted_weights_are_converted_anew(
    hurt: Callable[[Path], object], name: str, tmp_path: Path, tiny_bert: Path
) -> None:
    from safetensors.torch import load_file

    source = shutil.copytree(tiny_bert, tmp_path / "source")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    section = ModelConfig(checkpoint=str(source))
    folder = ready(section, tmp_path, auto_class="AutoModelForSequenceClassification")
    content = (folder / name).read_bytes()
    hurt(folder / name)
    assert ready(section, tmp_path, auto_class="AutoModelForSequenceClassification") == folder
    assert (folder / name).read_bytes() == content


# Prepared data, which DVC keeps.


@every_damage
@pytest.mark.parametrize("name", ["train.arrow", "val.arrow", "schema.json", SEAL])
def test_damaged_prepared_data_are_an_error_with_its_remedy(
    hurt: Callable[[Path], object], name: str, prepared: PreparedData, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared.folder, tmp_path / "prepared")
    seal(folder)
    assert PreparedData(folder).verified("train", "val").open("val").num_rows
    hurt(folder / name)
    with pytest.raises(DataError, match=r"prepared: is not what `prepare` wrote \(.*\); run `dvc repro --force prepare`"):
        PreparedData(folder).verified("train", "val")


def test_a_stage_reads_no_digest_of_what_it_may_not_read(prepared: PreparedData, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared.folder, tmp_path / "prepared")
    seal(folder)
    (folder / "test.arrow").unlink()
    PreparedData(folder).verified("train", "val")


@pytest.mark.slow
@pytest.mark.parametrize("same_time", [True, False], ids=["as a disk does it", "as an editor does it"])
def test_the_remedy_for_prepared_data_is_true(finished: Project, tmp_path: Path, same_time: bool) -> None:
    project = finished.copy(tmp_path / "project")
    path = project.folder / "data" / "prepared" / "train.arrow"
    path.chmod(0o644)
    before, content = path.stat(), path.read_bytes()
    flip(path)
    if same_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stage = project.run("python", "-m", "finespun.stages", "finetune", check=False)
    assert stage.returncode == 3
    assert "the sha256 of train.arrow is not the one in digests.json" in stage.stderr
    assert "run `dvc repro --force prepare`" in stage.stderr
    project.run("dvc", "repro", "--force", "prepare")
    assert path.read_bytes() == content
    project.run("python", "-m", "finespun.stages", "finetune")


# Checkpoints, the best weights, notes.

SAVES = 15  # of 18 steps; the best epoch is then known and in a file


class KilledError(Exception):
    """Stands for kill -9: nothing of ours is called after it."""


@pytest.fixture
def killed(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed after two epochs and a half."""
    save, done = Saver.save, iter(range(1, 1000))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == SAVES:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Saver, "save", save_then_die)
        with pytest.raises(KilledError):
            train(tmp_path / "killed")
    return tmp_path / "killed"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Fitted]:
    """What an undisturbed run ends in, once it has been made."""
    return []


def undisturbed(whole: list[Fitted], train: Train, tmp_path: Path) -> Fitted:
    if not whole:
        whole.append(train(tmp_path / "whole"))
    return whole[0]


@any_damage
@pytest.mark.parametrize("files", ["state-*15.ckpt", "best-*.ckpt", "*15.ckpt.sha256", "*.ckpt"])
def test_damaged_checkpoints_and_best_weights_end_in_the_same_bits(
    hurt: Callable[[Path], object], files: str, killed: Path, whole: list[Fitted], train: Train, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    found = list(killed.glob(files))
    assert found
    for path in found:
        hurt(path)
    capsys.readouterr()
    assert same_bits(undisturbed(whole, train, tmp_path), train(killed))
    said = capsys.readouterr().out
    if hurt is not Path.unlink or not any(path.name.startswith("state") and path.suffix == ".ckpt" for path in found):
        assert "is damaged (" in said
    assert "taking up state-000000015" not in said
    assert not Path("BOMB").exists()


def test_an_older_state_has_its_own_best_weights(killed: Path) -> None:
    store = Store(killed)
    bests = {store._best_of(path) for path in store.states()}
    assert len(store.states()) == 3
    assert len(bests) == 2
    named = {name for name in bests if name}
    assert {path.name for path in killed.glob("best-*.ckpt")} == named


@some_damages
def test_best_weights_that_are_damaged_while_training_goes_on(
    hurt: Callable[[Path], object], whole: list[Fitted], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Saver.load_best

    def hurt_then_load(self: Saver, *given: Any) -> None:
        hurt(self.store.folder / self.best_file)
        load(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Saver, "load_best", hurt_then_load)
        with pytest.raises(ModelError, match=r"best-\d+.ckpt: is damaged \(.*\); start again: training goes on from an older"):
            train(tmp_path / "hurt")
    assert same_bits(undisturbed(whole, train, tmp_path), train(tmp_path / "hurt")), "the advice helps"


@every_damage
def test_a_damaged_note_is_done_without(
    hurt: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.note("run_id", "abc")
    assert Store(tmp_path).note("run_id") == "abc"
    hurt(tmp_path / "run_id.json")
    assert store.note("run_id") is None
    assert ("is damaged; training does without it" in capsys.readouterr().out) == (hurt is not Path.unlink)


@pytest.mark.parametrize("value", ['{"value": "abd", "sha256": "0"}', "[]", "null", "3", '"abc"', "{}"])
def test_notes_of_another_kind_are_done_without(value: str, tmp_path: Path) -> None:
    (tmp_path / "run_id.json").write_text(value)
    assert Store(tmp_path).note("run_id") is None


@any_damage
def test_a_damaged_history_costs_no_more_than_its_lines(
    hurt: Callable[[Path], object], killed: Path, whole: list[Fitted], train: Train, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    hurt(killed / "history.csv")
    assert same_bits(undisturbed(whole, train, tmp_path), train(killed))


def test_a_list_of_digests_can_be_checked_by_hand(killed: Path) -> None:
    newest = Store(killed).states()[0]
    done = subprocess.run(
        ["sha256sum", "--check", f"{newest.name}.sha256"], cwd=killed, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == 2
    assert json.dumps(done.stdout).count("best-") == 1


def test_digests_of_files_are_kept_and_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept_in = tmp_path / "raw", tmp_path / "state" / "digests.json"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    read: list[str] = []
    real = kept.file_digest
    monkeypatch.setattr(kept, "file_digest", lambda path: read.append(Path(path).name) or real(path))

    def digest() -> str:
        read.clear()
        digests = kept.FileDigests(kept_in)
        found = digests(folder)
        digests.save()
        return found

    first = digest()
    assert first == kept.folder_digest(folder)
    assert digest() == first
    assert read == ["a", "b"], "of a file that was just written, times tell little"
    monkeypatch.setattr(kept, "SETTLED", -1)
    digest()
    assert (digest(), read) == (first, [])
    (folder / "b").write_text("c")
    assert digest() != first
    assert read == ["b"]
    kept_in.write_text('{"torn')
    assert (digest(), sorted(read)) == (kept.folder_digest(folder), ["a", "b"])
