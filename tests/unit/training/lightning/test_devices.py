"""Devices and arithmetic."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from finespun.errors import MachineError
from finespun.training.lightning import devices
from finespun.training.lightning.devices import choose, passes_of_step
from small_run import small_config


def runtime(**changes: object) -> devices.RuntimeConfig:
    return small_config(**{f"runtime__{name}": value for name, value in changes.items()}).runtime


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    found = choose(runtime(accelerator="auto", devices="auto"))
    assert (found.accelerator, found.devices, found.precision) == ("cuda", 4, "bf16-mixed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert choose(runtime(accelerator="auto", devices=2)).precision == "16-mixed"
    with pytest.raises(MachineError, match="8 asked for, 4 cuda there"):
        choose(runtime(accelerator="gpu", devices=8))


def test_a_cpu_is_not_asked_for_more_processes_than_it_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert choose(runtime(accelerator="cpu", devices=8)).devices == 8
    with pytest.raises(MachineError, match="runtime.devices: 99 asked for, 8 processes are the most on 2 cores; lower it"):
        choose(runtime(accelerator="cpu", devices=99))
    monkeypatch.setattr(devices, "cores", lambda: 128)
    assert choose(runtime(accelerator="cpu", devices=99)).devices == 99


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "precision", "why"),
    [
        (True, False, "bf16-mixed", "native on this CPU"),
        (False, True, "bf16-mixed", "native on this CPU"),
        (False, False, "32-true", "no native bf16 on this cpu"),
    ],
)
def test_a_cpu_takes_bf16_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, precision: str, why: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    found = choose(runtime(accelerator="cpu"))
    assert (found.accelerator, found.devices, found.precision) == ("cpu", 1, precision)
    assert f"precision {precision} ({why})" in str(found)
    assert choose(runtime(accelerator="cpu"), "32-true").precision == "32-true"


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(MachineError, match="gpu asked for, none is there") as caught:
        choose(runtime(accelerator="gpu"))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("rows", "devices", "at_once", "passes"), [(32, 1, None, 1), (32, 2, None, 1), (32, 1, 8, 4), (32, 2, 8, 2), (30, 4, 3, 3)]
)
def test_a_step_is_cut_into_passes_that_fit(rows: int, devices: int, at_once: int | None, passes: int) -> None:
    assert passes_of_step(rows, devices, at_once) == passes


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_freed_memory_is_kept() -> None:
    """The same 40 MB, taken and given back again and again, are soon faulted in no more."""
    script = (
        "import resource, sys, torch; from finespun.training.lightning.devices import keep_freed_memory\n"
        "if sys.argv[1] == 'keep': keep_freed_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "use = lambda: sum(float(torch.empty(10_000_000).fill_(1)[0]) for _ in range(10))\n"
        "use(); before = faults(); use(); print(faults() - before)"
    )
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", script, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("give", "keep")
    }
    assert faults["keep"] < faults["give"] / 4
