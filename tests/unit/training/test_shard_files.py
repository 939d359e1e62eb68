"""Checkpoints in shards: what the Store promises of a file holds for all of its parts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from finespun.errors import MachineError, ModelError
from finespun.training.checkpoints import Store
from finespun.training.lightning.callbacks import StoreIO
from finespun.training.lightning.launching import rank
from finespun.training.shard_files import kinds_of, read_shards, taken_apart, write_shards
from several import together

WHOLE = {"a/odd": torch.arange(21.0).reshape(7, 3), "b": torch.arange(2.0), "c": torch.arange(4, dtype=torch.bfloat16)}

BEST = "best-000000000.ckpt"


def sharded(tensors: dict[str, torch.Tensor], processes: int) -> dict[str, torch.Tensor]:
    mesh = init_device_mesh("cpu", (processes,))
    return {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in tensors.items()}


def written(folder: Path, processes: int, *steps: int) -> None:
    """Writes checkpoints of steps as the processes of a run would; step 0 is the best weights, which all others name."""

    def work() -> None:
        torch.distributed.init_process_group("gloo")
        store = Store(folder)
        if steps[0]:
            store.known |= store._digests(folder / BEST)
        for step in steps:
            name = f"state-{step:09d}.ckpt" if step else BEST
            state = {name: (step or 1) * tensor for name, tensor in WHOLE.items()}
            plain, shards = taken_apart({"state_dict": sharded(state, processes), "step": step})
            digests = write_shards(shards, store.shards_of(folder / name))
            if rank() == 0:
                store.write(plain, name, best=BEST if step else "", shards=digests)
                store.prune() if step else None

    together(processes, work)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Best weights and two states that name them, written by three processes, one of which has nothing of some tensors."""
    folder = tmp_path_factory.mktemp("store")
    written(folder, 3, 0, 2, 4)
    return folder


@pytest.fixture
def store(three: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copytree(three, tmp_path / "store")))


def test_one_process_reads_what_three_have_written(store: Store) -> None:
    newest = store.newest()
    assert newest is not None
    assert newest.name == "state-000000004.ckpt"
    found = StoreIO(store).load_checkpoint(newest)
    assert found["step"] == 4
    assert found["state_dict"].keys() == WHOLE.keys()
    for name, tensor in WHOLE.items():
        assert found["state_dict"][name].dtype == tensor.dtype
        assert torch.equal(found["state_dict"][name], 4 * tensor)


def test_two_processes_read_their_shards_of_what_three_have_written(store: Store) -> None:
    folder = store.shards_of(store.states()[0])
    assert kinds_of(folder)["model/a/odd"] == (torch.Size([7, 3]), torch.float32)

    def work() -> Any:
        torch.distributed.init_process_group("gloo")
        into = {f"model/{name}": each for name, each in sharded({n: 0 * t for n, t in WHOLE.items()}, 2).items()}
        read_shards(into, folder)
        assert all(isinstance(each, DTensor) for each in into.values())
        return {name: each.full_tensor().float().numpy() for name, each in into.items()}  # type: ignore[attr-defined]

    for found in together(2, work):
        assert all(np.array_equal(found[f"model/{name}"], 4 * tensor.float().numpy()) for name, tensor in WHOLE.items())


def parts(store: Store, name: str) -> list[Path]:
    return sorted(store.shards_of(store.folder / name).iterdir())


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
@pytest.mark.parametrize("part", [0, 2])
def test_a_damaged_shard_is_found_and_an_older_checkpoint_taken(
    store: Store, how: str, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = parts(store, "state-000000004.ckpt")[part]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content if how == "flipped" else content[:-8])
    newest = store.newest()
    assert newest is not None
    assert newest.name == "state-000000002.ckpt"
    assert path.name in capsys.readouterr().out
    with pytest.raises(ModelError, match=path.name):
        StoreIO(store).load_checkpoint(store.folder / "state-000000004.ckpt")


def test_damaged_shards_of_the_best_weights_damage_whoever_names_them(store: Store) -> None:
    path = parts(store, "best-000000000.ckpt")[1]
    path.write_bytes(path.read_bytes()[:-4])
    assert store.newest() is None


def test_two_are_kept_with_their_shards_and_nothing_else(store: Store) -> None:
    (store.folder / "state-000000009.shards").mkdir()  # of a process that was killed before the file was written
    (store.folder / "state-000000010.shards.partial").mkdir()
    written(store.folder, 2, 6)
    left = sorted(path.name for path in store.folder.iterdir() if path.suffix != ".sha256")
    names = ["best-000000000", "state-000000002", "state-000000004", "state-000000006"]
    kept = [name for name in names if name in {path.partition(".")[0] for path in left}]
    assert names[-2:] == [name for name in kept if name.startswith("state")][-2:]
    assert left == sorted(f"{name}.{kind}" for name in kept for kind in ("ckpt", "shards"))
    assert len(parts(store, "state-000000006.ckpt")) == 2


def test_no_part_is_a_pickle(store: Store) -> None:
    assert {path.suffix for path in store.folder.rglob("*") if path.is_file() and path.parent.suffix == ".shards"} == {
        ".safetensors"
    }
    listed = (store.folder / "state-000000004.ckpt.sha256").read_text().splitlines()
    assert len(listed) == 2 * (3 + 1), "three shards and a file, of the best weights and its own; as sha256sum reads them"


def test_processes_that_do_not_share_a_disk_are_told(tmp_path: Path) -> None:
    def work() -> str:
        torch.distributed.init_process_group("gloo")
        mine = tmp_path / f"node-{rank()}"
        mine.mkdir()
        if rank():
            (mine / "state-000000001.shards.partial").mkdir()
        try:
            write_shards(sharded(WHOLE, 2), mine / "state-000000001.shards")
        except MachineError as error:
            return str(error)
        except RuntimeError:
            return "rank zero has ended"
        return ""

    assert "which another node has written, is not there" in together(2, work)[0]
