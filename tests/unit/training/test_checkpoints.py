"""Checkpoint files: whole or not there, two kept, one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finespun.errors import BusyError, MachineError, ModelError
from finespun.training import checkpoints
from finespun.training.checkpoints import Signals, Store


def test_what_is_written_is_read_back_and_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write({"weights": torch.arange(1000.0), "step": 3}, "state-000000003.ckpt")
    assert store.read(path)["step"] == 3
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is damaged"):
        store.read(path)


def test_only_plain_values_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write({"code": os.getcwd}, "state-000000001.ckpt")
    with pytest.raises(ModelError, match="is damaged"):
        store.read(path)


def test_two_states_and_the_weights_they_name_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for step in range(1, 6):
        best = store.write({}, f"best-{step:09d}.ckpt")
        store.write({}, f"state-{step:09d}.ckpt", best=best.name)
        store.prune()
    names = {path.name for path in tmp_path.glob("*.ckpt")}
    assert names == {f"{kind}-{step:09d}.ckpt" for kind in ("best", "state") for step in (4, 5)}
    assert len(list(tmp_path.iterdir())) == 4 + 4


def test_a_full_disk_is_an_error_that_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    kept = store.write({"step": 1}, "state-000000001.ckpt")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=r"state-000000002.ckpt: the disk is full \([\d,]+ bytes are free\); free") as caught:
        store.write({"step": 2}, "state-000000002.ckpt")
    assert caught.value.exit_code == 5
    assert store.newest() == kept
    assert not list(tmp_path.glob("*.partial"))


def test_a_disk_that_is_full_in_mid_file_is_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = checkpoints._Digested.write, iter(range(4))

    def full(self: checkpoints._Digested, data: bytes) -> int:
        if next(room, None) is None:
            raise OSError(28, "No space left on device")  # torch makes a RuntimeError of it
        return write(self, data)

    monkeypatch.setattr(checkpoints._Digested, "write", full)
    with pytest.raises(MachineError, match=r"state-000000001.ckpt: the disk is full \([\d,]+ bytes are free, 4,000 are needed"):
        Store(tmp_path).write({"weights": torch.arange(1000.0)}, "state-000000001.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_signal_is_remembered_and_a_second_one_ends_the_process() -> None:
    signals, before = Signals(), signal.getsignal(signal.SIGTERM)
    with signals.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.heard == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


HOLD = """
import sys; from pathlib import Path; from finespun.training.checkpoints import Store
with Store(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_which_one_is_at_work(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {other.pid} is already training") as caught, Store(tmp_path).lock():
            pass
        assert caught.value.exit_code == 75
        other.communicate("")
    with Store(tmp_path).lock():
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_notes_are_kept_until_the_store_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.folder.mkdir()
    assert store.note("run") is None
    store.note("run", "abc")
    assert Store(tmp_path / "store").note("run") == "abc"
    store.remove()
    assert not store.folder.exists()
