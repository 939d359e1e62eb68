"""The machine fails in whatever words a library has for it: exit code 5 and a remedy, never "a bug in finespun"."""

from __future__ import annotations

import errno
import importlib
import json
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from finespun.artifacts import Artifacts
from finespun.cli.main import main
from finespun.errors import MachineError, ModelError
from finespun.failures import ended, explained, free_memory
from finespun.stages.__main__ import run_stages


def torch_asks_for_too_much() -> None:
    torch.empty(2**58)


def numpy_asks_for_too_much() -> None:
    import numpy as np

    np.empty(2**58)


def arrow_asks_for_too_much() -> None:
    import pyarrow as pa

    pa.allocate_buffer(2**60)


class PanicError(BaseException):
    """As pyo3's PanicException, which is no Exception."""


def wrapped() -> None:
    cause = OSError(errno.ENOMEM, "Cannot allocate memory")
    raise ModelError("models/x: AutoModel cannot load it; choose another model or task") from cause


DISGUISES: dict[str, BaseException] = {
    "empty MemoryError": MemoryError(),
    "torch's own": torch.OutOfMemoryError(),
    "segment": ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    "lazy import": RuntimeError("Failed to import transformers.models.bert because of: x.so: failed to map segment from"),
    "primitive": RuntimeError("could not create a primitive"),
    "memory object": RuntimeError("could not create a memory object"),
    "thread": RuntimeError("can't start new thread"),
    "allocator": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    "bad_alloc": RuntimeError("std::bad_alloc"),
    "fork": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "too many processes": BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    "mmap": RuntimeError("unable to mmap 4096 bytes from file </x/model.safetensors>: Cannot allocate memory (12)"),
    "pool": PanicError("The global thread pool has not been initialized.: ThreadPoolBuildError { kind: IOError(Os) }"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}  # fmt: skip


def stage_that(monkeypatch: pytest.MonkeyPatch, fail: Any) -> None:
    real = importlib.import_module
    stage = SimpleNamespace(run=lambda _: fail())
    monkeypatch.setattr(importlib, "import_module", lambda name: stage if name.startswith("finespun.stages") else real(name))


def raising(error: BaseException) -> Any:
    def fail(*_: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("disguise", DISGUISES)
def test_memory_that_ran_out_is_5_with_a_remedy(
    disguise: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    stage_that(monkeypatch, raising(DISGUISES[disguise]))
    assert run_stages(("finetune",), Artifacts(project=tmp_path, out=tmp_path)) == 5
    said = capsys.readouterr().err
    assert "memory ran out" in said
    assert "lower runtime.device_batch_size" in said
    assert "bug" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("ask", [torch_asks_for_too_much, numpy_asks_for_too_much, arrow_asks_for_too_much, wrapped])
def test_memory_that_ran_out_for_real_is_5(
    ask: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    stage_that(monkeypatch, ask)
    assert run_stages(("finetune",), Artifacts(project=tmp_path, out=tmp_path)) == 5
    assert "MB are free now" in capsys.readouterr().err


def test_a_gpu_says_itself_what_is_free() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 12.50 MiB is"
        " free. Process 7 has 79 GiB memory in use. Of the allocated memory"
    )
    found = str(explained(torch.OutOfMemoryError(said)))
    assert "(CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 12.50" in found
    assert "Process 7" not in found


def test_what_is_free_is_never_more_than_the_process_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**6, 10**6))
    assert free_memory() == 0


@pytest.mark.parametrize(
    ("error", "telling"),
    [
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "cannot be read or written",
        ),
        (RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file"), "cannot be read"),
        (ValueError("(sqlite3.OperationalError) database or disk is full"), "a file cannot be read or written"),
        (OSError(errno.ENOSPC, "No space left on device", "models/x"), "models/x: the disk is full ("),
        (PermissionError(errno.EACCES, "Permission denied", "reports"), "reports: permission denied"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "the GPU or its driver failed"),
        (ImportError("libcudart.so.12: cannot open", name="torch"), "torch cannot be imported"),
    ],
)
def test_other_failures_of_the_machine_are_5(error: Exception, telling: str) -> None:
    found = explained(error)
    assert isinstance(found, MachineError)
    assert telling in str(found)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ImportError("cannot import name 'x'", name="finespun.tasks"),
        ImportError("libgomp: cannot allocate memory in static TLS block", name="finespun.x"),
    ],
)
def test_what_is_none_of_these_stays_unexplained(error: Exception) -> None:
    assert explained(error) is None


@pytest.mark.parametrize("error", [ModelError("x.json: is damaged; restore it"), MachineError("memory ran out; ask for less")])
def test_errors_of_our_own_stay_what_they_are(error: Exception) -> None:
    error.__cause__ = ValueError("torn")
    assert explained(error) is error


def test_a_bug_says_what_to_send_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.setenv("TRACKING_PASSWORD", "hunter22")
    artifacts = Artifacts(project=tmp_path, out=tmp_path)
    artifacts.config.parent.mkdir()
    artifacts.config.write_text("seed: 1\n")
    stage_that(monkeypatch, raising(KeyError("http://me:topsecret@server/ and hunter22")))
    assert run_stages(("finetune",), artifacts) == 1
    said = capsys.readouterr().err
    (report,) = (tmp_path / ".finespun" / "bugs").iterdir()
    assert str(report) in said
    for text in (said, report.read_text()):
        for fact in (
            "this is a bug" if text == said else "finespun finetune",
            "torch 2",
            "transformers 5",
            "Python 3.",
            "configuration ",
        ):
            assert fact in text
        assert "hunter22" not in text
        assert "topsecret" not in text


def test_commands_say_it_in_the_same_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("finespun.report.summary.show", raising(RuntimeError("std::bad_alloc")))
    done = CliRunner().invoke(main, ["summary"])
    assert done.exit_code == 5
    assert "finespun summary: memory ran out (std::bad_alloc" in done.output
    monkeypatch.setattr("finespun.report.summary.show", raising(KeyError("x")))
    done = CliRunner().invoke(main, ["summary"])
    assert done.exit_code == 1
    assert "this is a bug in finespun" in done.output


@pytest.mark.parametrize(
    "content",
    ["", "\n", "\0\0\0", '{"rows": 3', "[1, 2]", "{}", '{"rows": 1}\n<<<<<<< HEAD\n', b"\xff\xfe\x00", "[" * 100_000],
)
def test_results_that_are_torn_name_the_file_and_the_remedy(
    content: str | bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "conf").mkdir()
    folder = tmp_path / "reports" / "test"
    folder.mkdir(parents=True)
    (folder / "details.json").write_text(json.dumps({"shown": [], "scores": {}, "baselines": {}}))
    (folder / "metrics.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["summary"])
    assert done.exit_code == 5
    assert f"{folder / 'metrics.json'}: " in done.output
    assert "dvc repro --force test" in done.output


@pytest.mark.parametrize("code", [-9, 137, -6, 134, -11, 139, -7])
def test_a_process_that_was_killed_is_no_bug(code: int) -> None:
    found = ended(code)
    assert found is not None
    assert "most often because memory ran out" in str(found)
    assert found.exit_code == 5


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 75, 130, 143, -2, -15])
def test_a_process_that_ended_by_itself_has_said_why(code: int) -> None:
    assert ended(code) is None
